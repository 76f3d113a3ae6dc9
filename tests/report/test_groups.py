"""Means of groups of tasks: columns of the tables, the average that is compared and drawn, and what is refused."""

import csv
import math

import pytest
from configuration import load, refusal
from score_files import CHOSEN, COMPARED, DRAWS, PAIR, cells, command, read_items, tuples

import report as program
from wspin.errors import StudyError
from wspin.report import comparison
from wspin.report.scores import read_scores, split_groups, table_columns
from wspin.report.tables import difference_texts, score_tables
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

GROUPS = {"average": ["spell", "gsm8k"], "words": ["spell", "mmlu"]}
COLUMNS = ["spell", "gsm8k", "average", "mmlu", "words"]


def scores_of(results, groups):
    return score_tables(read_scores(results, COMPARED, ["demo"]), CHOSEN, groups)


def points(cell):
    return [float(number) for number in cell.split(" ± ")]


def test_columns_are_the_tasks_of_a_group_then_its_mean_then_the_others():
    assert table_columns({}, CHOSEN) == [*CHOSEN, "average"]
    assert table_columns(GROUPS, CHOSEN) == COLUMNS
    assert table_columns({"average": ["gsm8k"]}, CHOSEN) == ["gsm8k", "average", "spell", "mmlu"]


def test_a_task_beside_the_average_does_not_enter_it(compared):
    tables = scores_of(compared, GROUPS)
    header, *rows = cells(tables[".md"])
    assert header == ["model", *COLUMNS]
    for _, spell, gsm8k, average, mmlu, words in rows:
        assert points(average)[0] == pytest.approx((points(spell)[0] + points(gsm8k)[0]) / 2, abs=0.01)
        assert points(words)[0] == pytest.approx((points(spell)[0] + points(mmlu)[0]) / 2, abs=0.01)
        assert points(average)[1] == pytest.approx(math.sqrt(2) / 2, abs=0.01)  # of two tasks with 1 point each
    means = "The average is the plain mean of spell, gsm8k; words is that of spell, mmlu; the standard error of a mean"
    for kind in (".md", ".tex"):
        assert means.replace("_", r"\_") in tables[kind]
    assert tables[".csv"] == scores_of(compared, {})[".csv"]


def test_differences_have_a_row_for_each_mean(compared):
    rows = {row.task: row for row in tuples(comparison.differences(read_items(compared), [PAIR], DRAWS, GROUPS))}
    assert list(rows) == COLUMNS
    for group, tasks in GROUPS.items():
        assert rows[group].difference == pytest.approx(sum(rows[task].difference for task in tasks) / 2)
        assert rows[group].n == sum(rows[task].n for task in tasks)
        assert rows[group].low < rows[group].difference < rows[group].high


def test_a_task_of_no_group_changes_no_interval_of_the_others(compared):
    average = {"average": GROUPS["average"]}
    without = read_items(compared)
    for tasks in without.values():
        del tasks["mmlu"]
    beside = tuples(comparison.differences(read_items(compared), [PAIR], DRAWS, average))
    assert beside[:3] == tuples(comparison.differences(without, [PAIR], DRAWS))
    assert [row.task for row in beside] == ["spell", "gsm8k", "average", "mmlu"]
    averages = comparison.averages(read_items(compared), DRAWS, average)
    assert tuples(averages) == tuples(comparison.averages(without, DRAWS))


def test_the_legend_of_differences_counts_tasks_and_names_means(compared):
    frame = comparison.differences(read_items(compared), [PAIR], DRAWS, GROUPS)
    legend = difference_texts(frame, DRAWS, groups=GROUPS)[".md"].split("\n\n")[1]
    assert "same prompts: spell n = 40, gsm8k n = 30, mmlu n = 25. " in legend
    assert "The average is the plain mean of spell, gsm8k; words is that of spell, mmlu. The interval" in legend


def test_the_program_takes_groups_as_the_rule_gives_them(compared):
    groups = ["--groups", "average=gsm8k,spell", "words=spell,mmlu"]
    program.main(command("scores", compared, *groups, metrics=CHOSEN, models=COMPARED))
    assert (compared / "tables/scores.md").read_text() == scores_of(compared, GROUPS)[".md"]
    draws = ["--bootstrap", "100", "--seed", "1", "--confidence", "0.9", "--averages", compared / "averages.csv"]
    program.main(command("differences", compared, *groups, *draws, metrics=CHOSEN, models=COMPARED))
    with open(compared / "tables/differences.csv") as file:
        assert [row["task"] for row in csv.DictReader(file)] == []
    rows = tuples(comparison.read_averages(compared / "averages.csv"))
    scored = {row[0]: points(row[3])[0] for row in cells((compared / "tables/scores.md").read_text())[1:]}
    assert [round(100 * row.average, 2) for row in rows] == pytest.approx([scored[name] for name in COMPARED])


def test_unknown_tasks_of_a_group_are_refused():
    with pytest.raises(StudyError, match=r"report\.groups: all: expected tasks of spell, mmlu, gsm8k, found 'arc'"):
        split_groups(["all=spell,arc"], CHOSEN)
    with pytest.raises(StudyError, match="expected GROUP=TASK,TASK, found 'spell'"):
        split_groups(["spell"], CHOSEN)


def test_the_rules_flags_name_groups_only_where_there_are_some():
    for groups, words in (({}, []), ({"average": ["gsm8k", "mmlu"]}, ["--groups", "average=gsm8k,mmlu"])):
        flags = RuleFlags(StudyPaths(load({"report": {"groups": groups}}))).report_scores()
        assert flags[flags.index("--groups") :][:2] == words if words else "--groups" not in flags


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"average": []}, "report.groups.average: expected 1 or more entries, found []"),
        ({"average": ["arc"]}, "report.groups.average: no task 'arc' in report.metrics; there are arc_challenge, "),
        ({"average": ["gsm8k", "gsm8k"]}, "report.groups.average: 'gsm8k' is given 2 times; name it once"),
        ({"mmlu": ["gsm8k"]}, "report.groups.mmlu: 'mmlu' is a task; choose another name for the mean"),
        ({"Mean": ["gsm8k"]}, "report.groups.Mean: expected a name of a-z"),
        ({"average": "gsm8k"}, "report.groups.average: expected a list, found 'gsm8k'"),
    ],
)
def test_groups_that_are_none_are_refused(groups, message):
    assert message in refusal({"report": {"groups": groups}})
