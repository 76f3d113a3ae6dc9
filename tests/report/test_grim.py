"""Which printed percentages are shares of so many documents, and which averages are those of their cells."""

import math
import shutil
from fractions import Fraction
from pathlib import Path

import critique
import pytest
import workflow
from score_files import METRICS, cells, put, score_texts

from wspin.config.published import read_published
from wspin.errors import StudyError
from wspin.report.frame import chosen_scores
from wspin.report.grim import DOCUMENTS, SIX, attainable, failed_average, failed_share
from wspin.report.scores import read_scores
from wspin.rng import row_generator

PUBLISHED = workflow.ROOT / "config/published"
# What cannot be a share of its documents, each cell once: table, row, task
FAILING = {
    ("Table 1", "ipo"): "winogrande",
    ("Table 1", "tdpo"): "winogrande",
    ("Table 1", "tisdpo"): "winogrande",
    ("Table 1", "swift@3"): "arc_challenge gsm8k",
    ("Table 9", "swift@2 (clean weights)"): "gsm8k",
    ("Table 9", "swift@0 (weights + U[-0.2,0.2])"): "arc_challenge winogrande",
    ("Table 9", "swift@1 (weights + U[-0.2,0.2])"): "arc_challenge gsm8k winogrande",
    ("Table 9", "swift@2 (weights + U[-0.2,0.2])"): "gsm8k winogrande",
    ("Table 9", "swift@3 (weights + U[-0.2,0.2])"): "arc_challenge winogrande",
    ("Table 12", "dpo (Mistral-7B-v0.1)"): "arc_challenge gsm8k winogrande",
    ("Table 12", "spin (Mistral-7B-v0.1)"): "arc_challenge gsm8k winogrande",
    ("Table 12", "swift (Qwen3-32B -> Mistral-7B-v0.1)"): "arc_challenge gsm8k winogrande",
    ("Table 12", "dpo (Qwen2.5-7B-Instruct)"): "gsm8k",
    ("Table 12", "spin (Qwen2.5-7B-Instruct)"): "arc_challenge gsm8k winogrande",
    ("Table 12", "swift (Qwen3-32B -> Qwen2.5-7B-Instruct)"): "gsm8k",
    ("Table 13", "swift (Qwen2.5-7B-Instruct -> Qwen1.5-1.8B)"): "arc_challenge gsm8k",
    ("Table 13", "swift (Qwen3-32B -> Qwen1.5-1.8B)"): "gsm8k winogrande",
}


def all_rows():
    return [row for file in sorted(PUBLISHED.glob("*.csv")) for row in read_published(file)]


def by_counting(printed, n):
    """As the definition: every k is tried, rounded either way and truncated."""
    decimals = len(printed.partition(".")[2])
    last = int(printed.replace(".", ""))
    shares = (Fraction(100 * 10**decimals * k, n) for k in range(n + 1))
    return any(math.floor(share) == last or abs(share - last) <= Fraction(1, 2) for share in shares)


@pytest.mark.parametrize("n", [7, 1172, 1319])
def test_a_percentage_is_attainable_if_some_count_prints_it(n):
    values = row_generator("grim", n).uniform(0, 100, 40)
    printed = [f"{value:.{decimals}f}" for value in values for decimals in (1, 2)]
    printed += [f"{100 * k / n:.2f}" for k in range(0, n, 50)] + ["0.00", "100.00"]
    found = {text: attainable(text, n) for text in printed}
    assert found == {text: by_counting(text, n) for text in printed}
    assert n == 7 or {True, False} == set(found.values())


def test_rounding_and_truncation_are_accepted():
    assert (f"{100 * 2 / 3:.2f}", attainable("66.67", 3), attainable("66.66", 3)) == ("66.67", True, True)
    assert not attainable("66.65", 3)
    assert not attainable("66.68", 3)
    assert attainable("0.13", 800) and attainable("0.12", 800)  # 0.125: half to even and half up


def test_39_78_is_no_share_of_1172_documents():
    assert not attainable("39.78", 1172)
    assert [f"{100 * k / 1172:.2f}" for k in (466, 467)] == ["39.76", "39.85"]
    assert failed_share("arc_challenge", "39.78") == "not k/1172"
    assert failed_share("arc_challenge", "39.76") == failed_share("truthfulqa_mc2", "39.78") == ""


def test_the_published_cells_that_fail_are_33():
    failing = {}
    for row in all_rows():
        name = row.name if row.table != "Table 1" else row.name.partition(" (")[0]
        tasks = sorted(task for task, printed in row.cells.items() if failed_share(task, printed))
        if tasks:
            failing[row.table, name] = " ".join(tasks)
    again = {("Table 9", "swift@3 (clean weights)"), ("Table 13", "swift (zephyr-7b-sft-full -> Qwen1.5-1.8B)")}
    assert {failing.pop(copy) for copy in again} == {FAILING["Table 1", "swift@3"]}  # the same run, printed again
    assert failing == FAILING
    assert sum(len(tasks.split()) for tasks in failing.values()) == 33


def test_no_cell_of_spins_paper_or_of_an_untrained_model_fails():
    rows = [row for row in all_rows() if row.source.startswith("SPIN") or row.method in ("base", "sft", "teacher")]
    checked = [failed_share(task, printed) for row in rows for task, printed in row.cells.items() if task in DOCUMENTS]
    assert set(checked) == {""}
    assert len(checked) > 40


