"""Contenders of a benchmark compute the same results, and the page shows the stored numbers."""

import pytest


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


@pytest.mark.parametrize("name", ["weighing", "generating"])
def test_contenders_compute_the_same_results(name):
    import importlib

    rows = list(importlib.import_module(f"bench.cases.{name}").run(True, "cpu"))
    assert len({row.contender for row in rows}) > 1  # that their results are equal is asserted within


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


def test_the_page_shows_the_stored_numbers(root):
    from bench.page import numbers, page
    from bench.page.goals import goals

    stored = numbers.Numbers(numbers.read(root / "docs/benchmarks.csv"))
    assert page.page(stored) == (root / "docs/benchmarks.md").read_text()
    assert [goal.metric for goal in goals(stored) if goal.gated and goal.verdict == "**missed**"] == []
