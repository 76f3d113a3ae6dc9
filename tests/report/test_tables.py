"""The tables of scores and differences, and the programs that write them."""

import csv
import math
import re

import pandas as pd
import pytest
from score_files import (
    CHOSEN,
    COMPARED,
    DRAWS,
    METRICS,
    MODELS,
    PAIR,
    averages_of,
    cells,
    check_records,
    command,
    put,
    put_both,
    read_items,
    score_texts,
    tuples,
)

import report as program
import report_figure as figure
from wspin.errors import StudyError
from wspin.report import comparison, samples, scores
from wspin.report.comparison import Draws
from wspin.report.tables import difference_tables, difference_texts
from wspin.storage.text_tables import csv_text


def test_tidy_rows_hold_every_metric_and_filter(results):
    text = score_texts(results)[0]
    header, *rows = csv.reader(text.splitlines())
    assert header == ["model", "method", "arm", "iteration", "seed", "task", "filter", "metric", "value", "stderr", "n"]
    assert [row[5] for row in rows] == ["gsm8k", "gsm8k", "spell"] * 2
    assert rows[0] == [
        "sft",
        "sft",
        "",
        "",
        "",
        "gsm8k",
        "flexible-extract",
        "exact_match",
        str(1 / 3),
        "0.012",
        "1320",
    ]
    assert rows[-1] == ["spin/ite0", "spin", "spin", "0", "", "spell", "none", "exact_match", "0.475", "0.025", "400"]


def test_csv_keeps_full_precision_and_leaves_unknown_errors_empty(results):
    put(results, "sft", lambda scores: scores["tasks"]["spell"]["stderr"].update({"exact_match,none": None}))
    text = score_texts(results, ["sft"])[0]
    rows = list(csv.DictReader(text.splitlines()))
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[2]["stderr"] == ""
    assert text.endswith("\n")
    assert "\r" not in text


def test_trap_30_markdown_shows_points_with_one_standard_error(results):
    text = score_texts(results)[1]
    header, rule, *rows, blank, legend = text.rstrip("\n").split("\n")
    shown = cells(text)
    assert shown[0] == ["model", "spell", "gsm8k", "average"]
    error = math.sqrt(2.5**2 + 0.6**2) / 2
    assert shown[1] == ["sft", "47.50 ± 2.50", "10.00 ± 0.60", f"28.75 ± {error:.2f}"]
    assert [row[0] for row in shown[1:]] == list(MODELS)
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert blank == ""
    assert "spell: exact_match,none, 0 shots, n = 400" in legend
    assert "gsm8k: exact_match,strict-match, 5 shots, n = 1320" in legend
    assert "± is one standard error over items" in legend
    assert "**" not in text


def test_the_note_counts_requests_that_were_cut(compared):
    """In both tables, and only where there are any."""
    put_both(compared, "sft", of_scores=lambda scores: scores["tasks"]["gsm8k"].update(cut=7))
    note = "Requests cut on the left to fit the model's context: sft gsm8k 7."
    assert score_texts(compared, COMPARED, CHOSEN)[1].rstrip().endswith(note)
    assert note not in score_texts(compared, COMPARED[1:], CHOSEN)[1]
    draws = ["--bootstrap", "100", "--seed", "1", "--confidence", "0.9", "--averages", compared / "averages.csv"]
    program.main(command("differences", compared, *draws, metrics=CHOSEN, models=COMPARED))
    assert (compared / "tables/differences.md").read_text().rstrip().endswith(note)


def test_average_of_tasks_without_a_standard_error_has_none(results):
    put(results, "sft", lambda scores: scores["tasks"]["gsm8k"]["stderr"].update({"exact_match,strict-match": None}))
    assert cells(score_texts(results, ["sft"])[1])[1] == ["sft", "47.50 ± 2.50", "10.00", "28.75"]


def test_program_writes_the_tables_and_their_records(results, capsys):
    outputs = [results / f"tables/scores.{end}" for end in ("csv", "md", "tex")]
    program.main(command("scores", results))
    written = [path.read_bytes() for path in outputs]
    assert [text.decode() for text in written] == score_texts(results)
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


def test_markdown_of_differences_is_in_points_with_its_legend(compared):
    models = read_items(compared)
    table, markdown, latex = difference_tables(models, [PAIR], DRAWS).values()
    rows = list(csv.DictReader(table.splitlines()))
    assert list(rows[0]) == ["model", "baseline", "task", "difference", "low", "high", "n"]
    exact = tuples(comparison.differences(models, [PAIR], DRAWS))
    assert [float(row["low"]) for row in rows] == [row.low for row in exact]
    header, line = cells(markdown)
    assert header == ["model - baseline", *CHOSEN, "average"]
    shown = [f"{100 * row.difference:+.2f} [{100 * row.low:+.2f}, {100 * row.high:+.2f}]" for row in exact]
    assert line == ["wspin/ite0 - spin/ite0", *(text.replace("-0.00", "+0.00") for text in shown)]
    legend = markdown.splitlines()[-1]
    for part in ("spell n = 40, mmlu n = 25, gsm8k n = 30", "90 % of 500 draws", "seed 42", "paired bootstrap"):
        assert part in legend
    assert latex.count("spin/ite0") == 2
    assert list(csv.DictReader(csv_text(comparison.averages(models, DRAWS)).splitlines()))[1]["arm"] == "spin"


