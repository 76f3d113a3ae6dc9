"""Tables and figures, what they show and what they refuse to show."""

import copy
import csv
import json
import math
import re
from itertools import pairwise

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text

import report as program
from wspin.errors import StudyError
from wspin.eval.results import write_samples
from wspin.report import bootstrap, comparison, figures, samples, scores
from wspin.report.comparison import Average, Draws
from wspin.report.tables import (
    ScoreRow,
    _difference_table,
    _rendered,
    average_csv,
    average_score,
    difference_tables,
    score_rows,
    score_tables,
)
from wspin.rng import row_generator
from wspin.storage.files import digest
from wspin.storage.text_tables import csv_text

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
        score_tables(scores.read_scores(results, models, suites), metrics)
    assert "\n" not in str(error.value)
    return str(error.value)


def tables(results, models=MODELS, metrics=METRICS):
    """CSV, Markdown and LaTeX of the scores, as texts."""
    return list(score_tables(scores.read_scores(results, models, ["demo"]), metrics).values())


def cells(markdown):
    """The cells of a Markdown table by line, header first, without the rule."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_tidy_rows_hold_every_metric_and_filter(results):
    rows = score_rows(scores.read_scores(results, MODELS, ["demo"]))
    assert ScoreRow._fields == ("model", "arm", "iteration", "task", "filter", "metric", "value", "stderr", "n")
    assert [row.task for row in rows] == ["gsm8k", "gsm8k", "spell"] * 2
    assert rows[0] == ("sft", "", "", "gsm8k", "flexible-extract", "exact_match", 1 / 3, 0.012, 1319)
    assert rows[-1] == ("spin/ite0", "spin", "0", "spell", "none", "exact_match", 0.475, 0.025, 400)


def test_csv_keeps_full_precision_and_leaves_unknown_errors_empty(results):
    put(results, "sft", lambda scores: scores["tasks"]["spell"]["stderr"].update({"exact_match,none": None}))
    text = tables(results, ["sft"])[0]
    rows = list(csv.DictReader(text.splitlines()))
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[2]["stderr"] == ""
    assert text.endswith("\n")
    assert "\r" not in text


def test_markdown_shows_points_with_one_standard_error(results):
    text = tables(results)[1]
    header, rule, *rows, blank, legend = text.rstrip("\n").split("\n")
    shown = cells(text)
    assert shown[0] == ["model", "spell", "gsm8k", "average"]
    error = math.sqrt(2.5**2 + 0.6**2) / 2
    assert shown[1] == ["sft", "47.50 ± 2.50", "10.00 ± 0.60", f"28.75 ± {error:.2f}"]
    assert [row[0] for row in shown[1:]] == list(MODELS)
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert blank == ""
    assert "spell: exact_match,none, 0 shots, n = 400" in legend
    assert "gsm8k: exact_match,strict-match, 5 shots, n = 1319" in legend
    assert "± is one standard error over items" in legend
    assert "**" not in text


def test_average_of_tasks_without_a_standard_error_has_none(results):
    put(results, "sft", lambda scores: scores["tasks"]["gsm8k"]["stderr"].update({"exact_match,strict-match": None}))
    assert cells(tables(results, ["sft"])[1])[1] == ["sft", "47.50 ± 2.50", "10.00", "28.75"]


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
    place = {"template": "template (of suite demo)"}.get(place, place)
    for part in (str(path), str(results / "sft/scores/demo.json"), f"{place}: expected {expected!r}", f"found {found}"):
        assert part in message


def test_suites_may_differ_in_template(results):
    """lm-eval's own tasks have none, those on held-out rows have the study's."""

    def change(scores):
        scores.update(suite="more", template=None, model="f0")
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    put(results, "sft", change, suite="more")
    assert len(scores.read_scores(results, ["sft"], ["demo", "more"])) == 2


def test_suites_of_one_model_belong_to_one_fingerprint(results):
    def change(scores):
        scores.update(suite="more", model="f2")
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    put(results, "sft", change, suite="more")
    message = refusal(results, ["sft"], {**METRICS, "arc": "exact_match,none"}, ["demo", "more"])
    assert "model (of sft): expected 'f0' as in" in message
    assert "found 'f2'" in message


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
    assert "sft: expected scores of task 'arc', found gsm8k, spell" in refusal(
        results, metrics={**METRICS, "arc": "acc,none"}
    )
    assert "tasks.gsm8k: expected a metric chosen for it, found none" in refusal(
        results, metrics={"spell": "exact_match,none"}
    )
    put(results, "spin/ite0", lambda scores: scores["tasks"].pop("gsm8k"))
    assert "spin/ite0: expected scores of task 'gsm8k'" in refusal(results)


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


def command(kind, results, *more, metrics=METRICS, models=MODELS):
    """Arguments of one of the program's two tables, which are written to `results/tables/{kind}.*`."""
    outputs = ["--output", *(str(results / f"tables/{kind}.{suffix}") for suffix in ("csv", "md", "tex"))]
    chosen = [f"{task}={metric}" for task, metric in metrics.items()]
    tasks = ["--suites", "demo", "--metrics", *chosen]
    return [kind, "--results", str(results), "--models", *models, *tasks, *outputs, *map(str, more)]


