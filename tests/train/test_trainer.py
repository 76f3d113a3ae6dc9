"""Steps, gradients and curves of short trainings, and trainings that were interrupted."""

import copy
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wspin.engine.batches import plan_steps
from wspin.errors import StudyError
from wspin.logprobs.score import score_items
from wspin.train import journal, run, trainer
from wspin.train.inputs import group_by_prompt
from wspin.train.run import train

SEED = (42, 0)


@pytest.fixture
def fresh(model):
    """Makes copies of the model."""
    return lambda: copy.deepcopy(model)


@pytest.fixture
def pairs(model, make_items):
    """Ten pairs with the reference of the model itself."""
    return scored(model, make_items(10))


def scored(model, items, precision="float32"):
    scores = score_items(model, items, 4096, precision)
    return [replace(item, reference=tuple(own)) for item, own in zip(items, scores, strict=True)]


def moved(items, by=1.0):
    """With a reference that the model has left behind: margins are not zero."""
    rng = np.random.default_rng(3)

    def noisy(values):
        return (values + rng.normal(0, by, len(values))).astype(np.float32)

    return [replace(item, reference=tuple(map(noisy, item.reference))) for item in items]


def curve(state):
    return [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def trained(model, items, settings, state, precision="float32"):
    state.mkdir(exist_ok=True)
    train(model, items, settings, precision, SEED, state)
    return weights(model)


# One step


def step_gradient(model, items, settings, state, index=0):
    """Loss and gradient of one optimiser step, as the Trainer takes it."""
    made, steps = planned(model, items, settings, state)
    loss = made.training_step(model, steps[index])
    chosen = [items[i] for i in sorted(steps[index])]
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()]), chosen


def planned(model, items, settings, state):
    """A trainer that has not begun, and its steps."""
    steps = plan_steps(len(items), SEED, run.items_per_step(items, settings))
    arguments = run.training_arguments(settings, len(steps), 0, state, on_cpu=True)
    return trainer.PlannedTrainer(settings, "float32", items, model=model, args=arguments, train_dataset=steps), steps


