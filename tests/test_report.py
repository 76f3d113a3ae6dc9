"""pytest tests/test_report.py: the table of scores, what it shows and what it refuses to show."""

import copy
import csv
import json
import math

import pytest

import report as program
from wspin import StudyError, report

SCORES = {
    "suite": "demo",
    "model": "f1",
    "engine": "transformers",
    "batch_size": 128,
    "seeds": [0, 1234, 1234, 1234],
    "versions": {"lm_eval": "0.4.13", "transformers": "5.19.0", "torch": "2.13.0"},
    "template": "human-assistant",
    "tasks": {
        "spell": {
            "shots": 0,
            "version": 1.0,
            "n": 400,
            "prompt_hash": "aa",
            "metrics": {"exact_match,none": 0.475},
            "stderr": {"exact_match,none": 0.025},
        },
        "gsm8k": {
            "shots": 5,
            "version": 3.0,
            "n": 1319,
            "prompt_hash": "bb",
            "metrics": {"exact_match,strict-match": 0.1, "exact_match,flexible-extract": 1 / 3},
            "stderr": {"exact_match,strict-match": 0.006, "exact_match,flexible-extract": 0.012},
            "subtasks": {"ignored": {}},
        },
    },
}
METRICS = {"spell": "exact_match,none", "gsm8k": "exact_match,strict-match"}
MODELS = ("sft", "spin/ite0")


def put(results, model, change=lambda scores: None, suite="demo"):
    """Write the scores of a model, after a change to them."""
    scores = copy.deepcopy(SCORES)
    change(scores)
    path = results / model / "scores" / f"{suite}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores))
    return path


@pytest.fixture
def results(tmp_path):
    for number, model in enumerate(MODELS):
        put(tmp_path, model, lambda scores, number=number: scores.update(model=f"f{number}"))
    return tmp_path


def refusal(results, models=MODELS, metrics=METRICS, suites=("demo",)):
    with pytest.raises(StudyError) as error:
        report.to_markdown(report.read(results, models, suites), metrics)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tidy_rows_hold_every_metric_and_filter(results):
    rows = report.tidy(report.read(results, MODELS, ["demo"]))
    assert report.Row._fields == ("model", "arm", "iteration", "task", "filter", "metric", "value", "stderr", "n")
    assert [row.task for row in rows] == ["gsm8k", "gsm8k", "spell"] * 2
    assert rows[0] == ("sft", "", "", "gsm8k", "flexible-extract", "exact_match", 1 / 3, 0.012, 1319)
    assert rows[-1] == ("spin/ite0", "spin", "0", "spell", "none", "exact_match", 0.475, 0.025, 400)


def test_csv_keeps_full_precision_and_leaves_unknown_errors_empty(results):
    put(results, "sft", lambda scores: scores["tasks"]["spell"]["stderr"].update({"exact_match,none": None}))
    text = report.to_csv(report.tidy(report.read(results, ["sft"], ["demo"])))
    rows = list(csv.DictReader(text.splitlines()))
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[2]["stderr"] == ""
    assert text.endswith("\n")
    assert "\r" not in text


def test_markdown_shows_points_with_one_standard_error(results):
    text = report.to_markdown(report.read(results, MODELS, ["demo"]), METRICS)
    header, rule, *rows, blank, legend = text.rstrip("\n").split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *rows)]
    assert cells[0] == ["model", "spell", "gsm8k", "average"]
    error = math.sqrt(2.5**2 + 0.6**2) / 2
    assert cells[1] == ["sft", "47.50 ± 2.50", "10.00 ± 0.60", f"28.75 ± {error:.2f}"]
    assert [row[0] for row in cells[1:]] == list(MODELS)
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert blank == ""
    assert "spell: exact_match,none, 0 shots, n = 400" in legend
    assert "gsm8k: exact_match,strict-match, 5 shots, n = 1319" in legend
    assert "± is one standard error over items" in legend
    assert "**" not in text


def test_average_of_tasks_without_a_standard_error_has_none(results):
    put(results, "sft", lambda scores: scores["tasks"]["gsm8k"]["stderr"].update({"exact_match,strict-match": None}))
    line = report.to_markdown(report.read(results, ["sft"], ["demo"]), METRICS).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["sft", "47.50 ± 2.50", "10.00", "28.75"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("engine", "vllm"),
        ("batch_size", 64),
        ("seeds", [0, 1234, 1234, 1]),
        ("versions", {**SCORES["versions"], "torch": "2.12.0"}),
        ("versions", {**SCORES["versions"], "vllm": "0.11"}),
        ("template", "zephyr"),
        ("tasks.spell.shots", 1),
        ("tasks.spell.version", 2.0),
        ("tasks.spell.n", 399),
        ("tasks.gsm8k.prompt_hash", "cc"),
    ],
)
def test_scores_made_in_different_ways_are_refused(results, place, value):
    def change(scores):
        *above, last = place.split(".")
        for key in above:
            scores = scores[key]
        scores[last] = value

    path = put(results, "spin/ite0", change)
    message = refusal(results)
    found, expected = repr(value), SCORES
    for key in place.split("."):
        expected = expected[key]
    for part in (str(path), str(results / "sft/scores/demo.json"), f"{place}: found {found}", f"expected {expected!r}"):
        assert part in message