def check_records(outputs, inputs):
    for path in outputs:
        record = json.loads(path.with_name(path.name + ".provenance.json").read_text())
        assert record["program"] == "report"
        assert set(record["inputs"]) == set(map(str, inputs))


def test_program_writes_the_tables_and_their_records(results, capsys):
    outputs = [results / f"tables/scores.{end}" for end in ("csv", "md", "tex")]
    program.main(command("scores", results))
    written = [path.read_bytes() for path in outputs]
    assert [text.decode() for text in written] == tables(results)
    check_records(outputs, [results / model / "scores/demo.json" for model in MODELS])
    program.main(command("scores", results))
    assert [path.read_bytes() for path in outputs] == written

    with pytest.raises(StudyError, match="expected TASK=METRIC, found 'spell'"):
        program.main(command("scores", results, "--metrics", "spell"))


def test_program_writes_nothing_if_scores_are_refused(results):
    put(results, "spin/ite0", lambda scores: scores.update(engine="vllm"))
    with pytest.raises(StudyError):
        program.main(command("scores", results))
    assert not (results / "tables").exists()


# Document by document

SIZES = {"spell": {"spell": 40}, "gsm8k": {"gsm8k": 30}, "mmlu": {"mmlu_law": 20, "mmlu_art": 5}}
CHOSEN = {"spell": "acc_norm,none", "mmlu": "acc,none", "gsm8k": "exact_match,strict-match"}
COMPARED = ("sft", "spin/ite0", "wspin/ite0")
PAIR = ("wspin/ite0", "spin/ite0")
DRAWS = Draws(500, 0.9, 42)


def got(model, leaf, metric, n):
    """(n,) zeros and ones: what a model got on the documents of a leaf task."""
    return row_generator("got", model, leaf, metric).integers(0, 2, n).astype(float)


def rows_of(model, leaf, n):
    """Rows of samples: GSM8K's twice, once for each filter, as lm-eval has them; the last document comes first."""
    filters, measured = ("none",), ("acc", "acc_norm")
    if leaf == "gsm8k":
        filters, measured = ("strict-match", "flexible-extract"), ("exact_match",)
    values = {(metric, one): got(model, leaf, metric + one, n) for metric in measured for one in filters}
    return [
        {
            "task": leaf,
            "doc_id": i,
            "doc_hash": f"doc {leaf} {i}",
            "prompt_hash": f"prompt {leaf} {i}",
            "target_hash": "",
            "filter": one,
            "target": "",
            "answer": "",
            "metrics": json.dumps({metric: values[metric, one][i] for metric in measured}),
        }
        for i in reversed(range(n))
        for one in filters
    ]


