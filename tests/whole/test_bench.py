"""Contenders of a benchmark compute the same results, and the page shows the stored numbers."""

from dataclasses import replace

import pytest
import torch


@pytest.fixture(autouse=True)
def importable(monkeypatch, root):
    monkeypatch.syspath_prepend(root)


@pytest.mark.parametrize("peer", ["padded", "trl"])
def test_a_peer_takes_the_same_steps(peer):
    if peer == "trl":
        pytest.importorskip("trl", reason="trl comes with `make bench`")
    from bench.cases import training

    rows = list(training.measure("training", training.QUICK[0], peers=(peer,)))
    differences = {row.contender: row.value for row in rows if row.quantity == "disagreement"}
    assert differences.pop("ours") == 0.0
    assert len(differences) > 1
    assert max(differences.values()) <= training.AGREE["cpu"]


def test_a_peer_with_other_steps_is_refused():
    from bench.cases import training

    task, curve = training.Task.of(training.QUICK[0], "cpu"), training.Curve()
    task.ours()
    curve.steps = [(loss, norm * 1.001) for loss, norm in task.first_steps]
    with pytest.raises(AssertionError, match="steps differ by"):
        task._compare(curve)


def test_a_peer_with_other_tokens_is_refused():
    from bench.cases import shapes, training

    items = shapes.conversations(2, 64, scale=1 / 16)
    ids = [[*item.prompt.tolist(), *item.responses[side].tolist()] for side in (0, 1) for item in items]
    training.check_ids(ids, items, micro_batch=2)
    ids[1][-1] += 1
    with pytest.raises(AssertionError, match="other tokens"):
        training.check_ids(ids, items, micro_batch=2)


@pytest.mark.parametrize("name", ["weighing", "generating", "evaluation"])
def test_contenders_compute_the_same_results(name):
    import importlib

    rows = list(importlib.import_module(f"bench.cases.{name}").run(True, "cpu"))
    assert len({row.contender for row in rows}) > 1  # that their results are equal is asserted within


@pytest.mark.parametrize(
    ("suite", "common"), [("hellaswag", 0), ("truthfulqa", 200), ("winogrande", 0), ("mmlu", 600), ("gsm8k", 0)]
)
def test_documents_share_what_lm_eval_gives_them(suite, common):
    from bench.cases.suites import SUITES, documents

    first, *others = documents(SUITES[suite].of(8), 32_768)
    contexts = {tuple(context) for _, context, _ in first}
    assert len(contexts) == (2 if suite == "winogrande" else 1)
    assert shared_length(*contexts, min(contexts)) >= 100  # the two of winogrande differ near their end
    assert all(shared_length(min(contexts), context) == common for other in others for _, context, _ in other)


def shared_length(*texts):
    different = (i for i, ids in enumerate(zip(*texts, strict=False)) if len(set(ids)) > 1)
    return next(different, min(map(len, texts)))


@pytest.mark.parametrize("suite", ["arc", "truthfulqa", "mmlu"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_work_of_lm_evals_model_is_what_it_reads(suite, size):
    from bench.cases import evaluation
    from bench.peers import harness

    case = evaluation.QUICK
    task = evaluation.MultipleChoice(replace(case, batch_sizes=(size,)), suite, evaluation.model(case.shape), "cpu")
    peer, shapes = task.language_models[f"HFLM, batch {size}"], []
    peer._model_call = lambda ids: shapes.append(ids.shape) or torch.zeros(*ids.shape, case.shape.vocabulary)
    task.ask(peer)
    tokens = sum(rows * width for rows, width in shapes)
    assert harness.work(task.requests, size) == (tokens, sum(b * n * (n + 1) // 2 for b, n in shapes), tokens)


def test_generated_answers_have_the_lengths_that_are_set():
    """The model counts down to the stop string, in lm-eval's generation and in ours."""
    from bench.cases import evaluation, shapes
    from bench.cases.suites import SUITES, documents

    shape = shapes.Shape(vocabulary=512, hidden=128, layers=1, heads=2, intermediate=64)
    case = replace(evaluation.QUICK, shape=shape, generation_sizes=(2,))
    task = evaluation.Generation(case, evaluation.GENERATED, evaluation.model(shape), "cpu")
    lengths = [len(answer) for [(_, _, answer)] in documents(SUITES["gsm8k"].of(4, case.scale), shape.vocabulary)]
    for language_model in task.language_models.values():
        assert [len(text.split()) + 1 for text in task.ask(language_model)] == lengths  # the stop string is cut off


def test_scoring_a_set_again_is_not_needed_work(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from bench.cases.work import ScoredAnswers

    pq.write_table(
        pa.table({"prompt_id": ["a"], "chosen_token_ids": [[1, 2]], "rejected_token_ids": [[1, 2]]}), tmp_path / "0"
    )
    scored = ScoredAnswers()
    command = ["logprobs.py", "reference", "--model", "m", "--rows", "r", "--shard", "0", "--generations", "g"]
    assert scored.add(tmp_path / "0", command) == {"fresh": 1.0, "alike": 0.5}
    assert scored.add(tmp_path / "0", [*command, "--output", "o"]) == {"fresh": 0.0, "alike": 1.0}
    assert scored.add(tmp_path / "0", [*command[:-1], "later"]) == {"fresh": 0.5, "alike": 1.0}


def test_a_study_is_planned_from_nothing_and_a_finished_one_is_found_finished():
    from bench.cases import workflow

    rows = {(row.contender, row.quantity): row.value for row in workflow.run(True, "cpu")}  # asserts what is planned
    assert rows["", "jobs"] > 150
    assert rows["no-op", "cpu_seconds"] > 0 < rows["dry run", "bytes"]
    assert 0.0 < rows["", "own_share"] < 0.5


def test_a_study_of_real_size_is_measured_by_its_programs():
    """The quick one, whose table has a line for every stage."""
    from bench.cases import scale
    from bench.page import numbers, page
    from bench.page.goals import SCALE, goals

    rows = list(scale.run(True, "cpu"))
    found = numbers.Numbers(rows)
    assert found.cases("scale") == [*SCALE, "machine"]
    assert float(found.single("scale", "items", "pairs", "60 prompts")) == 120
    lines = page._scale(found).splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:] == [
        f"| {name}" for name in SCALE.values()
    ]
    of_scale = [goal for goal in goals(found) if goal.metric.endswith("/ `resources`")]
    assert [goal.verdict for goal in of_scale] == ["met"] * len(SCALE)
    beyond = [row._replace(value=1e12) if row.quantity == "bytes" else row for row in rows]
    missed = [goal.metric for goal in goals(numbers.Numbers(beyond)) if goal.verdict == "**missed**" and goal.gated]
    assert missed == [goal.metric for goal in of_scale]


def test_the_page_shows_the_stored_numbers(root):
    from bench.page import numbers, page
    from bench.page.goals import goals

    stored = numbers.Numbers(numbers.read(root / "docs/benchmarks.csv"))
    assert page.page(stored) == (root / "docs/benchmarks.md").read_text()
    assert [goal.metric for goal in goals(stored) if goal.gated and goal.verdict == "**missed**"] == []
