"""Trainings that are interrupted, short of memory, or stopped by an error."""

import math
import os
import random
import re
import signal
from dataclasses import replace

import pytest
import torch
from trainings import SEED, Killed, curve, interrupted, trained, weights, with_weights

import train as program
from wspin import interruption
from wspin.engine.batches import plan_steps
from wspin.errors import StudyError
from wspin.train import journal, trainer
from wspin.train.run import train

# Interruptions


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
@pytest.mark.parametrize(
    ("deaths", "start"), [([2], "0 of 6"), ([4], "2 of 6"), ([6, 6], "4 of 6"), ([3, 5], "4 of 6")]
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    monkeypatch, capsys, fresh, pairs, train_settings, tmp_path, optimizer, deaths, start
):
    """Weights and curve; states are saved after steps 2, 4 and 6, the last."""
    settings = train_settings(epochs=2, optimizer=optimizer)
    expected = trained(fresh(), pairs, settings, tmp_path / "whole")
    for death in deaths:
        interrupted(monkeypatch, fresh, pairs, settings, tmp_path / "parts", death)
        assert len(curve(tmp_path / "parts")) == death - 1
    capsys.readouterr()
    found = trained(fresh(), pairs, settings, tmp_path / "parts")
    assert capsys.readouterr().out.startswith(f"train: {start} steps")
    assert torch.equal(found, expected)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert not torch.equal(expected, weights(fresh()))


def test_a_request_to_stop_before_the_first_step_saves_that_step(
    monkeypatch, capsys, fresh, pairs, train_settings, tmp_path
):
    """As from a cluster that gives less time than it takes to load a model."""
    expected = trained(fresh(), pairs, train_settings(), tmp_path / "whole")

    def asked(*_):
        os.kill(os.getpid(), signal.SIGURG)
        raise Killed

    monkeypatch.setattr(program, "argument_parser", asked)
    monkeypatch.setattr(interruption, "_requests", [])
    with pytest.raises(Killed):
        program.main([])
    with pytest.raises(StudyError, match=r"stop requested \(SIGURG\): saved at step 1 of 3; run again"):
        trained(fresh(), pairs, train_settings(), tmp_path / "parts")
    capsys.readouterr()
    assert torch.equal(trained(fresh(), pairs, train_settings(), tmp_path / "parts"), expected)
    assert capsys.readouterr().out.startswith("train: 1 of 3 steps, resumed")


def test_a_finished_training_is_not_repeated(capsys, fresh, pairs, train_settings, tmp_path):
    """Where only the publication failed: the weights are those of the last state."""
    expected = trained(fresh(), pairs, train_settings(), tmp_path)
    lines = curve(tmp_path)
    capsys.readouterr()
    assert torch.equal(trained(fresh(), pairs, train_settings(), tmp_path), expected)
    assert capsys.readouterr().out == "train: 3 of 3 steps, resumed\n"
    assert curve(tmp_path) == lines


def test_a_save_that_was_interrupted_does_not_count(monkeypatch, capsys, fresh, pairs, train_settings, tmp_path):
    settings, saved = train_settings(epochs=2), journal.Journal.on_save
    expected = trained(fresh(), pairs, settings, tmp_path / "whole")

    def dies(self, args, state, control, **more):
        if state.global_step == 4:
            (tmp_path / "parts/checkpoint-4/model.safetensors").write_bytes(b"half")
            raise Killed
        saved(self, args, state, control, **more)

    monkeypatch.setattr(journal.Journal, "on_save", dies)
    with pytest.raises(Killed):
        trained(fresh(), pairs, settings, tmp_path / "parts")
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "parts").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert journal.last_saved(tmp_path / "parts").name == "checkpoint-2"
    capsys.readouterr()
    assert torch.equal(trained(fresh(), pairs, settings, tmp_path / "parts"), expected)
    assert capsys.readouterr().out.startswith("train: 2 of 6 steps, resumed")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_the_last_saved_state_is_the_one_of_the_highest_step(monkeypatch, tmp_path):
    monkeypatch.setattr(journal, "unreadable", lambda *_: None)
    assert journal.last_saved(tmp_path) is None
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-9"):
        (tmp_path / name).mkdir()
        journal.mark_complete(tmp_path / name)
    (tmp_path / "checkpoint-12").mkdir()
    assert journal.last_saved(tmp_path).name == "checkpoint-10"