def result_of(rows):
    """The scores that lm-eval gives to rows."""
    keys = sorted({(metric, row["filter"]) for row in rows for metric in json.loads(row["metrics"])})
    values = {key: [json.loads(row["metrics"])[key[0]] for row in rows if row["filter"] == key[1]] for key in keys}
    prompts = [row["prompt_hash"] for row in sorted(rows, key=lambda row: (row["task"], row["doc_id"]))]
    metrics = {",".join(key): math.fsum(of_key) / len(of_key) for key, of_key in values.items()}
    n = len({(row["task"], row["doc_id"]) for row in rows})
    fixed = {"shots": 0, "version": "1.0", "n": n, "prompt_hash": digest(prompts)}
    return {**fixed, "metrics": metrics, "stderr": dict.fromkeys(metrics, 0.01)}


def put_both(results, model, of_rows=lambda rows: None, of_scores=lambda scores: None):
    """Write scores and samples of a model; rows are changed before they are scored, scores before they are written."""
    rows = {
        task: [row for leaf, n in leaves.items() for row in rows_of(model, leaf, n)] for task, leaves in SIZES.items()
    }
    for of_task in rows.values():
        of_rows(of_task)
    scored = {**copy.deepcopy(SCORES), "model": f"fingerprint of {model}"}
    scored["tasks"] = {task: result_of(of_task) for task, of_task in rows.items()}
    for leaf in SIZES["mmlu"]:
        below = scored["tasks"]["mmlu"].setdefault("subtasks", {})
        below[leaf] = result_of([row for row in rows["mmlu"] if row["task"] == leaf])
    of_scores(scored)
    path = results / model / "scores/demo.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scored))
    made_with = {key: value for key, value in scored.items() if key != "tasks"}
    write_samples(samples.samples_path(path), [row for of_task in rows.values() for row in of_task], made_with)
    return samples.samples_path(path)


@pytest.fixture
def compared(tmp_path):
    for model in COMPARED:
        put_both(tmp_path, model)
    return tmp_path


def read_items(results, models=COMPARED, metrics=CHOSEN):
    return samples.read_samples(scores.read_scores(results, models, ["demo"]), metrics)


def refused(results, *parts, metrics=CHOSEN, models=COMPARED):
    """The comparison is refused in one line that holds all `parts`."""
    with pytest.raises(StudyError) as error:
        comparison.differences(read_items(results, models, metrics), [PAIR], DRAWS)
    assert "\n" not in str(error.value)
    for part in parts:
        assert str(part) in str(error.value)


def test_samples_lie_where_the_layout_says(compared):
    assert samples.input_paths(scores.read_scores(compared, ["sft"], ["demo"])) == [
        str(compared / "sft/scores/demo.json"),
        str(compared / "sft/scores/demo.samples.parquet"),
    ]


def test_items_are_those_of_the_chosen_metric_and_filter(compared):
    found = read_items(compared)
    assert list(found) == list(COMPARED)
    assert list(found["sft"]) == list(CHOSEN)
    for task, key in (("spell", "acc_normnone"), ("gsm8k", "exact_matchstrict-match")):
        (leaf,) = found["sft"][task]
        assert leaf.values.tolist() == got("sft", task, key, SIZES[task][task]).tolist()
        assert leaf.documents == [(i, f"doc {task} {i}") for i in range(SIZES[task][task])]
        assert leaf.prompts == [f"prompt {task} {i}" for i in range(SIZES[task][task])]
    assert [(leaf.task, len(leaf.values)) for leaf in found["sft"]["mmlu"]] == [("mmlu_art", 5), ("mmlu_law", 20)]
    other = read_items(compared, metrics={**CHOSEN, "gsm8k": "exact_match,flexible-extract"})["sft"]["gsm8k"][0]
    assert other.values.tolist() == got("sft", "gsm8k", "exact_matchflexible-extract", 30).tolist()
    assert other.values.tolist() != found["sft"]["gsm8k"][0].values.tolist()