def plain_sum(model, item, side):
    """Log-probability of one answer, from a whole forward pass."""
    ids = torch.from_numpy(np.concatenate([item.prompt, item.responses[side]]).astype(np.int64))
    logprobs = model(input_ids=ids[None]).logits[0, len(item.prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, ids[len(item.prompt) :, None]).sum()


def plain_gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def agree(found, expected, share):
    """What is told is the mean over the step's own items, whatever their share of `global_batch`."""
    assert found[0] * share == pytest.approx(expected[0], rel=1e-5)
    assert (found[1] - expected[1]).norm() < 1e-4 * expected[1].norm()
    assert expected[1].norm() > 1e-3


@pytest.mark.parametrize("token_budget", [1, 60, 4096])
@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("index", [0, 2])
def test_a_step_is_the_mean_over_the_global_batch(fresh, pairs, train_settings, tmp_path, token_budget, eps, index):
    """Step 2 has two pairs, and weighs two quarters: every pair of an epoch counts the same."""
    settings = train_settings(
        token_budget=token_budget, label_smoothing=eps, margin_bound={"float32": 99, "bfloat16": 99}
    )
    *found, items = step_gradient(fresh(), moved(pairs), settings, tmp_path, index)
    assert len(items) == (2 if index else 4)
    exact, total = fresh().double(), 0.0
    for item in items:
        chosen, rejected = (
            plain_sum(exact, item, side) - float(item.reference[side].sum(dtype=float)) for side in (0, 1)
        )
        right, wrong = (torch.log1p(torch.exp(sign * 0.5 * (chosen - rejected))) for sign in (-1, 1))
        total = total + (1 - eps) * right + eps * wrong
    agree(found, plain_gradient(exact, total / 4), len(items) / 4)


@pytest.mark.parametrize("token_budget", [1, 60, 4096])
@pytest.mark.parametrize("reduction", ["token_mean", "sum"])
@pytest.mark.parametrize("index", [0, 2])
def test_sft_is_a_mean_over_tokens_or_a_sum(
    fresh, make_items, train_settings, tmp_path, token_budget, reduction, index
):
    """Of a last step with two rows either weighs two quarters."""
    settings = train_settings(loss="sft", reduction=reduction, token_budget=token_budget)
    *found, items = step_gradient(fresh(), make_items(10, answers=1), settings, tmp_path, index)
    exact, rows = fresh().double(), len(items)
    total = -sum(plain_sum(exact, item, 0) for item in items)
    tokens = sum(len(item.responses[0]) for item in items)
    agree(found, plain_gradient(exact, total / 4 if reduction == "sum" else total / tokens * rows / 4), rows / 4)


def test_swapping_chosen_and_rejected_flips_the_margin(fresh, pairs, train_settings, tmp_path):
    settings = train_settings(margin_bound={"float32": 99, "bfloat16": 99}, global_batch=10)
    swapped = [replace(p, responses=p.responses[::-1], reference=p.reference[::-1]) for p in moved(pairs)]
    lines = []
    for name, items in (("a", moved(pairs)), ("b", swapped)):
        trained(fresh(), items, settings, tmp_path / name)
        lines += curve(tmp_path / name)
    assert lines[0]["rewards/margin"] == pytest.approx(-lines[1]["rewards/margin"], rel=1e-5) != 0.0
    assert lines[0]["rewards/accuracy"] == pytest.approx(1.0 - lines[1]["rewards/accuracy"])


# The first step


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 1.0)])
@pytest.mark.parametrize("loss", ["spin", "dpo"])
def test_the_first_loss_is_log_2(fresh, make_items, train_settings, tmp_path, precision, bound, loss):
    """The policy is still its own reference, whatever the layouts in which the two were computed."""
    items = scored(fresh(), make_items(10), precision)
    trained(fresh(), items, train_settings(loss=loss, token_budget=60), tmp_path, precision)
    first = curve(tmp_path)[0]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-4 if precision == "float32" else 0.1)
    assert first["margin/largest"] <= bound


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_margin_is_zero_exactly_on_one_and_the_same_batch(
    fresh, make_items, train_settings, tmp_path, precision
):
    """Scoring and training lay equal items out equally, and compute in one precision."""
    items = scored(fresh(), make_items(10), precision)
    trained(fresh(), items, train_settings(global_batch=10), tmp_path, precision)
    (line,) = curve(tmp_path)
    assert line["margin/largest"] == line["rewards/chosen"] == line["rewards/rejected"] == 0.0
    assert line["loss"] == pytest.approx(math.log(2), rel=1e-6)


def test_a_reference_of_another_precision_shows(fresh, make_items, train_settings, tmp_path):
    items = scored(fresh(), make_items(10), "bfloat16")
    with pytest.raises(StudyError, match=r"first step: expected \|margin\| .* <= 0.001 nat \(margin_bound.float32\)"):
        trained(fresh(), items, train_settings(), tmp_path)


@pytest.mark.parametrize("shift", [0.1, math.nan])
def test_a_stale_reference_stops(fresh, pairs, train_settings, tmp_path, shift):
    """Before the first update, and with nothing saved."""
    model = fresh()
    stale = [replace(item, reference=(item.reference[0] + shift, item.reference[1])) for item in pairs]
    with pytest.raises(StudyError) as error:
        trained(model, stale, train_settings(), tmp_path)
    assert "score the pairs again with this model" in str(error.value)
    assert "\n" not in str(error.value)
    assert torch.equal(weights(model), weights(fresh()))
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 1.0)])
def test_each_precision_has_its_bound(train_settings, precision, bound):
    trainer.check_first_margin(bound, train_settings(), precision)
    for largest in (bound * 1.01, math.inf, math.nan):
        with pytest.raises(StudyError, match=rf"<= {bound} nat \(margin_bound\.{precision}\), found"):
            trainer.check_first_margin(largest, train_settings(), precision)


def test_only_the_first_step_is_bound(fresh, pairs, train_settings, tmp_path):
    trained(fresh(), pairs, train_settings(), tmp_path)
    assert curve(tmp_path)[-1]["margin/largest"] > 1.0


# Token weights


