"""A killed evaluation resumes with the tasks that are left, and gives what an undisturbed one gives."""

import importlib
import json
import math
import random
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance

from wspin import progress
from wspin.eval import harness
from wspin.eval.responses import ResumableLM
from wspin.models import folders
from wspin.storage.files import write_checked_json
from wspin.storage.locks import remove_state

# Of a made-up model


def make_requests(kind, tasks=("b", "a", "c"), number=4):
    second = {"generate_until": {"until": ["\n"]}}.get(kind, " yes")
    return [
        Instance(kind, {}, (f"{task} {i}", second), i, (task, i, 1))
        for task in tasks
        for i in range(number * (1 + tasks.index(task)))
    ]


class Model:
    """Draws every response from the three generators; may die in one of its calls."""

    max_length = 77

    def __init__(self, dies_in=None):
        self.asked, self.dies_in = [], dies_in

    def draw(self):
        return random.random() + float(np.random.random()) + float(torch.rand(()))

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-value, value > 1) for value in self.loglikelihood_rolling(requests, disable_tqdm)]

    def generate_until(self, requests, disable_tqdm=False):
        return [f"é {value}\n" for value in self.loglikelihood_rolling(requests, disable_tqdm)]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        assert disable_tqdm
        (task,) = {request.task_name for request in requests}
        if task == self.dies_in:
            raise KeyboardInterrupt
        self.asked.append((task, len(requests)))
        return [self.draw() for _ in requests]


def seed():
    harness._seed([1, 2, 3, 4])


def respond(state, kind, model, requests=None):
    requests = requests or make_requests(kind)
    return getattr(ResumableLM(model, state, seed, len(requests)), kind)(requests)


KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


@pytest.mark.parametrize("kind", KINDS)
def test_complete_tasks_are_not_asked_again(tmp_path, capsys, kind):
    """Responses are exactly those of an undisturbed run, drawn ones too, and so are all numbers drawn after them."""
    whole = respond(tmp_path / "whole", kind, Model())
    after = Model().draw()
    dying, second = Model(dies_in="c"), Model()
    with pytest.raises(KeyboardInterrupt):
        respond(tmp_path / "state", kind, dying)
    assert dying.asked == [("b", 4), ("a", 8)]
    capsys.readouterr()
    assert respond(tmp_path / "state", kind, second) == whole
    assert Model().draw() == after
    assert second.asked == [("c", 12)]
    kept, *_ = capsys.readouterr().out.splitlines()
    assert kept == f"eval: {kind}: 2 of 3 tasks kept from an earlier attempt"
    last = Model()
    assert respond(tmp_path / "state", kind, last) == whole
    assert last.asked == []
    assert Model().draw() == after


def test_responses_return_to_the_places_of_their_requests(tmp_path):
    requests = [
        request for pair in zip(make_requests("", "a"), make_requests("", "b"), strict=True) for request in pair
    ]
    model = SimpleNamespace(generate_until=lambda requests, **_: [request.args[0] for request in requests])
    expected = [request.args[0] for request in requests]
    assert respond(tmp_path, "generate_until", model, requests) == expected
    assert respond(tmp_path, "generate_until", SimpleNamespace(), requests) == expected


def test_numbers_keep_every_bit(tmp_path):
    values = [-0.1 - 0.2, -0.0, -1e-310, -math.inf, math.pi * 1e300, -0.0]
    requests = make_requests("loglikelihood", ("a",), len(values))
    model = SimpleNamespace(loglikelihood=lambda *_, **__: [(np.float64(value), np.True_) for value in values])
    for asked in (model, SimpleNamespace()):
        responses = respond(tmp_path, "loglikelihood", asked, requests)
        assert [(value.hex(), greedy) for value, greedy in responses] == [(value.hex(), True) for value in values]
        assert {tuple(map(type, response)) for response in responses} == {(float, bool)}


def test_no_bit_of_kept_responses_changes_unnoticed(tmp_path, capsys):
    requests = make_requests("loglikelihood", ("a",), 2)
    whole = respond(tmp_path, "loglikelihood", Model(), requests)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 61):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        model = Model()
        capsys.readouterr()
        assert respond(tmp_path, "loglikelihood", model, requests) == whole
        assert model.asked == [("a", 2)]
        line, *_ = capsys.readouterr().out.splitlines()
        assert line.startswith(f"eval: {path}: expected ")
        assert line.endswith("; the task is asked again")