def test_differences_are_those_of_the_scores_with_intervals_of_the_items(compared):
    rows = comparison.differences(read_items(compared), [PAIR, PAIR[::-1]], DRAWS)
    assert [row[:3] for row in rows[:4]] == [(*PAIR, task) for task in (*CHOSEN, "average")]
    assert [row.n for row in rows[:4]] == [40, 25, 30, 95]
    first, second = (
        scores.chosen_scores(scores.read_scores(compared, PAIR, ["demo"]), CHOSEN)[model] for model in PAIR
    )
    gaps = [first[task].value - second[task].value for task in CHOSEN]
    assert [row.difference for row in rows[:4]] == pytest.approx([*gaps, sum(gaps) / 3])

    def values(model):
        leaves = {"spell": ["spell"], "mmlu": ["mmlu_art", "mmlu_law"], "gsm8k": ["gsm8k"]}
        return {
            task: [got(model, leaf, CHOSEN[task].replace(",", ""), SIZES[task][leaf]) for leaf in leaves[task]]
            for task in CHOSEN
        }

    expected = bootstrap.paired_difference(*map(values, PAIR), 500, 0.9, row_generator(42, "bootstrap"))
    assert [row[3:6] for row in rows[:4]] == [*expected.tasks.values(), expected.average]
    for row, back in zip(rows[:4], rows[4:], strict=True):
        assert row.low < row.difference < row.high
        assert back.difference == -row.difference


def test_equal_models_have_no_difference(compared, tmp_path):
    models = read_items(compared)
    models["copy"] = models["sft"]
    rows = comparison.differences(models, [("copy", "sft")], DRAWS)
    assert {row[3:6] for row in rows} == {(0.0, 0.0, 0.0)}
    both = {row.model: row[3:] for row in comparison.averages(models, DRAWS)}
    assert both["copy"] == both["sft"]  # no random number belongs to a name


def test_one_more_model_moves_no_interval(compared):
    models = read_items(compared)
    alone = {model: models[model] for model in PAIR}
    assert comparison.differences(models, [("sft", "spin/ite0"), PAIR], DRAWS)[4:] == comparison.differences(
        alone, [PAIR], DRAWS
    )
    assert comparison.averages(models, DRAWS)[1:] == comparison.averages({m: models[m] for m in COMPARED[1:]}, DRAWS)


def test_averages_are_those_of_the_table(compared):
    rows = comparison.averages(read_items(compared), DRAWS)
    assert [row[:3] for row in rows] == [("sft", "", ""), ("spin/ite0", "spin", "0"), ("wspin/ite0", "wspin", "0")]
    for row, of_tasks in zip(
        rows, scores.chosen_scores(scores.read_scores(compared, COMPARED, ["demo"]), CHOSEN).values(), strict=True
    ):
        assert row.average == pytest.approx(average_score(list(of_tasks.values())).value, rel=1e-12)
        assert row.low < row.average < row.high


def test_markdown_of_differences_is_in_points_with_its_legend(compared):
    models = read_items(compared)
    table, markdown, latex = difference_tables(models, [PAIR], DRAWS).values()
    rows = list(csv.DictReader(table.splitlines()))
    assert list(rows[0]) == ["model", "baseline", "task", "difference", "low", "high", "n"]
    exact = comparison.differences(models, [PAIR], DRAWS)
    assert [float(row["low"]) for row in rows] == [row.low for row in exact]
    header, line = cells(markdown)
    assert header == ["model - baseline", *CHOSEN, "average"]
    shown = [f"{100 * row.difference:+.2f} [{100 * row.low:+.2f}, {100 * row.high:+.2f}]" for row in exact]
    assert line == ["wspin/ite0 - spin/ite0", *(text.replace("-0.00", "+0.00") for text in shown)]
    legend = markdown.splitlines()[-1]
    for part in ("spell n = 40, mmlu n = 25, gsm8k n = 30", "90 % of 500 draws", "seed 42", "paired bootstrap"):
        assert part in legend
    assert latex.count("spin/ite0") == 2
    assert list(csv.DictReader(average_csv(models, DRAWS).splitlines()))[1]["arm"] == "spin"


def test_no_negative_zero_is_shown():
    rows = [comparison.Difference("a", "b", task, -1e-9, -0.01, 1e-9, 10) for task in ("one", "average")]
    assert cells(_rendered(_difference_table(rows, DRAWS))[".md"])[1][1] == "+0.00 [-1.00, +0.00]"


