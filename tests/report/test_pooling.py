"""Scores and differences pooled over replicates, against numbers worked out by hand."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from score_files import CHOSEN, cells, check_records, command, put_both, read_items, tuples

import report_pooled as program
from wspin.errors import StudyError
from wspin.report.pooling import COLUMNS, Variance, half_width, item_variance, pool, pool_tasks
from wspin.report.replicates import methods, pooled_models
from wspin.report.samples import TaskSamples, input_paths
from wspin.report.scores import read_scores
from wspin.report.tables import pooled_tables

SEEDS = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]  # what three seeds get on four documents
REPLICATES = [("spin", "spin.s43"), ("spin", "spin.s44"), ("wspin", "wspin.s43"), ("wspin", "wspin.s44")]


def arrays(*values):
    return [np.array(stratum, float) for stratum in values]


def samples(values, task="a"):
    documents = [(i, f"doc {i}") for i in range(len(values))]
    return [TaskSamples(Path("samples"), task, documents, ["prompt"] * len(values), np.array(values, float))]


def width(*parts):
    return half_width([Variance(*part) for part in parts], 0.95)


def study(first, second):
    """Models of two arms with a seed for each of the values on one task, and all pairs at equal seed."""
    names = [["spin/ite0", "wspin/ite0"], *([f"spin.s{s}/ite0", f"wspin.s{s}/ite0"] for s in (43, 44))]
    models = {}
    for (baseline, model), of_baseline, of_model in zip(names, first, second, strict=False):
        models |= {baseline: {"a": samples(of_baseline)}, model: {"a": samples(of_model)}}
    return models, [(model, baseline) for baseline, model in names[: len(first)]]


def pooled(models, pairs, replicates=REPLICATES, confidence=0.95, groups=None):
    return pool(models, pooled_models(models, replicates), pairs, confidence, groups or {})


def test_both_parts_of_the_error_by_hand():
    """Means 1/2, 3/4, 1/4; the documents' means 1, 2/3, 1/3, 0 have the sum of squares 5/9."""
    row = pool_tasks([{"a": arrays(values)} for values in SEEDS], 0.95, {})["a"]
    assert (row.seeds, row.n) == (3, 4)
    assert row.mean == 0.5
    assert row.seed_sd == pytest.approx(0.25)
    assert row.item_stderr == pytest.approx(math.sqrt(5 / 9 / 3 / 4))
    assert row.stderr == pytest.approx(math.sqrt(1 / 48 + 5 / 108)) == pytest.approx(0.259094, abs=1e-6)
    freedom = (1 / 48 + 5 / 108) ** 2 / ((1 / 48) ** 2 / 2 + (5 / 108) ** 2 / 3)
    assert freedom == pytest.approx(4.838, abs=1e-3)
    half = pytest.approx(stats.t.ppf(0.975, freedom) * row.stderr)
    assert row.high - row.mean == half
    assert row.mean - row.low == half
    assert row.item_high - row.mean == pytest.approx(3.182446 * row.item_stderr)  # t of 3 degrees of freedom


def test_the_degrees_of_freedom_are_those_of_the_part_that_dominates():
    assert width((1.0, 2), (1e-12, 1000)) == pytest.approx(stats.t.ppf(0.975, 2))
    assert width((1e-12, 2), (1.0, 1000)) == pytest.approx(stats.t.ppf(0.975, 1000))
    assert width((0.0, 2), (0.0, 3)) == 0.0
    assert math.isnan(width((math.nan, 0), (1.0, 3)))


def test_a_single_seed_has_the_items_error_alone():
    row = pool_tasks([{"a": arrays([1, 1, 0, 0])}], 0.9, {})["a"]
    assert row.item_stderr == pytest.approx(math.sqrt(1 / 3 / 4))
    assert row.item_low == pytest.approx(0.5 - stats.t.ppf(0.95, 3) * row.item_stderr)
    assert all(map(math.isnan, (row.seed_sd, row.stderr, row.low, row.high)))


def test_a_group_has_the_pooled_variance_of_its_subtasks():
    """As lm-eval pools them: sums of squares about the subtasks' means, 1/2 and 2/3, over n - subtasks."""
    value, freedom = item_variance(arrays([0, 1], [1, 1, 0]))
    assert (value, freedom) == (pytest.approx((1 / 2 + 2 / 3) / 3 / 5), 3)
    assert math.isnan(item_variance(arrays([1], [0])).value)