def test_no_bit_of_a_saved_state_changes_unnoticed(monkeypatch, capsys, fresh, pairs, train_settings, tmp_path):
    """Its steps are repeated from the state before it; without one, all of them."""
    settings = train_settings(epochs=2)
    expected = trained(fresh(), pairs, settings, tmp_path / "whole")
    interrupted(monkeypatch, fresh, pairs, settings, tmp_path / "parts", 6)
    first, last = tmp_path / "parts/checkpoint-2", tmp_path / "parts/checkpoint-4"
    assert journal.last_saved(tmp_path / "parts") == last
    files = {path.name for path in last.iterdir()}
    assert files >= {"model.safetensors", "optimizer.pt", "trainer_state.json", "metrics.jsonl", "complete"}
    for path in sorted(last.iterdir()):
        whole = path.read_bytes()
        for bit in random.Random(path.name).sample(range(8 * len(whole)), 5):
            path.write_bytes(flipped(whole, bit))
            assert journal.last_saved(tmp_path / "parts") == first, (path, bit)
        path.write_bytes(whole)
    (last / "optimizer.pt").write_bytes(flipped((last / "optimizer.pt").read_bytes(), 9999))
    capsys.readouterr()
    assert torch.equal(trained(fresh(), pairs, settings, tmp_path / "parts"), expected)
    output = capsys.readouterr().out
    assert output.startswith(f"train: {last}: damaged; its steps are repeated\ntrain: 2 of 6 steps, resumed")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return changed


@pytest.mark.parametrize("text", ["", '{"secon', "[1]", '{"seconds": "x"}'])
def test_a_torn_time_spent_is_one_line(capsys, tmp_path, text):
    (tmp_path / "spent.json").write_text(text)
    assert journal.seconds_spent(tmp_path / "spent.json") == 0.0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"train: {tmp_path}/spent.json: ")
    assert line.endswith("; counting from now")


def test_a_torn_curve_does_not_keep_a_training_from_resuming(monkeypatch, fresh, pairs, train_settings, tmp_path):
    """A full disk leaves half a line behind."""
    settings = train_settings(epochs=2)
    expected = trained(fresh(), pairs, settings, tmp_path / "whole")
    interrupted(monkeypatch, fresh, pairs, settings, tmp_path / "parts", 3)
    with open(tmp_path / "parts/metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    assert torch.equal(trained(fresh(), pairs, settings, tmp_path / "parts"), expected)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_the_time_spent_counts_every_attempt(monkeypatch, fresh, pairs, train_settings, tmp_path):
    settings = train_settings(epochs=2)
    interrupted(monkeypatch, fresh, pairs, settings, tmp_path, 3)
    (tmp_path / "spent.json").write_text('{"seconds": 1000.0}')
    assert 1000.0 < train(fresh(), pairs, settings, "float32", SEED, tmp_path)["seconds"] < 1100.0


# Memory and speed


@pytest.mark.parametrize("fits", [25, 40])
def test_a_step_without_memory_is_taken_in_smaller_batches(
    monkeypatch, capsys, fresh, pairs, train_settings, tmp_path, fits
):
    """In the second micro-batch of a step, when gradients of the first are there."""
    pack, seen = trainer.pack, []

    def short(items):
        seen.append(sum(sum(item.lengths) for item in items))
        if seen[-1] > fits and len(seen) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pack(items)

    settings = train_settings(token_budget=60, global_batch=10)
    expected = trained(fresh(), pairs, settings, tmp_path / "whole")
    monkeypatch.setattr(trainer, "pack", short)
    found = trained(fresh(), pairs, settings, tmp_path / "short")
    lines = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert lines[0] == "train: out of memory; continuing with token_budget 30"
    assert max(seen[2:]) <= 30
    assert len(lines) == (2 if fits < max(seen[2:]) else 1)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert curve(tmp_path / "short")[0]["work/tokens"] == curve(tmp_path / "whole")[0]["work/tokens"]


def test_an_item_that_never_fits_is_one_line(monkeypatch, fresh, pairs, train_settings, tmp_path):
    def full(items):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "pack", full)
    with pytest.raises(StudyError, match=r"^train: out of memory on a single item of \d+ tokens; use a GPU"):
        trained(fresh(), pairs, train_settings(), tmp_path)