def test_no_pair_is_said_in_a_sentence(compared):
    models = read_items(compared)
    table, markdown, latex = difference_tables(models, [], DRAWS).values()
    assert table == "model,baseline,task,difference,low,high,n\n"
    assert markdown.startswith("There is no arm to compare")
    assert latex == f"% {markdown}"
    assert average_csv(models, DRAWS).count("\n") == 1 + len(COMPARED)


def test_latex_is_whole(results, compared):
    names = {"truthfulqa_mc2": "spell", "gsm8k": "gsm8k"}
    for model in MODELS:
        put(
            results,
            model,
            lambda scores: scores.update(tasks={new: scores["tasks"][old] for new, old in names.items()}),
        )
    text = tables(results, metrics={"truthfulqa_mc2": "exact_match,none", "gsm8k": METRICS["gsm8k"]})[2]
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrrr}"
    assert body[-1] == r"\end{tabular}"
    assert [line for line in body if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    inside = [line for line in body if line.endswith(r"\\")]
    assert [line.count("&") for line in inside] == [3] * 3
    assert len(inside) + 5 == len(body)
    assert r"truthfulqa\_mc2" in inside[0]
    assert not re.search(r"(?<!\\)[_#%$]", "\n".join(body))
    assert text.count("{") == text.count("}")
    assert "47.50 ± 2.50" in inside[1]


# Documents that do not belong together


def change_rows(task, change):
    """Change the rows of one task, given as a list of rows."""
    return lambda rows: change(rows) if rows[0]["task"].startswith(task) else None


def put_beside(results, of_rows, model="wspin/ite0"):
    """Write samples that were changed beside scores that claim to be alike."""

    def keep(scored):
        for task, entry in scored["tasks"].items():
            kept = json.loads((results / "spin/ite0/scores/demo.json").read_text())["tasks"][task]
            entry |= {key: kept[key] for key in ("n", "prompt_hash")}

    return put_both(results, model, of_rows, keep)


def test_another_prompt_is_refused(compared):
    path = put_beside(compared, change_rows("spell", lambda rows: rows[-3].update(prompt_hash="other")))
    expected = f"prompt_hash: expected prompt spell 2 as in {compared / 'spin/ite0'}"
    refused(compared, f"{path}: spell, document 2: {expected}", "found other")


def test_another_document_is_refused(compared):
    path = put_beside(compared, change_rows("mmlu", lambda rows: rows[-1].update(doc_hash="other")))
    refused(compared, ": mmlu_art, document 0: expected doc_hash ", path, "(n = 5), found none (n = 5)")


def test_a_missing_document_is_refused(compared):
    """One that the score file does not miss either, and with as many others."""

    def swap(rows):
        for row in rows[-2:]:  # document 0, under both filters
            row.update(doc_id=30)

    path = put_beside(compared, change_rows("gsm8k", swap))
    refused(
        compared, f"{path}: gsm8k, document 0: expected doc_hash doc gsm8k 0 as in", "(n = 30), found none (n = 30)"
    )


def test_another_number_of_documents_is_refused(compared):
    put_both(compared, "wspin/ite0", change_rows("spell", lambda rows: rows.pop()))
    refused(compared, "wspin/ite0/scores/demo.json: tasks.spell.n: expected 40 as in", "found 39")
    models = read_items(compared, ["wspin/ite0"]) | read_items(compared, ["spin/ite0"])
    with pytest.raises(StudyError, match=r"spell, document 0: .*\(n = 40\), found none \(n = 39\)"):
        comparison.differences(models, [PAIR], DRAWS)


def test_other_subtasks_are_refused(compared):
    models = read_items(compared)
    models["wspin/ite0"]["mmlu"].pop()
    with pytest.raises(StudyError, match=r"expected subtasks mmlu_art, mmlu_law as in .*, found mmlu_art"):
        comparison.differences(models, [PAIR], DRAWS)


def test_documents_of_other_scores_are_refused(compared):
    path = put_both(compared, "wspin/ite0")
    path.write_bytes((compared / "spin/ite0/scores/demo.samples.parquet").read_bytes())
    refused(compared, f"{path}: model: expected 'fingerprint of wspin/ite0', found 'fingerprint of spin/ite0'")


def test_samples_that_are_not_those_of_the_scores_are_refused(compared):
    def fewer(scored):
        scored["tasks"]["gsm8k"]["n"] = 31

    path = put_both(compared, "spin/ite0", of_scores=fewer)
    refused(compared, f"{path}: gsm8k: expected 31 documents", "found 30", "do not belong together", models=PAIR[1:])


def test_a_metric_that_is_no_mean_over_documents_is_refused(compared):
    def perplexity(scored):
        scored["tasks"]["spell"]["metrics"]["acc_norm,none"] += 1e-6

    path = put_both(compared, "wspin/ite0", of_scores=perplexity)
    refused(compared, f"{path}: spell: expected documents with mean 0.", "the metric is no mean over documents")


def test_an_unweighted_mean_of_subtasks_is_refused(compared):
    def unweighted(scored):
        group = scored["tasks"]["mmlu"]
        group["metrics"]["acc,none"] = np.mean([leaf["metrics"]["acc,none"] for leaf in group["subtasks"].values()])

    put_both(compared, "wspin/ite0", of_scores=unweighted)
    refused(compared, "mmlu: expected documents with mean", "no mean over documents")


@pytest.mark.parametrize("metrics", ['{"acc_norm": [0.5, 1.0]}', '{"acc": 1.0}', "{", '{"acc_norm": NaN}', "[1.0]"])
def test_documents_without_a_number_are_refused(compared, metrics):
    path = put_both(compared, "wspin/ite0")
    table = pq.read_table(path)
    texts = table["metrics"].to_pylist()
    texts[39] = metrics  # the first document comes last
    column = table.schema.get_field_index("metrics")
    pq.write_table(table.set_column(column, table.schema.field(column), pa.array(texts)), path)
    refused(compared, f"{path}: spell, document 0: metrics: expected a number under 'acc_norm', found")


def test_a_document_twice_is_refused(compared):
    path = put_beside(compared, change_rows("spell", lambda rows: rows[0].update(doc_id=3)))
    refused(compared, f"{path}: spell, document 3, filter none: expected one row, found several")


def test_files_of_samples_that_cannot_be_read_are_refused(compared):
    path = samples.samples_path(compared / "wspin/ite0/scores/demo.json")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["filter"]), path)
    refused(compared, f"{path}: columns: expected task,", "missing: filter")
    pq.write_table(table.replace_schema_metadata({"wspin": '{"format": 1, "kind": "prompts"}'}), path)
    refused(compared, f"{path}: kind: expected 'samples', found 'prompts'")
    path.write_text("text")
    refused(compared, f"{path}: expected a parquet file, found")
    path.unlink()
    refused(compared, f"{path}: expected the samples of", "found no file")