@pytest.mark.parametrize(
    "change",
    [
        {"requests": "0" * 64},
        {"responses": None},
        {"responses": [[-1.0, True]]},
        {"responses": [[-1.0, True, 1], [-1.0, True]]},
        {"responses": [[-1, True], [-1.0, True]]},
        {"responses": [[-1.0, 1], [-1.0, True]]},
        {"responses": ["ab", [-1.0, True]]},
        {"responses": {"0": [-1.0, True], "1": [-1.0, True]}},
    ],
)
def test_a_whole_file_that_holds_no_responses_to_these_requests_is_not_used(tmp_path, capsys, change):
    requests = make_requests("loglikelihood", ("a",), 2)
    whole = respond(tmp_path, "loglikelihood", Model(), requests)
    (path,) = tmp_path.iterdir()
    entries = json.loads(path.read_text())
    write_checked_json(path, {**entries, **change})
    capsys.readouterr()
    assert respond(tmp_path, "loglikelihood", Model(), requests) == whole
    line, *_ = capsys.readouterr().out.splitlines()
    found = "kept responses to these requests of a, found others; the task is asked again"
    assert line == f"eval: {path}: expected {found}"
    assert json.loads(path.read_text()) == entries


def test_other_requests_get_no_kept_responses(tmp_path):
    """Another prompt, continuation, option, number, order, task or type: each is asked."""
    requests = make_requests("generate_until", ("a",), 2)
    respond(tmp_path, "generate_until", Model(), requests)
    context, options = requests[0].args
    others = [
        ("generate_until", [requests[0]]),
        ("generate_until", requests[::-1]),
        ("generate_until", [Instance("", {}, (context + " ", options), 0, ("a", 0, 1)), requests[1]]),
        ("generate_until", [Instance("", {}, (context, {**options, "max_gen_toks": 3}), 0, ("a", 0, 1)), requests[1]]),
        ("generate_until", [Instance("", {}, request.args, 0, ("b", 0, 1)) for request in requests]),
        ("loglikelihood", requests),
    ]
    for kind, asked in others:
        model = Model()
        respond(tmp_path, kind, model, asked)
        assert [number for _, number in model.asked] == [len(asked)]


def test_all_else_is_the_models(tmp_path):
    lm = ResumableLM(Model(), tmp_path, seed, 1)
    assert lm.max_length == 77
    assert not hasattr(lm, "multimodal")