def test_no_negative_zero_is_shown():
    rows = [("a", "b", task, -1e-9, -0.01, 1e-9, 10) for task in ("one", "average")]
    frame = pd.DataFrame(rows, columns=["model", "baseline", "task", "difference", "low", "high", "n"])
    assert cells(difference_texts(frame, DRAWS)[".md"])[1][1] == "+0.00 [-1.00, +0.00]"


def test_no_pair_is_said_in_a_sentence(compared):
    models = read_items(compared)
    table, markdown, latex = difference_tables(models, [], DRAWS).values()
    assert table == "model,baseline,task,difference,low,high,n\n"
    assert markdown.startswith("There is no arm to compare")
    assert latex == f"% {markdown}"
    assert csv_text(comparison.averages(models, DRAWS)).count("\n") == 1 + len(COMPARED)


def test_arms_without_a_baseline_of_their_seed_are_named(compared):
    draws = ["--bootstrap", "100", "--seed", "1", "--confidence", "0.9", "--averages", compared / "averages.csv"]
    pairs = ["--against", "wspin/ite0=spin/ite0", "--uncompared", "wspin.s43=43", "a.s44=44"]
    program.main(command("differences", compared, *draws, *pairs, metrics=CHOSEN, models=COMPARED))
    note = "Without a row, as the baseline arm has no replicate with their seed: wspin.s43 (43), a.s44 (44)."
    assert (compared / "tables/differences.md").read_text().rstrip().endswith(note)


def test_latex_is_whole(results, compared):
    names = {"truthfulqa_mc2": "spell", "gsm8k": "gsm8k"}
    for model in MODELS:
        put(
            results,
            model,
            lambda scores: scores.update(tasks={new: scores["tasks"][old] for new, old in names.items()}),
        )
    text = score_texts(results, metrics={"truthfulqa_mc2": "exact_match,none", "gsm8k": METRICS["gsm8k"]})[2]
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


def test_program_writes_no_table_of_another_kind(results):
    outputs = ["--output", *(str(results / name) for name in ("a.csv", "a.txt"))]
    with pytest.raises(StudyError, match=r"a.txt: expected a name that ends in .csv, .md, .tex, .html, found '.txt'"):
        program.main([*command("scores", results), *outputs])
    assert not (results / "a.csv").exists()


def test_program_compares_and_draws(compared):
    averages, drawn = (
        compared / "tables/averages.csv",
        [compared / f"figures/a.{kind}" for kind in ("pdf", "svg", "png")],
    )
    draws = ["--bootstrap", 100, "--seed", 42, "--confidence", 0.95, "--averages", averages]
    compare = command("differences", compared, *draws, "--against", "=".join(PAIR), metrics=CHOSEN, models=COMPARED)
    tables = ["--averages", str(averages), "--differences", str(compared / "tables/differences.csv")]
    draw = [*tables, "--confidence", "0.95", "--output", *map(str, drawn)]
    outputs = [*(compared / f"tables/differences.{end}" for end in ("csv", "md", "tex")), averages, *drawn]
    written = []
    for _ in range(2):
        program.main(compare)
        figure.main(draw)
        written.append([path.read_bytes() for path in outputs])
    assert written[0] == written[1]
    models, drawn_from = read_items(compared), Draws(100, 0.95, 42)
    texts = [*difference_tables(models, [PAIR], drawn_from).values(), csv_text(comparison.averages(models, drawn_from))]
    assert [content.decode() for content in written[0][:4]] == texts
    check_records(outputs[:4], samples.input_paths(scores.read_scores(compared, COMPARED, ["demo"])))
    check_records(drawn, [averages, compared / "tables/differences.csv"], "report_figure")


def test_program_draws_replicates_as_one(compared):
    (compared / "a.csv").write_text(csv_text(averages_of(["spin", "spin.s43"])))
    drawn = ["--averages", str(compared / "a.csv"), "--confidence", "0.95"]
    figure.main([*drawn, "--replicates", "spin=spin.s43", "--output", str(compared / "a.svg")])
    assert "mean over 2 seeds" in (compared / "a.svg").read_text()


def test_program_writes_no_figure_of_another_kind(compared):
    (compared / "a.csv").write_text(csv_text(averages_of(["spin"])))
    outputs = [str(compared / name) for name in ("a.png", "a.gif")]
    with pytest.raises(StudyError, match=r"a.gif: expected a name that ends in .pdf, .svg, .png, found 'gif'"):
        figure.main(["--averages", str(compared / "a.csv"), "--confidence", "0.95", "--output", *outputs])
    assert not (compared / "a.png").exists()


def test_program_compares_nothing_without_an_arm(compared):
    draws = ["--bootstrap", 100, "--seed", 42, "--confidence", 0.95, "--averages", compared / "averages.csv"]
    program.main(command("differences", compared, "--against", *draws, metrics=CHOSEN, models=COMPARED))
    assert (compared / "tables/differences.md").read_text().startswith("There is no arm to compare")