def test_a_pair_outside_the_table_is_refused(compared):
    refused(compared, "expected models of the table (sft, wspin/ite0), found 'spin/ite0'", models=("sft", "wspin/ite0"))


# The figure

ARMS = [
    "spin",
    "wspin",
    "wspin.paper",
    "equal",
    "permuted",
    "random_matched",
    "wspin.s43",
    "wspin.s44",
    "one_minus",
    "late",
]
TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def averages_of(arms, iterations=4, registry=("sft",)):
    """Rows of a table of averages; arms stand within a few points of each other, the last of ten begins late."""
    rows = [Average(model, "", "", 0.4 + 0.004 * i, 0.39, 0.41) for i, model in enumerate(registry)]
    for place, arm in enumerate(arms):
        for k in range(3 if arm == "late" else 0, max(iterations, 4) if arm == "late" else iterations):
            value = 0.41 + 0.002 * place + 0.005 * k
            rows.append(Average(f"{arm}/ite{k}", arm, str(k), value, value - 0.008, value + 0.009))
    return rows


def svg(rows, confidence=0.95):
    return figures.render(figures.averages(rows, confidence), "a.svg").decode()


@pytest.mark.parametrize("count", [1, 2, 9, 10])
@pytest.mark.parametrize("iterations", [1, 4])
def test_every_arm_is_named_and_looks_like_no_other(count, iterations):
    figure = figures.averages(averages_of(ARMS[:count], iterations), 0.95)
    told = TEXT.findall(figures.render(figure, "a.svg").decode())
    assert [arm for arm in ARMS[:count] if told.count(arm) != 1] == []
    (axes,) = figure.axes
    lines = [container.lines[0] for container in axes.containers]
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == count
    assert {str(k) for k in range(iterations)} <= set(told)