def test_suites_of_one_model_belong_to_one_fingerprint(results):
    def change(scores):
        scores.update(suite="more", model="f2")
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    put(results, "sft", change, suite="more")
    message = refusal(results, ["sft"], {**METRICS, "arc": "exact_match,none"}, ["demo", "more"])
    assert "model (of sft): found 'f2', expected 'f0'" in message


def test_a_task_in_two_suites_is_refused(results):
    put(results, "sft", lambda scores: scores.update(suite="more", model="f0"), suite="more")
    assert "tasks.spell (suite)" in refusal(results, ["sft"], suites=["demo", "more"])


def test_missing_is_an_error_never_zero(results):
    assert "wspin/ite0/scores/demo.json: expected the scores of suite 'demo', found no file" in refusal(
        results, ["wspin/ite0"]
    )
    assert "tasks.spell.metrics: expected 'acc,none', found exact_match,none" in refusal(
        results, metrics={**METRICS, "spell": "acc,none"}
    )
    assert "sft: no scores of task 'arc', found gsm8k, spell" in refusal(
        results, metrics={**METRICS, "arc": "acc,none"}
    )
    assert "tasks.gsm8k: no metric is chosen for it" in refusal(results, metrics={"spell": "exact_match,none"})
    put(results, "spin/ite0", lambda scores: scores["tasks"].pop("gsm8k"))
    assert "spin/ite0: no scores of task 'gsm8k'" in refusal(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("engine"), "engine: missing key"),
        (lambda s: s["tasks"]["spell"].pop("n"), "tasks.spell.n: missing key"),
        (lambda s: s["tasks"]["spell"].update(n="400"), "tasks.spell.n: Input should be a valid integer, found '400'"),
        (
            lambda s: s["tasks"]["spell"]["metrics"].update({"exact_match,none": None}),
            "tasks.spell.metrics.exact_match,none",
        ),
        (
            lambda s: s["tasks"]["spell"]["metrics"].update({"exact_match,none": math.nan}),
            "tasks.spell.metrics.exact_match,none: Input should be a finite number",
        ),
        (
            lambda s: s["tasks"]["spell"]["metrics"].update({"exact_match,none": 47.5}),
            "expected a fraction, found 47.5",
        ),
        (lambda s: s["tasks"]["spell"].update(stderr={}), "tasks.spell: stderr holds"),
        (lambda s: s.update(suite="other"), "suite: expected 'demo', found 'other'"),
    ],
)
def test_malformed_scores_are_refused(results, change, message):
    path = put(results, "sft", change)
    told = refusal(results)
    assert f"{path}: " in told
    assert message in told


def test_a_file_that_is_no_json_is_refused(results):
    (results / "sft/scores/demo.json").write_text("{")
    assert "sft/scores/demo.json: file: " in refusal(results)


def test_program_writes_both_tables_and_their_records(results, capsys):
    outputs = [results / "tables/scores.csv", results / "tables/scores.md"]
    arguments = [
        "--results",
        str(results),
        "--models",
        *MODELS,
        "--suites",
        "demo",
        "--csv",
        str(outputs[0]),
        "--markdown",
        str(outputs[1]),
    ]
    command = [*arguments, "--metrics", *(f"{task}={metric}" for task, metric in METRICS.items())]
    program.main(command)
    written = [path.read_bytes() for path in outputs]
    scored = report.read(results, MODELS, ["demo"])
    assert written == [report.to_csv(report.tidy(scored)).encode(), report.to_markdown(scored, METRICS).encode()]
    for path in outputs:
        record = json.loads(path.with_name(path.name + ".provenance.json").read_text())
        assert record["program"] == "report"
        assert set(record["inputs"]) == {str(results / model / "scores/demo.json") for model in MODELS}
    program.main(command)
    assert [path.read_bytes() for path in outputs] == written

    with pytest.raises(SystemExit):
        program.main([*arguments, "--metrics", "spell"])
    assert "expected TASK=METRIC, found 'spell'" in capsys.readouterr().err


def test_program_writes_nothing_if_scores_are_refused(results):
    put(results, "spin/ite0", lambda scores: scores.update(engine="vllm"))
    arguments = [
        "--results",
        str(results),
        "--models",
        *MODELS,
        "--suites",
        "demo",
        "--metrics",
        "spell=exact_match,none",
    ]
    with pytest.raises(StudyError):
        program.main([*arguments, "--csv", str(results / "t/a.csv"), "--markdown", str(results / "t/a.md")])
    assert not (results / "t").exists()