def weighed(items, seed=5):
    """With a random weight for every token."""
    rng = np.random.default_rng(seed)
    made = [tuple(rng.uniform(0.2, 4.0, len(ids)).astype(np.float32) for ids in item.responses) for item in items]
    return [replace(item, weights=own) for item, own in zip(items, made, strict=True)]


def plain_logits(model, item, side):
    ids = torch.from_numpy(np.concatenate([item.prompt, item.responses[side]]).astype(np.int64))
    return model(input_ids=ids[None]).logits[0, len(item.prompt) - 1 : -1].log_softmax(-1), ids[len(item.prompt) :]


def plain_weighed(model, reference, item, alpha):
    """h_W - alpha (KL_W(chosen) - KL_W(rejected)) from whole forward passes, token by token."""
    sums = []
    for side, (weights, stored) in enumerate(zip(item.weights, item.reference, strict=True)):
        (own, ids), (other, _) = plain_logits(model, item, side), plain_logits(reference, item, side)
        total = 0.0
        for i, token in enumerate(ids.tolist()):
            kl = (own[i].exp() * (own[i] - other[i].detach())).sum()
            total = total + float(weights[i]) * (own[i, token] - float(stored[i]) - alpha * kl)
        sums.append(total)
    return sums[0] - sums[1]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("token_budget", [1, 4096])
def test_a_weighed_step_is_the_formula(fresh, pairs, train_settings, tmp_path, token_budget, alpha):
    """With a policy that has left the reference, so that the KL term is not zero."""
    settings = train_settings(
        loss="wspin", alpha=alpha, token_budget=token_budget, margin_bound={"float32": 99, "bfloat16": 99}
    )
    items, policy, reference = weighed(moved(pairs)), fresh(), fresh()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    exact = copy.deepcopy(policy).double()
    made, steps = planned(reference, items, settings, tmp_path)  # its model is kept as the frozen reference
    loss = made.training_step(policy, steps[0]).item()
    found = loss, torch.cat([weight.grad.flatten() for weight in policy.parameters()])
    total = 0.0
    for item in (items[i] for i in steps[0]):
        total = total + torch.log1p(torch.exp(-0.5 * plain_weighed(exact, fresh().double(), item, alpha)))
    agree(found, plain_gradient(exact, total / 4), 1.0)


def test_weights_of_one_are_spin_bit_for_bit(fresh, pairs, train_settings, tmp_path):
    """Models and curves."""
    ones = [replace(item, weights=tuple(np.ones_like(one) for one in item.reference)) for item in pairs]
    plain = trained(fresh(), pairs, train_settings(epochs=3), tmp_path / "spin")
    same = trained(fresh(), ones, train_settings(epochs=3, loss="wspin", alpha=0.0), tmp_path / "wspin")
    assert torch.equal(plain, same)
    assert curve(tmp_path / "spin") == curve(tmp_path / "wspin")
    other = trained(fresh(), weighed(pairs), train_settings(epochs=3, loss="wspin", alpha=0.0), tmp_path / "other")
    assert not torch.allclose(plain, other)


def test_without_alpha_there_is_no_reference_and_no_divergence(monkeypatch, fresh, pairs, train_settings, tmp_path):
    def computed(*_):
        raise AssertionError("a KL was computed")

    monkeypatch.setattr(trainer.losses, "token_kl", computed)
    trained(fresh(), weighed(pairs), train_settings(loss="wspin", alpha=0.0), tmp_path / "none")
    with pytest.raises(AssertionError, match="a KL was computed"):
        trained(fresh(), weighed(pairs), train_settings(loss="wspin", alpha=0.1), tmp_path / "some")


