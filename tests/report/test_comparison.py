"""Differences of two models and averages of each, with intervals."""

import pytest
from attacks import attack
from score_files import (
    CHOSEN,
    COMPARED,
    DRAWS,
    PAIR,
    SIZES,
    average_frame,
    got,
    read_items,
    refused,
    tuples,
)

from wspin.errors import StudyError
from wspin.report import bootstrap, comparison, scores
from wspin.report.frame import chosen_scores
from wspin.rng import row_generator
from wspin.storage.text_tables import csv_text


def test_differences_are_those_of_the_scores_with_intervals_of_the_items(compared):
    rows = tuples(comparison.differences(read_items(compared), [PAIR, PAIR[::-1]], DRAWS))
    assert [row[:3] for row in rows[:4]] == [(*PAIR, task) for task in (*CHOSEN, "average")]
    assert [row.n for row in rows[:4]] == [40, 25, 30, 95]
    scored = chosen_scores(scores.read_scores(compared, PAIR, ["demo"]), CHOSEN)
    first, second = (scored[scored.model == model].set_index("task").value for model in PAIR)
    gaps = [first[task] - second[task] for task in CHOSEN]
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
    rows = tuples(comparison.differences(models, [("copy", "sft")], DRAWS))
    assert {row[3:6] for row in rows} == {(0.0, 0.0, 0.0)}
    both = {row.model: row[3:] for row in tuples(comparison.averages(models, DRAWS))}
    assert both["copy"] == both["sft"]  # no random number belongs to a name


def test_one_more_model_moves_no_interval(compared):
    models = read_items(compared)
    alone = {model: models[model] for model in PAIR}
    both = tuples(comparison.differences(models, [("sft", "spin/ite0"), PAIR], DRAWS))
    assert both[4:] == tuples(comparison.differences(alone, [PAIR], DRAWS))
    others = {model: models[model] for model in COMPARED[1:]}
    assert tuples(comparison.averages(models, DRAWS))[1:] == tuples(comparison.averages(others, DRAWS))


def test_averages_are_those_of_the_table(compared):
    rows = tuples(comparison.averages(read_items(compared), DRAWS))
    assert [row[:3] for row in rows] == [("sft", None, None), ("spin/ite0", "spin", 0), ("wspin/ite0", "wspin", 0)]
    scored = chosen_scores(scores.read_scores(compared, COMPARED, ["demo"]), CHOSEN)
    for row in rows:
        assert row.average == pytest.approx(scored[scored.model == row.model].value.mean(), rel=1e-12)
        assert row.low < row.average < row.high


def test_a_pair_outside_the_table_is_refused(compared):
    refused(compared, "expected models of the table (sft, wspin/ite0), found 'spin/ite0'", models=("sft", "wspin/ite0"))


def test_averages_survive_the_table(compared, tmp_path):
    more = average_frame([("teacher", None, None, 23.5, -4.0, 81.0)])  # of perplexities, or metrics out of 100
    rows = [*tuples(comparison.averages(read_items(compared), DRAWS)), *tuples(more)]
    (tmp_path / "a.csv").write_text(csv_text(average_frame(rows)))
    assert tuples(comparison.read_averages(tmp_path / "a.csv")) == rows


@attack(
    "malformed",
    "a table of averages that is no UTF-8, or has a field of 200,000 characters or numbers of any size",
    "refused in one line with its row",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,\udcff\n", "expected a table of averages, found 'utf-8' codec can't decode byte 0xff"),
        (f"{'x' * 200_000}\n", r"found field larger than field limit \(131072\); make it again"),
        (f"model,arm,iteration,average,low,high\na,a,{'9' * 5000},0.5,0.4,0.6\n", "row 1: iteration: .*, found '999"),
        ("model,arm,iteration,average,low,high\na,a,0,1e308,0.4,0.6\n", "average: expected a number of at most"),
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
    (tmp_path / "a.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(StudyError, match=message) as error:
        comparison.read_averages(tmp_path / "a.csv")
    assert str(error.value).startswith(f"{tmp_path / 'a.csv'}: ")
    with pytest.raises(StudyError, match="found no file"):
        comparison.read_averages(tmp_path / "b.csv")