def test_one_published_average_is_not_that_of_its_cells():
    rows = [row for row in all_rows() if {*SIX, "average"} <= row.cells.keys()]
    averages = {(row.table, row.name): failed_average(row.cells) for row in rows}
    failing = {place: message for place, message in averages.items() if message}
    assert failing == {("Table 3", "spin+dpo@3 (DPO on UltraFeedback after SPIN)"): "cells give 64.74"}
    (row,) = (row for row in all_rows() if row.method == "spin+dpo")
    assert row.cells["average"] == "64.05"
    assert len(averages) == 42
    found = {average: failed_average({**row.cells, "average": average}) for average in ("64.72", "64.73", "64.75")}
    assert found == {"64.72": "cells give 64.74", "64.73": "", "64.75": "cells give 64.74"}  # they give 64.738
    assert failed_average({"average": "1.00"}) == ""  # without cells there is nothing to add


def test_the_page_counts_what_it_says_of_the_cells(tmp_path, monkeypatch):
    """With a cell of SPIN's that is no share, and all averages right."""
    folder = shutil.copytree(PUBLISHED, tmp_path / "published")
    monkeypatch.setattr(critique, "FOLDER", folder)
    assert "Of SPIN's paper all 24 pass, of base, SFT and teacher all 27;" in critique.markdown()
    spin = folder / "spin_main.csv"
    spin.write_text(spin.read_text().replace("gsm8k,acc,26.76", "gsm8k,acc,26.80").replace("64.05", "64.74"))
    page = critique.markdown()
    assert "**34 cells cannot be" in page
    assert "Of SPIN's paper 23 of 24 pass, of base, SFT and teacher 26 of 27;" in page
    assert "**All 42 printed averages are those of their cells** within 0.01.\n" in page
    assert "of SWIFT's row of the teacher, 6 of 7 cells are those of SPIN's" in page


def test_a_score_of_ours_that_is_no_share_is_refused(results):
    tasks = {"gsm8k": METRICS["gsm8k"], "spell": METRICS["spell"]}
    put(results, "sft", lambda scores: scores["tasks"]["gsm8k"]["metrics"].update({"exact_match,strict-match": 0.4001}))
    with pytest.raises(StudyError) as error:
        chosen_scores(read_scores(results, ["sft"], ["demo"]), tasks)
    expected = "sft: gsm8k: exact_match: expected a share of 1320 documents, found 0.4001"
    assert str(error.value) == f"{expected}; choose another metric, or evaluate again"
    value = {"exact_match,strict-match": 528 / 1320}
    put(results, "sft", lambda scores: scores["tasks"]["gsm8k"]["metrics"].update(value))
    assert len(chosen_scores(read_scores(results, ["sft"], ["demo"]), tasks)) == 2


@pytest.mark.parametrize("metric", ["brier_score,none", "f1,none"])
def test_a_metric_that_is_no_share_is_any_number(results, metric):
    def change(scores):
        scores["tasks"]["gsm8k"] |= {"metrics": {metric: 0.4001}, "stderr": {metric: 0.01}}

    put(results, "sft", change)
    chosen = chosen_scores(read_scores(results, ["sft"], ["demo"]), {**METRICS, "gsm8k": metric})
    assert 0.4001 in chosen.value.tolist()


def test_means_over_values_or_subtasks_are_any_number(results):
    def change(scores):
        mean = {**scores["tasks"].pop("gsm8k"), "metrics": {"acc,none": 0.4001}, "stderr": {"acc,none": 0.01}}
        scores["tasks"] |= {"truthfulqa_mc2": mean, "mmlu": {**mean, "subtasks": {"mmlu_law": mean}}}

    put(results, "sft", change)
    metrics = {"spell": METRICS["spell"], "truthfulqa_mc2": "acc,none", "mmlu": "acc,none"}
    assert len(chosen_scores(read_scores(results, ["sft"], ["demo"]), metrics)) == 3


def test_averages_that_we_print_are_those_of_their_cells(results):
    """Rounded cells can move a mean by half of the last decimal, rounding it by another half."""
    for k in range(30):
        value = {"exact_match,strict-match": (100 + 7 * k) / 1320}
        put(results, "sft", lambda scores, value=value: scores["tasks"]["gsm8k"]["metrics"].update(value))
        spell, gsm8k, average = (cell.split()[0] for cell in cells(score_texts(results, ["sft"])[1])[1][1:])
        assert abs((float(spell) + float(gsm8k)) / 2 - float(average)) <= 0.01 + 1e-9


def test_every_share_that_a_page_shows_is_attainable():
    """The demo's tasks have 400 documents."""
    page = Path(workflow.ROOT / "docs/demo.md").read_text()
    rows = cells(page.split("<!-- demo scores -->\n")[1].split("\n\n")[0])[1:]
    assert len(rows) > 10
    for row in rows:
        *shares, average = (cell.split()[0] for cell in row[1:])
        assert all(attainable(share, 400) for share in shares)
        assert abs(sum(map(float, shares)) / len(shares) - float(average)) <= 0.01 + 1e-9