def test_rewards_are_told_weighed_and_unweighed(fresh, pairs, train_settings, tmp_path):
    items = weighed(moved(pairs))
    bound = {"float32": 99, "bfloat16": 99}
    trained(
        fresh(), items, train_settings(loss="wspin", alpha=0.0, margin_bound=bound, global_batch=10), tmp_path / "one"
    )
    delta = [
        [own - then for own, then in zip(now.reference, left.reference, strict=True)]
        for now, left in zip(pairs, items, strict=True)
    ]
    plain = np.array([[one.sum() for one in sides] for sides in delta])
    heavy = np.array(
        [
            [(w * one).sum() for w, one in zip(item.weights, sides, strict=True)]
            for item, sides in zip(items, delta, strict=True)
        ]
    )
    (line,) = curve(tmp_path / "one")
    for name, sums in (("rewards", heavy), ("unweighted", plain)):
        told = {key: line[f"{name}/{key}"] for key in ("chosen", "rejected", "margin", "accuracy")}
        margin = sums[:, 0] - sums[:, 1]
        expected = {"chosen": 0.5 * sums[:, 0].mean(), "rejected": 0.5 * sums[:, 1].mean()}
        expected |= {"margin": 0.5 * margin.mean(), "accuracy": (margin > 0).mean()}
        assert told == pytest.approx(expected, rel=1e-4)
    assert line["margin/largest"] == pytest.approx(abs(plain[:, 0] - plain[:, 1]).max(), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_weighed_training_resumes_bit_for_bit(monkeypatch, fresh, pairs, train_settings, tmp_path, alpha):
    """The frozen reference is the start model, also after an interruption."""
    settings, items = train_settings(epochs=2, loss="wspin", alpha=alpha), weighed(pairs)
    expected = trained(fresh(), items, settings, tmp_path / "whole")
    interrupted(monkeypatch, fresh, items, settings, tmp_path / "parts", 4)
    assert torch.equal(trained(fresh(), items, settings, tmp_path / "parts"), expected)


# Curves


def test_the_curve_has_one_line_per_step(fresh, pairs, train_settings, tmp_path):
    settings = train_settings(epochs=2, schedule={"warmup": 0.5, "decay": "linear"})
    trained(fresh(), pairs, settings, tmp_path)
    lines = curve(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["learning_rate"] / 1e-3 for line in lines] == pytest.approx([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_the_curve_tells_what_was_measured(fresh, pairs, train_settings, tmp_path):
    """One step over all pairs, before which the policy's log-probabilities are those of `pairs`."""
    left = moved(pairs)
    trained(fresh(), left, train_settings(margin_bound={"float32": 99, "bfloat16": 99}, global_batch=10), tmp_path)
    policy, reference = (np.array([[side.sum() for side in p.reference] for p in some]) for some in (pairs, left))
    chosen, rejected = (policy - reference).T
    expected = {
        "rewards/chosen": 0.5 * chosen.mean(),
        "rewards/rejected": 0.5 * rejected.mean(),
        "rewards/margin": 0.5 * (chosen - rejected).mean(),
        "rewards/accuracy": (chosen > rejected).mean(),
        "unweighted/chosen": 0.5 * chosen.mean(),
        "unweighted/rejected": 0.5 * rejected.mean(),
        "unweighted/margin": 0.5 * (chosen - rejected).mean(),
        "unweighted/accuracy": (chosen > rejected).mean(),
        "margin/largest": abs(chosen - rejected).max(),
        "logprobs/chosen": policy[:, 0].mean(),
        "logprobs/rejected": policy[:, 1].mean(),
    }
    (line,) = curve(tmp_path)
    assert {key: line[key] for key in expected} == pytest.approx(expected, rel=1e-4)
    work = {"work/tokens", "work/needed", "work/computed"}
    assert set(line) == {*expected, *work, "step", "loss", "grad_norm", "learning_rate"}


def test_training_learns(fresh, pairs, train_settings, tmp_path):
    trained(fresh(), pairs, train_settings(epochs=10), tmp_path)
    first, *_, last = curve(tmp_path)
    assert last["rewards/margin"] > first["rewards/margin"] + 0.5
    assert last["rewards/accuracy"] == 1.0
    assert last["loss"] < first["loss"] / 2


# The weights


def plain_training(model, items, settings, steps):
    """The same training in a plain loop."""
    names = {name: "norm" in name or name.endswith("bias") for name, _ in model.named_parameters()}
    groups = [[w for name, w in model.named_parameters() if names[name] is kind] for kind in (False, True)]
    optimizer = {"rmsprop": torch.optim.RMSprop, "adamw": torch.optim.AdamW}[settings.optimizer](
        [{"params": groups[0], "weight_decay": settings.weight_decay}, {"params": groups[1], "weight_decay": 0.0}]
    )
    warmup = math.ceil(settings.schedule.warmup * len(steps))
    for done, step in enumerate(steps):
        after = (len(steps) - done) / (len(steps) - warmup) if settings.schedule.decay == "linear" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (done / warmup if done < warmup else after)
        optimizer.zero_grad()
        for item in (items[i] for i in step):
            chosen, rejected = (plain_sum(model, item, side) - float(item.reference[side].sum()) for side in (0, 1))
            (torch.nn.functional.softplus(settings.beta * (rejected - chosen)) / settings.global_batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
    return weights(model)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_training_is_that_of_a_plain_loop(fresh, pairs, train_settings, tmp_path, optimizer, decay):
    """Optimiser, schedule, weight decay and clipping are the settings' and no others."""
    schedule = {"warmup": 0.3, "decay": decay}
    settings = train_settings(
        epochs=2, optimizer=optimizer, schedule=schedule, weight_decay=0.2, max_grad_norm=1.0, beta=0.1
    )
    steps = plan_steps(len(pairs), SEED, 4, epochs=2)
    expected = plain_training(fresh(), pairs, settings, steps)
    found = trained(fresh(), pairs, settings, tmp_path)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (found - weights(fresh())).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("loss", ["spin", "sft"])
def test_token_budget_moves_the_weights_by_rounding_only(fresh, pairs, make_items, train_settings, tmp_path, loss):
    items = pairs if loss == "spin" else make_items(10, answers=1)
    found = [
        trained(fresh(), items, train_settings(loss=loss, token_budget=budget), tmp_path / str(budget))
        for budget in (1, 60, 4096)
    ]
    distance = (found[2] - weights(fresh())).norm()
    for other in found[:2]:
        assert (other - found[2]).norm() < 1e-5 * found[2].norm()
    assert distance > 1e-3 * found[2].norm()


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
    told = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert told[0] == "train: out of memory; continuing with token_budget 30"
    assert max(seen[2:]) <= 30
    assert len(told) == (2 if fits < max(seen[2:]) else 1)
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
        trained(one, pairs, train_settings(gradient_checkpointing=asked), tmp_path / str(asked))
        for asked, one in enumerate(models)
    )
    assert torch.equal(plain, again)
    assert len(calls) > 2 * len(curve(tmp_path / "1"))


def test_speed_is_told_and_kept_out_of_the_curve(capsys, fresh, pairs, train_settings, tmp_path):
    found = train(fresh(), pairs, train_settings(epochs=4), "float32", SEED, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train: step 12 of 12")]
    assert re.search(r"  \d+ tokens/s  utilisation 0\.\d\d  0 s left$", line)
    assert set(found) == {"seconds", "tokens_per_second", "utilisation"}
    tokens = sum(step["work/tokens"] for step in curve(tmp_path))
    assert tokens == 4 * sum(sum(pair.lengths) for pair in pairs)
    assert found["tokens_per_second"] == pytest.approx(tokens / found["seconds"], rel=0.2)
    assert journal.speed([{"work/tokens": 30, "work/needed": 800}] * 2, 4.0, 1000.0) == {
        "tokens_per_second": 15.0,
        "utilisation": 0.4,
    }


# Triplets


def test_pairs_of_one_prompt_read_together_train_as_apart(fresh, model, make_items, train_settings, tmp_path):
    """One step over all of them: loss, gradient and curve are those of the pairs."""
    triples = make_items(6, answers=3)
    sets = []
    for place in (1, 2):
        pair = [replace(one, responses=(one.responses[0], one.responses[place])) for one in triples]
        sets.append(weighed(moved(scored(model, pair), by=0.5), seed=place))
    pairs, kept = [*sets[0], *sets[1]], group_by_prompt(sets)
    assert [item.sides for item in kept] == [(0, 1, 0, 2)] * 6
    assert sum(sum(item.lengths) for item in kept) < sum(sum(item.lengths) for item in pairs)
    for alpha in (0.0, 0.5):
        settings = train_settings(
            loss="wspin", alpha=alpha, global_batch=12, margin_bound={"float32": 99, "bfloat16": 99}
        )
        found = []
        for items in (pairs, kept):
            policy = fresh()
            with torch.no_grad():
                for weight in policy.parameters():
                    weight.mul_(1.05)
            made, steps = planned(fresh(), items, settings, tmp_path)
            assert len(steps) == 1
            loss = made.training_step(policy, steps[0]).item()
            gradient = torch.cat([weight.grad.flatten() for weight in policy.parameters()])
            found.append((loss, gradient, {k: v for k, v in made.step_metrics.items() if not k.startswith("work/")}))
        assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
        assert (found[1][1] - found[0][1]).norm() < 1e-5 * found[0][1].norm()
        assert found[1][2] == pytest.approx(found[0][2], rel=1e-4)


def test_a_step_holds_whole_triplets(train_settings, make_items):
    kept = [replace(item, sides=(0, 1, 0, 2)) for item in make_items(4, answers=3)]
    assert run.items_per_step(kept, train_settings(global_batch=6)) == 3
    with pytest.raises(
        StudyError,
        match=r"train.global_batch: expected a multiple of the 2 pairs of an item \(train.triplets\), found 5",
    ):
        run.items_per_step(kept, train_settings(global_batch=5))
    assert run.items_per_step(make_items(4, answers=1), train_settings(global_batch=5)) == 5


# Interruptions


class Killed(Exception):
    pass


def interrupted(monkeypatch, fresh, items, settings, state, at):
    """A training that ends within step `at`, counted from one."""
    step = trainer.PlannedTrainer.training_step

    def dies(self, *arguments):
        if self.state.global_step == at - 1:
            raise Killed
        return step(self, *arguments)

    monkeypatch.setattr(trainer.PlannedTrainer, "training_step", dies)
    with pytest.raises(Killed):
        trained(fresh(), items, settings, state)
    monkeypatch.undo()


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
    assert capsys.readouterr().out.startswith(f"train: step {start}")
    assert torch.equal(found, expected)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert not torch.equal(expected, weights(fresh()))


def test_a_finished_training_is_not_repeated(capsys, fresh, pairs, train_settings, tmp_path):
    """Where only the publication failed: the weights are those of the last state."""
    expected = trained(fresh(), pairs, train_settings(), tmp_path)
    lines = curve(tmp_path)
    capsys.readouterr()
    assert torch.equal(trained(fresh(), pairs, train_settings(), tmp_path), expected)
    assert capsys.readouterr().out == "train: step 3 of 3, resumed\n"
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
    assert capsys.readouterr().out.startswith("train: step 2 of 6, resumed")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_the_last_saved_state_is_the_one_of_the_highest_step(tmp_path):
    assert journal.last_saved(tmp_path) is None
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "complete").touch()
    (tmp_path / "checkpoint-12").mkdir()
    assert journal.last_saved(tmp_path).name == "checkpoint-10"


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
    with torch.no_grad():
        next(model.parameters())[7] = math.inf
    with pytest.raises(StudyError, match=r"^step 1: expected a finite loss and gradient, found loss nan"):
        trained(model, make_items(10, answers=1), train_settings(loss="sft"), tmp_path)
    assert journal.last_saved(tmp_path) is None


def test_a_capped_head_is_refused(model, pairs, train_settings, tmp_path):
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(StudyError, match="found a scaled or capped head"):
        trained(model, pairs, train_settings(), tmp_path)


# What is imported


def imports(modules, *unwanted):
    """Modules of the unwanted packages that importing some modules loads."""
    code = f"import sys, {modules}; print([m for m in sys.modules if m.startswith({unwanted!r})])"
    scripts = str(Path(__file__).parents[2] / "workflow/scripts")
    return subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True).stdout


def test_the_configuration_needs_no_tensor_library():
    light = "wspin.config.load, wspin.config.flags, wspin.study.paths, wspin.study.rule_flags, wspin.cli"
    assert imports(light, "torch", "transformers", "pyarrow", "pandas") == "[]\n"


def test_generation_and_scoring_need_no_trainer():
    assert (
        imports(
            "wspin.generate.sampling, wspin.logprobs.score, wspin.train.inputs",
            "transformers.trainer",
            "wspin.train.trainer",
        )
        == "[]\n"
    )