def test_many_arms_look_different_too():
    (axes,) = figures.averages(averages_of([f"arm{i}" for i in range(30)]), 0.95).axes
    lines = [container.lines[0] for container in axes.containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 30


def test_points_intervals_and_iterations_are_the_rows():
    rows = averages_of(["spin", "late"])
    (axes,) = figures.averages(rows, 0.95).axes
    for arm, container in zip(("spin", "late"), axes.containers, strict=True):
        mine = [row for row in rows if row.arm == arm]
        line, _, (bars,) = container.lines
        assert line.get_ydata() == pytest.approx([100 * row.average for row in mine])
        assert np.rint(line.get_xdata()).tolist() == [int(row.iteration) for row in mine]
        assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
            pytest.approx([100 * row.low, 100 * row.high]) for row in mine
        ]


def test_arms_with_equal_scores_stay_apart():
    rows = [Average(f"{arm}/ite{k}", arm, str(k), 0.5, 0.45, 0.55) for arm in ARMS for k in range(2)]
    (axes,) = figures.averages(rows, 0.95).axes
    x = np.array([container.lines[0].get_xdata() for container in axes.containers])
    assert np.diff(x[:, 0]).min() > 0.03
    assert np.abs(x - [0, 1]).max() < 0.3  # no arm nearer to another iteration


def test_the_figure_says_what_it_shows():
    told = TEXT.findall(svg(averages_of(ARMS[:2]), confidence=0.9))
    assert "Average score by iteration, with 90 % bootstrap intervals over items" in told
    assert {"iteration", "average of the tasks, points", "sft 40.00"} <= set(told)


def test_models_far_from_the_arms_are_named_not_drawn():
    far = [Average("base", "", "", 0.0625, 0.06, 0.07), Average("teacher", "", "", 0.8, 0.7, 0.9)]
    rows = [*averages_of(ARMS[:2], registry=("sft", "dpo")), *far]
    (axes,) = figures.averages(rows, 0.95).axes
    told = TEXT.findall(svg(rows))
    assert "too far to be drawn: base 6.25, teacher 80.00" in told
    assert {"sft 40.00", "dpo 40.40"} <= set(told)
    assert 35 < axes.get_ylim()[0] < 40 < 43.6 < axes.get_ylim()[1] < 50
    assert not any("too far" in text for text in TEXT.findall(svg(averages_of(ARMS[:2]))))


def test_labels_of_near_lines_do_not_overlap():
    rows = averages_of(["spin"], registry=("a", "b", "c", "d"))
    rows = [row._replace(average=0.41) if not row.arm else row for row in rows]
    figure = figures.averages(rows, 0.95)
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(above.y0 >= below.y1 for below, above in pairwise(boxes))


def test_a_figure_without_arms_is_drawn():
    assert {"sft 40.00", "base 40.40"} <= set(TEXT.findall(svg(averages_of([], registry=("sft", "base")))))


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_equal_rows_give_equal_bytes_whatever_the_users_style(kind, monkeypatch):
    first = figures.render(figures.averages(averages_of(ARMS), 0.95), f"a.{kind}")
    monkeypatch.setitem(matplotlib.rcParams, "axes.linewidth", 9.0)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    before = dict(matplotlib.rcParams)
    assert figures.render(figures.averages(averages_of(ARMS), 0.95), f"a.{kind}") == first
    assert dict(matplotlib.rcParams) == before
    assert first.startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])