def test_differences_are_paired_by_seed_and_document():
    """What two arms of a seed share cancels, over documents and over seeds: without it the parts would be large."""
    first = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    second = [[0.5 + value for value in values] for values in first]
    second[0][0] += 0.25
    models, pairs = study(first, second)
    rows = pooled(models, pairs)
    assert tuple(rows.columns) == COLUMNS
    (row,) = (row for row in tuples(rows[rows.task == "a"]) if row.baseline)
    assert (row.model, row.arm, row.iteration, row.baseline, row.seeds) == ("wspin/ite0", "wspin", 0, "spin/ite0", 3)
    assert row.mean == pytest.approx((0.5625 + 0.5 + 0.5) / 3)
    assert row.seed_sd == pytest.approx(0.0625 / math.sqrt(3))
    assert row.item_stderr == pytest.approx(0.25 / 3 * math.sqrt(3 / 4 / 3 / 4))
    scores = {row.model: row for row in tuples(rows[rows.task == "a"]) if row.baseline is None}
    assert list(scores) == ["spin/ite0", "wspin/ite0"]
    assert scores["spin/ite0"].seed_sd == pytest.approx(0.25)


def test_a_mean_of_tasks_has_the_deviation_of_the_means_over_seeds():
    """Tasks that rise together and tasks that balance each other have equal items' errors."""
    rise = [{"a": arrays(values), "b": arrays(values)} for values in SEEDS]
    balance = [{"a": arrays(values), "b": arrays([1 - value for value in values])} for values in SEEDS]
    single = pool_tasks(rise, 0.95, {})["a"]
    for replicates, sd in ((rise, 0.25), (balance, 0.0)):
        average = pool_tasks(replicates, 0.95, {})["average"]
        assert average.seed_sd == pytest.approx(sd)
        assert average.item_stderr == pytest.approx(single.item_stderr / math.sqrt(2))
        assert average.n == 8
    columns = pool_tasks(rise, 0.95, {"average": ["b"], "both": ["a", "b"]})
    assert list(columns) == ["b", "average", "a", "both"]
    assert columns["average"].item_stderr == columns["b"].item_stderr


def test_models_of_the_registry_are_pooled_and_compared_too():
    models, pairs = study(SEEDS, SEEDS)
    models |= {name: {"a": samples([1, 1, 1, 1])} for name in ("kd", "kd.s43", "sft")}
    pairs += [("kd", "spin/ite0"), ("kd.s43", "spin.s43/ite0")]
    rows = pooled(models, pairs, [*REPLICATES, ("kd", "kd.s43")])
    found = {(row.model, row.baseline): (row.seeds, row.mean) for row in tuples(rows[rows.task == "a"])}
    assert found["kd", None] == (2, 1.0)
    assert found["sft", None] == (1, 1.0)
    assert found["kd", "spin/ite0"] == (2, pytest.approx((0.5 + 0.25) / 2))


def test_a_name_without_a_model_is_refused():
    with pytest.raises(StudyError, match=r"--replicates: expected arms or models of the table, found 'spin\.s45'"):
        pooled_models(["spin/ite0"], [("spin", "spin.s45")])


def test_a_replicate_of_two_arms_is_refused():
    with pytest.raises(StudyError, match=r"--replicates: expected one arm or model for spin.s43, found spin and wspin"):
        methods(["spin/ite0"], [("spin", "spin.s43"), ("wspin", "spin.s43")])


def test_a_level_that_is_no_share_is_refused():
    with pytest.raises(StudyError, match="--confidence: expected a number between 0 and 1, found 95"):
        pooled(*study(SEEDS, SEEDS), confidence=95.0)


def test_replicates_with_other_documents_are_refused(tmp_path):
    def other_document(rows):
        rows[0]["doc_hash"] = "another"

    for name, change in {"spin/ite0": lambda rows: None, "spin.s43/ite0": other_document}.items():
        put_both(tmp_path, name, of_rows=change)
    models = read_items(tmp_path, ["spin/ite0", "spin.s43/ite0"])
    with pytest.raises(StudyError, match=r"document 39: expected doc_hash another as in .*spin.s43/ite0"):
        pooled(models, [], [("spin", "spin.s43")])