def test_budgets_shrink_from_what_a_step_had():
    lengths = [(10, 5, 5)] * 8
    assert trainer.halved_budget(4096, lengths) == 80
    assert trainer.halved_budget(80, lengths) == 40
    assert trainer.halved_budget(30, lengths) == 20
    with pytest.raises(StudyError, match="a single item of 20 tokens"):
        trainer.halved_budget(20, lengths)


def test_checkpointed_activations_change_nothing(fresh, pairs, train_settings, tmp_path):
    """Bit for bit: they are computed again, through the same attention."""
    calls = []
    models = [fresh(), fresh()]
    models[1].model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    plain, again = (
        trained(one, pairs, train_settings(gradient_checkpointing=checkpointing), tmp_path / str(checkpointing))
        for checkpointing, one in enumerate(models)
    )
    assert torch.equal(plain, again)
    assert len(calls) > 2 * len(curve(tmp_path / "1"))


def test_speed_is_printed_and_kept_out_of_the_curve(capsys, fresh, pairs, train_settings, tmp_path):
    found = train(fresh(), pairs, train_settings(epochs=4), "float32", SEED, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train: 12 of 12 steps")]
    assert re.search(r"  \d+ tokens/s  utilisation 0\.\d\d  0 s left$", line)
    assert set(found) == {"seconds", "tokens_per_second", "utilisation"}
    tokens = sum(step["work/tokens"] for step in curve(tmp_path))
    assert tokens == 4 * sum(sum(pair.lengths) for pair in pairs)
    assert found["tokens_per_second"] == pytest.approx(tokens / found["seconds"], rel=0.2)
    assert journal.speed([{"work/tokens": 30, "work/needed": 800}] * 2, 4.0, 1000.0) == {
        "tokens_per_second": 15.0,
        "utilisation": 0.4,
    }


# What stops a training


def test_a_loss_that_is_not_finite_stops(fresh, pairs, train_settings, tmp_path):
    """At its step, and before the state is saved."""
    last = plan_steps(len(pairs), SEED, 4)[2][0]
    broken = [
        replace(p, reference=(p.reference[0] * math.nan, p.reference[1])) if i == last else p
        for i, p in enumerate(pairs)
    ]
    with pytest.raises(
        StudyError, match=r"^step 3: expected a finite loss and gradient, found loss nan, gradient norm nan$"
    ):
        trained(fresh(), broken, train_settings(save_every=1), tmp_path)
    assert journal.last_saved(tmp_path).name == "checkpoint-2"
    assert [line["step"] for line in curve(tmp_path)] == [1, 2]


def test_an_sft_loss_that_is_not_finite_stops(model, make_items, train_settings, tmp_path):
    diverges = train_settings(loss="sft", learning_rate=1e30)
    with pytest.raises(StudyError, match=r"^step 2: expected a finite loss and gradient, found loss nan"):
        trained(model, make_items(10, answers=1), diverges, tmp_path)
    assert journal.last_saved(tmp_path) is None


def test_a_capped_head_is_refused(model, pairs, train_settings, tmp_path):
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(StudyError, match="found a scaled or capped head"):
        trained(model, pairs, train_settings(), tmp_path)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_weighted_training_resumes_bit_for_bit(monkeypatch, fresh, pairs, train_settings, tmp_path, alpha):
    """The frozen reference is the start model, also after an interruption."""
    settings, items = train_settings(epochs=2, loss="wspin", alpha=alpha), with_weights(pairs)
    expected = trained(fresh(), items, settings, tmp_path / "whole")
    interrupted(monkeypatch, fresh, items, settings, tmp_path / "parts", 4)
    assert torch.equal(trained(fresh(), items, settings, tmp_path / "parts"), expected)