def test_progress_advances_within_a_task(tmp_path, monkeypatch, capsys):
    """The model counts what is done of a call; kept tasks count as done and say nothing about the speed."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: clock.now))

    class Counting(Model):
        on_progress = None

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            for done in range(1, len(requests) + 3):  # more windows than texts
                clock.now += 20
                self.on_progress(done)
            return super().loglikelihood_rolling(requests, disable_tqdm)

    respond(tmp_path, "loglikelihood_rolling", Model(), make_requests("", ("b",)))
    capsys.readouterr()
    respond(tmp_path, "loglikelihood_rolling", Counting(), make_requests("", ("b", "a")))
    kept, *lines = capsys.readouterr().out.splitlines()
    assert kept == "eval: loglikelihood_rolling: 1 of 2 tasks kept from an earlier attempt"
    assert lines == [
        "eval: 6 of 12 requests  3.0/min  2 min left",
        "eval: 8 of 12 requests  3.0/min  80 s left",
        "eval: 10 of 12 requests  3.0/min  40 s left",
        "eval: 11 of 12 requests  2.6/min  23 s left",
        "eval: 11 of 12 requests  2.1/min  29 s left",
        "eval: 12 of 12 requests  2.4/min  0 s left",
    ]


# Of the program


HEAD = "dataset_path: json\ndataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}\n"
HEAD += "test_split: test\nfewshot_split: train\n"
CHOICE = "output_type: multiple_choice\ndoc_to_choice: [' a', ' b']\ndoc_to_target: label\n"
GROUP = "group: three\ntask: [third, first, second]\n"
GROUP += "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\nmetadata: {version: 1.0}\n"


@pytest.fixture
def suite(tmp_path, monkeypatch, scratch_model):
    """The current folder with a model, and tasks: a group of three, and one that generates."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scratch_model, "model")
    shutil.copyfile(scratch_model.with_suffix(".json"), "model.json")
    Path("tasks").mkdir()
    for split, number in (("test", 9), ("train", 3)):
        rows = [{"text": f"{split} river {i}:", "label": i % 2, "answer": "a"} for i in range(number)]
        Path(f"tasks/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for n, name in enumerate(("first", "second", "third")):
        Path(f"tasks/{name}.yaml").write_text(f"{HEAD}{CHOICE}task: {name}\ndoc_to_text: '{{{{text}}}} {n}'\n")
    Path("tasks/three.yaml").write_text(GROUP)
    options = "generation_kwargs: {until: ['.'], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n"
    said = "output_type: generate_until\ntask: said\ndoc_to_text: text\ndoc_to_target: answer\n"
    Path("tasks/said.yaml").write_text(f"{HEAD}{said}{options}")
    return tmp_path


def evaluate(out, monkeypatch, dies_in=None, shots=("three=0", "said=0"), batch_size=4):
    """Run `eval.py`; returns the tasks that were asked, with the number of requests."""
    asked, load = [], harness.hugging_face_model

    def ask(method, requests, **options):
        (task,) = {request.task_name for request in requests}
        assert [remove_state(state) for state in Path("state").glob("*/") if state.is_dir()] in ([], [-1])  # it is held
        if task == dies_in:
            raise KeyboardInterrupt
        asked.append((task, len(requests)))
        return method(requests, **options)

    def counted(*arguments):
        lm = load(*arguments)
        for kind in KINDS:
            setattr(lm, kind, partial(ask, getattr(lm, kind)))
        return lm

    flags = ["--model", "model", "--manifest", "model.json", "--tasks", "tasks", "--suite", "demo"]
    flags += ["--autocast", "float32", "--token-budget", "2048"]
    flags += ["--engine", "transformers", "--batch-size", str(batch_size), "--seeds", "0", "1", "2", "3"]
    flags += ["--template", "human-assistant", "--eos", "<|endoftext|>", "--shots", *shots, "--state", "state"]
    with monkeypatch.context() as patch:
        patch.setattr(harness, "hugging_face_model", counted)
        try:
            importlib.import_module("eval").main([*flags, "--scores", f"{out}.json", "--samples", f"{out}.parquet"])
        except KeyboardInterrupt:
            assert not Path(f"{out}.json").exists()
    return asked


def test_a_killed_evaluation_resumes_with_the_tasks_left(suite, monkeypatch, capsys):
    everything = evaluate("whole", monkeypatch)
    assert sorted(everything) == [("first", 18), ("said", 9), ("second", 18), ("third", 18)]
    assert not list(suite.glob("state/*"))
    dies_in = [task for task, _ in everything if task != "said"][2]
    first = evaluate("out", monkeypatch, dies_in)
    assert len(list(suite.glob("state/*/*.json"))) == len(first) >= 2
    second = evaluate("out", monkeypatch)
    assert first + second == everything
    assert "2 of 3 tasks kept from an earlier attempt" in capsys.readouterr().out
    for suffix in ("json", "parquet"):
        assert Path(f"out.{suffix}").read_bytes() == Path(f"whole.{suffix}").read_bytes()
    assert not list(suite.glob("state/*"))
    three = json.loads(Path("out.json").read_text())["tasks"]["three"]
    parts = [three["subtasks"][name]["metrics"]["acc,none"] for name in ("first", "second", "third")]
    assert three["metrics"]["acc,none"] == pytest.approx(sum(parts) / 3)


def test_another_model_and_other_settings_are_asked_everything(suite, monkeypatch):
    whole = [task for task, _ in evaluate("out", monkeypatch, dies_in="said")]
    assert whole
    for shots, batch_size in ((("three=2", "said=2"), 4), (("three=0", "said=0"), 3)):
        assert [task for task, _ in evaluate("out", monkeypatch, "said", shots, batch_size)] == whole
    path = suite / "model/tokenizer_config.json"
    path.write_text(path.read_text() + "\n")
    folders.write_manifest("model", "model.json")
    assert [task for task, _ in evaluate("out", monkeypatch, "said")] == whole
    assert len(list(suite.glob("state/*/"))) == 4