def test_tables_show_both_parts_and_the_interval():
    first = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    models, pairs = study(first, SEEDS)
    models["sft"] = {"a": samples([1, 0, 0, 0])}
    rows = pooled(models, pairs)
    table, markdown, latex = pooled_tables(rows, 0.95, {}, " Both seeds.").values()
    assert next(csv.DictReader(table.splitlines()))["item_stderr"] == str(rows.item_stderr[0])
    lines = cells(markdown)
    assert lines[0] == ["model", "seeds", "a", "average"]
    assert lines[1][:3] == ["spin/ite0", "3", "50.00 ± 25.91 (25.00; 21.52)"]
    assert lines[3] == ["sft", "1", "25.00 (-; 25.00)", "25.00 (-; 25.00)"]
    difference = tuples(rows[rows.baseline.notna()])[0]
    low, high = (f"{100 * bound:+.2f}" for bound in (difference.low, difference.high))
    sd, stderr = (f"{100 * part:.2f}" for part in (difference.seed_sd, difference.item_stderr))
    assert [line[:3] for line in lines[-2:]][1] == [
        "wspin/ite0 - spin/ite0",
        "3",
        f"+0.00 [{low}, {high}] ({sd}; {stderr})",
    ]
    legend = markdown.splitlines()[-1]
    for part in ("a n = 4)", "95 % interval", "sqrt(sd^2 / seeds + SE^2)", "Satterthwaite", "at equal seed"):
        assert part in legend
    assert legend.endswith("Both seeds.")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert latex.endswith(f"% {legend}\n")


def test_a_planted_difference_is_outside_and_none_is_inside():
    rng = np.random.default_rng(7)
    ability = rng.normal(size=400)
    seeds = [(ability + rng.normal(0, 0.5, 400) > 0).astype(float) for _ in range(6)]
    better = [(ability + 0.5 + rng.normal(0, 0.5, 400) > 0).astype(float) for _ in range(3)]
    for second, outside in ((better, True), (seeds[3:], False)):
        rows = pooled(*study(seeds[:3], second))
        row = tuples(rows[rows.baseline.notna()])[0]
        assert (row.low > 0) == outside
        assert row.low < row.item_low < row.item_high < row.high


@pytest.mark.parametrize("tasks", [CHOSEN, {"mmlu": CHOSEN["mmlu"]}])
def test_scores_of_files_are_pooled(tmp_path, tasks):
    """Every task of a suite, groups with their subtasks; a table without differences is one table."""
    for name in ("spin/ite0", "spin.s43/ite0"):
        put_both(tmp_path, name)
    models = read_items(tmp_path, ["spin/ite0", "spin.s43/ite0"])
    models = {model: {task: leaves[task] for task in tasks} for model, leaves in models.items()}
    rows = pooled(models, [], [("spin", "spin.s43")])
    assert rows.task.tolist() == [*tasks, "average"]
    assert dict(zip(rows.task, rows.n, strict=True))["mmlu"] == 25
    assert len(cells(pooled_tables(rows, 0.95, {})[".md"])) == 2


def test_program_pools_draws_and_records(tmp_path):
    models = [f"{arm}{seed}/ite0" for seed in ("", ".s43", ".s44") for arm in ("spin", "wspin")]
    for name in models:
        put_both(tmp_path, name)
    pairs = [f"{model}={model.replace('wspin', 'spin')}" for model in models if model.startswith("w")]
    tables = [tmp_path / f"tables/pooled.{end}" for end in ("csv", "md", "tex", "html")]
    figure = tmp_path / "figures/pooled.svg"
    flags = ["--replicates", *("=".join(pair) for pair in REPLICATES), "--against", *pairs, "--confidence", "0.9"]
    flags += ["--note", "They share SFT.", "--groups", "both=spell,gsm8k"]
    outputs = ["--output", *tables, figure]
    program.main(command("pooled", tmp_path, *flags, *outputs, metrics=CHOSEN, models=models)[1:])
    check_records([*tables, figure], input_paths(read_scores(tmp_path, models, ["demo"])), "report_pooled")
    table, markdown, latex, page = (path.read_text() for path in tables)
    assert table.startswith(f"{','.join(COLUMNS)}\nspin/ite0,spin,0,,spell,3,")
    assert len(cells(markdown)[0]) == len(cells(markdown)[-1]) == 2 + len(CHOSEN) + 2
    for text in ("They share SFT.", "both is that of spell, gsm8k", "90 % interval"):
        assert text in markdown.splitlines()[-1]
        assert text in latex.splitlines()[-1]
    assert "<td" in page
    assert "documents and 3 seeds" in figure.read_text()
