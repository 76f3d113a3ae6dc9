"""The figure of pooled differences to the baseline."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from wspin.report import forest
from wspin.report.pooling import COLUMNS
from wspin.report.style import render

TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")
TASKS = ("arc", "gsm8k", "average")
ARMS = ["wspin", "wspin.paper", "permuted", "random_matched", "inverse", "equal.mean_one", "sft_long"]


def row(arm, k=3, task="arc", seeds=3, mean=0.02, baseline="spin"):
    model, place = (f"{arm}/ite{k}", (arm, k)) if k is not None else (arm, (None, None))
    errors = (0.01, 0.004, 0.007) if seeds > 1 else (np.nan, 0.004, np.nan)
    outer = (mean - 0.02, mean + 0.02) if seeds > 1 else (np.nan, np.nan)
    numbers = (seeds, mean, *errors, *outer, mean - 0.008, mean + 0.008, 400)
    return (model, *place, f"{baseline}/ite{3 if k is None else k}", task, *numbers)


def frame(rows):
    return pd.DataFrame(rows, columns=COLUMNS).astype({"iteration": "Int64"})


def drawn(arms=ARMS, tasks=TASKS, **of_row):
    return forest.differences(frame([row(arm, task=task, **of_row) for arm in arms for task in tasks]), 0.9)


def texts(figure):
    return TEXT.findall(render(figure, "a.svg").decode())


def segments(lines):
    return [tuple(segment[:, 0]) for segment in lines.get_segments() if segment.size]


def test_both_intervals_are_drawn_in_points():
    for axes in drawn(["wspin", "permuted"]).axes:
        inner, outer = axes.collections
        assert segments(inner) == [pytest.approx((1.2, 2.8))] * 2
        assert segments(outer) == [pytest.approx((0.0, 4.0))] * 2
        assert inner.get_linewidth()[0] > outer.get_linewidth()[0]
        points = next(line for line in axes.lines if line.get_marker() == "o")
        assert points.get_xdata() == pytest.approx([2.0, 2.0])
        assert points.get_ydata().tolist() == [0, 1]


def test_a_row_with_one_seed_has_the_items_interval_alone():
    figure = drawn(["wspin"], seeds=1)
    inner, outer = figure.axes[0].collections
    assert segments(inner) == [pytest.approx((1.2, 2.8))]
    assert segments(outer) == []
    assert {"90 %, documents", "model minus spin/ite3, points"} <= set(texts(figure))
    assert not any("seeds" in text for text in texts(figure))
    assert "documents and 3 seeds" in texts(drawn(["wspin"]))


def test_seeds_stand_behind_the_names_where_they_differ():
    rows = [row("wspin", seeds=3), row("equal", seeds=1), row("kd", k=None)]
    figure = forest.differences(frame(rows), 0.9)
    assert {"wspin (3)", "equal (1)", "kd (3)", "documents and seeds"} <= set(texts(figure))


def test_the_last_iteration_of_every_arm_is_drawn():
    """And models without iterations; an arm that ends earlier is named with its iteration."""
    rows = [row("wspin", k) for k in (2, 3)] + [row("short", k) for k in (0, 1)] + [row("kd", k=None)]
    scores = [(*values[:3], None, *values[4:]) for values in rows]
    assert forest.last_differences(frame(scores + rows)).model.tolist() == ["wspin/ite3", "short/ite1", "kd"]
    found = texts(forest.differences(frame(scores + rows), 0.9))
    assert {"wspin", "short/ite1", "kd", "model minus spin, points"} <= set(found)


def test_a_baseline_without_iterations_is_called_by_its_name():
    for names, shown in ((["sft", "kd"], "sft, kd"), (["sft"], "sft"), (["spin/ite0", "spin/ite1"], "spin")):
        pairs = zip(("wspin", "late"), names, strict=False)
        rows = [(*row(arm)[:3], baseline, *row(arm)[4:]) for arm, baseline in pairs]
        found = texts(forest.differences(frame(rows), 0.9))
        assert f"model minus {shown}, points" in found


def test_the_figure_says_that_its_intervals_are_not_adjusted():
    assert "intervals not adjusted for the number of rows" in texts(drawn())


def test_a_row_too_far_to_be_drawn_is_an_arrow_with_its_number():
    """At the edge it lies beyond; the axis is that of the other rows."""
    rows = [row(arm, mean=mean) for arm, mean in zip(ARMS, (0.02, 0.01, 0.0, -0.01, -0.15, 0.02, 0.264), strict=True)]
    figure = forest.differences(frame(rows), 0.9)
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert -4 < low < -2 and 3 < high < 5
    arrows = {line.get_marker(): line.get_data() for line in axes.lines if line.get_marker() in "<>"}
    assert arrows == {"<": ([0.02], [4]), ">": ([0.98], [6])}
    assert len(next(line for line in axes.lines if line.get_marker() == "o").get_xdata()) == 5
    assert {"-15.00", "+26.40", "too far to be drawn"} <= set(texts(figure))
    assert "too far to be drawn" not in texts(drawn())


def test_rows_of_like_size_are_all_drawn_however_large():
    assert ">" not in [line.get_marker() for line in drawn(mean=0.3).axes[0].lines]


def test_a_panel_for_the_average_and_for_every_task():
    assert [axes.get_title() for axes in drawn().axes] == ["average", "arc", "gsm8k"]
    assert [axes.get_title() for axes in drawn(tasks=("arc", "average")).axes] == ["arc"]


@pytest.mark.parametrize(
    ("arms", "tasks"),
    [
        (ARMS, (*"abcdef", "average")),
        (["wspin"], TASKS),
        (["wspin"], ("arc", "average")),
        (ARMS, ("spell_backward", "spell_backward_choice", "average")),
        (ARMS, ("word_sequence_reversal", "word_sequence_reversal_choice", "average")),
        ([*ARMS, "an_arm_with_a_name_of_thirty_one"], TASKS),
    ],
)
def test_nothing_overlaps_in_a_column_of_a_paper(arms, tasks):
    means = {"inverse": -0.15, "sft_long": 0.3}
    rows = [row(arm, task=task, mean=means.get(arm, 0.02)) for arm in arms for task in tasks]
    figure = forest.differences(frame(rows), 0.9)
    assert figure.get_figwidth() == 3.3
    figure.draw_without_rendering()
    page = figure.bbox
    for axes in figure.axes:
        labels = [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()]
        assert all(below.y1 <= above.y0 for above, below in pairwise(labels))
        assert all(label.x0 >= page.x0 and label.x1 <= axes.bbox.x0 for label in labels)
        assert axes.bbox.width > 0.2 * page.width
    (legend,) = figure.legends
    boxes = [Text.get_window_extent(text) for text in (*legend.get_texts(), legend.get_title())]
    boxes += [axes.get_tightbbox() for axes in figure.axes]
    assert Bbox.union(boxes).width <= page.width
    assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.shrunk(0.99, 0.99).overlaps(other)]


def test_a_study_without_another_arm_has_a_figure_that_says_so():
    assert "no arm to compare" in texts(forest.differences(frame([]), 0.9))


def test_equal_rows_give_equal_bytes():
    assert render(drawn(), "a.svg") == render(drawn(), "a.svg")


def test_a_name_is_no_mathematics():
    assert {"$\\frac{$", r"a\x1b"} <= set(texts(drawn(["$\\frac{$", "a\x1b"])))