def test_averages_survive_the_table(compared, tmp_path):
    rows = comparison.averages(read_items(compared), DRAWS)
    (tmp_path / "a.csv").write_text(csv_text(Average._fields, rows))
    assert comparison.read_averages(tmp_path / "a.csv") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header: expected model,arm,iteration,average,low,high and rows below it, found nothing and 0"),
        (
            "model,arm,iteration,average,low,high\n",
            "and rows below it, found model,arm,iteration,average,low,high and 0",
        ),
        ("model,average\nsft,0.5\n", "found model,average and 1"),
        ("model,arm,iteration,average,low,high\nsft,,,0.5,x,0.6\n", "row 1: low: .*, found 'x'"),
        ("model,arm,iteration,average,low,high\nsft,,,0.5,0.4,nan\n", "row 1: high: .*, found 'nan'"),
        ("model,arm,iteration,average,low,high\na,a,one,0.5,0.4,0.6\n", "row 1: iteration: .*, found 'one'"),
        ("model,arm,iteration,average,low,high\nsft,,,0.5,0.4\n", "row 1: high: Field required"),
        ("model,arm,iteration,average,low,high\nsft,,,0.5,0.4,0.6,0.7\n", "row 1: fields: "),
    ],
)
def test_malformed_averages_are_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(StudyError, match=message) as error:
        comparison.read_averages(tmp_path / "a.csv")
    assert str(error.value).startswith(f"{tmp_path / 'a.csv'}: ")
    with pytest.raises(StudyError, match="found no file"):
        comparison.read_averages(tmp_path / "b.csv")


def test_program_writes_no_table_of_another_kind(results):
    outputs = ["--output", *(str(results / name) for name in ("a.csv", "a.txt"))]
    with pytest.raises(StudyError, match=r"a.txt: expected a name that ends in .csv, .md, .tex, found '.txt'"):
        program.main([*command("scores", results), *outputs])
    assert not (results / "a.csv").exists()


def test_program_compares_and_draws(compared):
    averages, drawn = (
        compared / "tables/averages.csv",
        [compared / f"figures/a.{kind}" for kind in ("pdf", "svg", "png")],
    )
    draws = ["--bootstrap", 100, "--seed", 42, "--confidence", 0.95, "--averages", averages]
    compare = command("differences", compared, *draws, "--against", "=".join(PAIR), metrics=CHOSEN, models=COMPARED)
    draw = ["figure", "--averages", str(averages), "--confidence", "0.95", "--output", *map(str, drawn)]
    outputs = [*(compared / f"tables/differences.{end}" for end in ("csv", "md", "tex")), averages, *drawn]
    written = []
    for _ in range(2):
        program.main(compare)
        program.main(draw)
        written.append([path.read_bytes() for path in outputs])
    assert written[0] == written[1]
    models, drawn_from = read_items(compared), Draws(100, 0.95, 42)
    texts = [*difference_tables(models, [PAIR], drawn_from).values(), average_csv(models, drawn_from)]
    assert [content.decode() for content in written[0][:4]] == texts
    check_records(outputs[:4], samples.input_paths(scores.read_scores(compared, COMPARED, ["demo"])))
    check_records(drawn, [averages])


def test_program_writes_no_figure_of_another_kind(compared):
    (compared / "a.csv").write_text(csv_text(Average._fields, averages_of(["spin"])))
    outputs = [str(compared / name) for name in ("a.png", "a.gif")]
    with pytest.raises(StudyError, match=r"a.gif: expected a name that ends in .pdf, .svg, .png, found 'gif'"):
        program.main(["figure", "--averages", str(compared / "a.csv"), "--confidence", "0.95", "--output", *outputs])
    assert not (compared / "a.png").exists()


def test_program_compares_nothing_without_an_arm(compared):
    draws = ["--bootstrap", 100, "--seed", 42, "--confidence", 0.95, "--averages", compared / "averages.csv"]
    program.main(command("differences", compared, "--against", *draws, metrics=CHOSEN, models=COMPARED))
    assert (compared / "tables/differences.md").read_text().startswith("There is no arm to compare")
