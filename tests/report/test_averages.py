"""The figure of averages by iteration."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from attacks import attack
from matplotlib.text import Text
from score_files import average_frame, averages_of, tuples

from wspin.errors import StudyError
from wspin.report import comparison
from wspin.report.averages import by_iteration
from wspin.report.comparison import Average
from wspin.report.reproduction import read_published_means
from wspin.report.style import render
from wspin.report.tables import in_points

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


def svg(rows, confidence=0.95):
    return render(by_iteration(rows, confidence), "a.svg").decode()


@pytest.mark.parametrize("count", [1, 2, 9, 10])
@pytest.mark.parametrize("iterations", [1, 4])
def test_every_arm_is_named_and_looks_like_no_other(count, iterations):
    figure = by_iteration(averages_of(ARMS[:count], iterations), 0.95)
    texts = TEXT.findall(render(figure, "a.svg").decode())
    assert [arm for arm in ARMS[:count] if texts.count(arm) != 1] == []
    (axes,) = figure.axes
    lines = [container.lines[0] for container in axes.containers]
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == count
    assert {str(k) for k in range(iterations)} <= set(texts)


def test_many_arms_look_different_too():
    (axes,) = by_iteration(averages_of([f"arm{i}" for i in range(30)]), 0.95).axes
    lines = [container.lines[0] for container in axes.containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 30


def test_points_intervals_and_iterations_are_the_rows():
    rows = averages_of(["spin", "late"])
    (axes,) = by_iteration(rows, 0.95).axes
    for arm, container in zip(("spin", "late"), axes.containers, strict=True):
        mine = [row for row in tuples(rows) if row.arm == arm]
        line, _, (bars,) = container.lines
        assert line.get_ydata() == pytest.approx([100 * row.average for row in mine])
        assert np.rint(line.get_xdata()).tolist() == [int(row.iteration) for row in mine]
        assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
            pytest.approx([100 * row.low, 100 * row.high]) for row in mine
        ]


def test_arms_with_equal_scores_stay_apart():
    rows = [(f"{arm}/ite{k}", arm, k, 0.5, 0.45, 0.55) for arm in ARMS for k in range(2)]
    (axes,) = by_iteration(average_frame(rows), 0.95).axes
    x = np.array([container.lines[0].get_xdata() for container in axes.containers])
    assert np.diff(x[:, 0]).min() > 0.03
    assert np.abs(x - [0, 1]).max() < 0.4  # no arm nearer to another iteration


def test_the_figure_says_what_it_shows():
    texts = TEXT.findall(svg(averages_of(ARMS[:2]), confidence=0.9))
    assert {"Average score by iteration", "bars: 90 % intervals over documents"} <= set(texts)
    assert {"iteration", "average of the tasks, points", "sft 40.00"} <= set(texts)


def test_models_far_from_the_arms_are_named_not_drawn():
    far = [("base", None, None, 0.0625, 0.06, 0.07), ("teacher", None, None, 0.8, 0.7, 0.9)]
    rows = average_frame([*tuples(averages_of(ARMS[:2], registry=("sft", "dpo"))), *far])
    (axes,) = by_iteration(rows, 0.95).axes
    texts = TEXT.findall(svg(rows))
    assert "too far to be drawn: base 6.25, teacher 80.00" in texts
    assert {"sft 40.00", "dpo 40.40"} <= set(texts)
    assert 35 < axes.get_ylim()[0] < 40 < 43.6 < axes.get_ylim()[1] < 50
    assert not any("too far" in text for text in TEXT.findall(svg(averages_of(ARMS[:2]))))


def test_points_are_rounded_as_in_tables():
    """0.58125 times 100 has a last bit too many: 58.13 stood here, and 58.12 in the table."""
    far = [("base", None, None, 0.58125, 0.5, 0.6)]
    texts = TEXT.findall(svg(average_frame([*tuples(averages_of(ARMS[:2])), *far])))
    assert f"too far to be drawn: base {in_points(0.58125, math.nan)}" in texts


def test_labels_of_near_lines_do_not_overlap():
    rows = averages_of(["spin"], registry=("a", "b", "c", "d"))
    rows.loc[rows.arm.isna(), "average"] = 0.41
    figure = by_iteration(rows, 0.95)
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(above.y0 >= below.y1 for below, above in pairwise(boxes))
    leaders = [text.arrow_patch.get_window_extent() for text in figure.axes[0].texts]
    assert all(leader.x1 < box.x0 for leader in leaders for box in boxes)  # crosses none


def test_a_figure_without_arms_is_drawn():
    assert {"sft 40.00", "base 40.40"} <= set(TEXT.findall(svg(averages_of([], registry=("sft", "base")))))


REPLICATES = [("spin", "spin.s43"), ("spin", "spin.s44"), ("kd", "kd.s43")]


def seeds_of_spin():
    """Three seeds of spin and one of late, at two iterations, and registry models of which one has two seeds."""
    values = {"spin": (0.40, 0.44), "spin.s43": (0.42, 0.45), "spin.s44": (0.47, 0.49), "late": (0.43, 0.41)}
    rows = [(f"{arm}/ite{k}", arm, k, *[value] * 3) for arm, of_arm in values.items() for k, value in enumerate(of_arm)]
    registry = {"kd": 0.40, "kd.s43": 0.44, "sft": 0.41}
    return average_frame([*((model, None, None, value, 0.0, 1.0) for model, value in registry.items()), *rows])


def test_replicates_are_a_line_from_the_lowest_to_the_highest_seed():
    figure = by_iteration(seeds_of_spin(), 0.95, REPLICATES)
    (axes,) = figure.axes
    spin, late = axes.containers
    line, _, (bars,) = spin.lines
    assert line.get_ydata() == pytest.approx([43.0, 46.0])
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([40.0, 47.0]),
        pytest.approx([44.0, 49.0]),
    ]
    assert late.lines[0].get_ydata() == pytest.approx([43.0, 41.0])
    texts = TEXT.findall(render(figure, "a.svg").decode())
    assert {"spin (3)", "late (1)", "kd 42.00", "sft 41.00"} <= set(texts)
    assert {"Average score by iteration, mean over the seeds", "bars: lowest to highest seed"} <= set(texts)


def test_the_number_of_seeds_is_in_the_title_where_it_is_the_same():
    rows = seeds_of_spin()
    texts = TEXT.findall(render(by_iteration(rows[rows.arm != "late"], 0.95, REPLICATES), "a.svg").decode())
    assert "Average score by iteration, mean over 3 seeds" in texts
    assert "spin" in texts


def test_a_replicate_without_a_row_is_refused():
    with pytest.raises(StudyError, match=r"--replicates: expected arms or models of the table, found 'spin\.s45'"):
        by_iteration(seeds_of_spin(), 0.95, [("spin", "spin.s45")])


@pytest.mark.parametrize(
    ("count", "length", "pooled", "registry"),
    [
        (1, 3, False, ("r" * 24, "sft")),
        (8, 24, True, ("r" * 24, "sft")),
        (12, 14, False, ("sft", "dpo", "kd", "sft.epochs6")),
        (30, 14, False, ("base", "teacher", *(f"far{i}" for i in range(12)))),
        (4, 5, False, [f"near{i}" for i in range(16)]),
    ],
)
def test_nothing_overlaps_in_a_column_of_a_paper(count, length, pooled, registry):
    arms = [f"{i:x<{length}}" for i in range(count)]
    rows = averages_of(arms, registry=registry)
    if len(registry) > 4:
        rows.loc[rows.arm.isna(), "average"] = [0.01 if "near" not in name else 0.41 for name in registry]
    figure = by_iteration(rows, 0.95, [registry] if pooled else [], differences_of(arms[1:], arms[0]))
    assert figure.get_figwidth() == 3.3
    figure.draw_without_rendering()
    axes, (legend,) = figure.axes[0], figure.legends
    references = [Text.get_window_extent(text) for text in axes.texts]
    boxes = [
        legend.get_window_extent(),
        *(axes.get_tightbbox() for axes in figure.axes),
        figure.texts[0].get_window_extent(),
    ]
    page = figure.bbox
    assert all(box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1 for box in boxes)
    for group in (boxes, references):
        assert not [1 for i, box in enumerate(group) for other in group[:i] if box.shrunk(0.99, 0.97).overlaps(other)]
    assert axes.bbox.height > 1.4 * figure.dpi and axes.bbox.width > 0.45 * page.width
    letters = [*axes.texts, *legend.get_texts(), *figure.texts, *axes.get_xticklabels(), axes.xaxis.label]
    assert {text.get_fontsize() for text in letters} == {7.0}


def differences_of(arms, baseline="spin", iterations=4):
    """Rows of a table of differences to the baseline."""
    rows = [
        (f"{arm}/ite{k}", f"{baseline}/ite{k}", task, 0.01 * k + 0.002 * place, 0.01 * k - 0.005, 0.01 * k + 0.02)
        for place, arm in enumerate(arms)
        for k in range(iterations)
        for task in ("arc", "average")
    ]
    return pd.DataFrame(rows, columns=comparison.Difference._fields)


def test_paired_differences_stand_below_their_arms(tmp_path):
    path = tmp_path / "differences.csv"
    differences_of(["wspin", "late"]).assign(n=7).to_csv(path, index=False)
    differences = comparison.read_average_differences(path)
    assert set(differences.task) == {"average"}
    figure = by_iteration(averages_of(["spin", "wspin", "late"]), 0.95, differences=differences)
    above, below = figure.axes
    assert above.get_shared_x_axes().joined(above, below)
    drawn = dict(zip(("wspin", "late"), below.containers, strict=True))
    of_arm = {container.get_label(): container for container in above.containers}
    for arm, container in drawn.items():
        line, _, (bars,) = container.lines
        assert line.get_color() == of_arm[arm].lines[0].get_color()
        assert line.get_marker() == of_arm[arm].lines[0].get_marker()
        assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
            pytest.approx([k - 0.5, k + 2.0]) for k in range(4)
        ]
    assert drawn["wspin"].lines[0].get_xdata() == pytest.approx(of_arm["wspin"].lines[0].get_xdata())
    assert drawn["late"].lines[0].get_ydata() == pytest.approx([0.2, 1.2, 2.2, 3.2])
    assert "minus spin" in TEXT.findall(render(figure, "a.svg").decode())


def test_differences_of_seeds_are_their_mean_lowest_and_highest():
    seeds = [differences_of([arm], baseline, 2) for arm, baseline in (("late", "spin"), ("late.s43", "spin.s43"))]
    seeds[1]["difference"] += 0.02
    rows = pd.concat(seeds)
    averages = averages_of(["spin", "spin.s43", "spin.s44", "late", "late.s43"], 2, ("kd", "kd.s43"))
    figure = by_iteration(averages, 0.95, [*REPLICATES, ("late", "late.s43")], rows[rows.task == "average"])
    (container,) = figure.axes[1].containers
    line, _, (bars,) = container.lines
    assert line.get_ydata() == pytest.approx([1.0, 2.0])
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([0.0, 2.0]),
        pytest.approx([1.0, 3.0]),
    ]


def test_a_study_with_nothing_to_compare_has_no_lower_panel(tmp_path):
    path = tmp_path / "differences.csv"
    path.write_text("model,baseline,task,difference,low,high,n\n")
    figure = by_iteration(averages_of(["spin"]), 0.95, differences=comparison.read_average_differences(path))
    assert len(figure.axes) == 1


def published_of(tmp_path, *rows):
    header = "model,source,task,published,ours"
    (tmp_path / "p.csv").write_text("\n".join([header, *rows, ""]))
    return read_published_means(tmp_path / "p.csv")


def test_published_averages_of_the_same_tasks_are_hollow_grey_marks(tmp_path):
    """Those of other tasks, or of single ones, are not drawn; those far away are named."""
    rows = averages_of(["spin", "wspin"])
    ours = {row.model: row.average for row in rows.itertuples()}
    cells = ["spin/ite3,P,mean of six,0.43,{}", "spin/ite2,P,arc_challenge,0.43,{}", "wspin/ite3,P,mean of six,0.9,{}"]
    lines = [cell.format(ours[cell.split(",")[0]]) for cell in cells] + ["spin/ite1,P,mean of six,0.43,0.40"]
    figure = by_iteration(rows, 0.95, published=published_of(tmp_path, *lines, "sft,P,mean of six,0.4,0.4"))
    (axes,) = figure.axes
    (mark,) = [line for line in axes.lines if line.get_label() == "published"]
    spin = axes.containers[0].lines[0]
    assert (mark.get_xdata().tolist(), mark.get_ydata().tolist()) == ([spin.get_xdata()[3]], [43.0])
    assert (mark.get_markerfacecolor(), mark.get_color(), mark.get_linestyle()) == ("none", "0.4", "None")
    texts = TEXT.findall(render(figure, "a.svg").decode())
    assert {"published", "too far to be drawn: wspin/ite3 (published) 90.00"} <= set(texts)


def test_without_comparable_published_numbers_nothing_changes(tmp_path):
    rows = averages_of(ARMS[:2])
    published = published_of(tmp_path, "spin/ite3,P,mean of six,0.43,0.40", "sft,P,mean of six,0.4,0.4")
    assert render(by_iteration(rows, 0.95, published=published), "a.svg") == render(by_iteration(rows, 0.95), "a.svg")


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_equal_rows_give_equal_bytes_whatever_the_users_style(kind, monkeypatch):
    first = render(by_iteration(averages_of(ARMS), 0.95), f"a.{kind}")
    monkeypatch.setitem(matplotlib.rcParams, "axes.linewidth", 9.0)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    before = dict(matplotlib.rcParams)
    assert render(by_iteration(averages_of(ARMS), 0.95), f"a.{kind}") == first
    assert dict(matplotlib.rcParams) == before
    assert first.startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])


@attack("display", "`$` and codes in the name of a model in the table of averages", "drawn as they are, no mathematics")
def test_a_name_is_no_mathematics(tmp_path):
    rows = [f'"{name}","{name}",0,0.5,0.4,0.6' for name in ("$\\frac{$", "a\x1b[2J\u202e<script>")]
    (tmp_path / "a.csv").write_text("\n".join([",".join(Average._fields), *rows, ""]))
    drawn = render(by_iteration(comparison.read_averages(tmp_path / "a.csv"), 0.9), "a.svg").decode()
    texts = [text.text for text in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"$\\frac{$", r"a\x1b[2J\u202e<script>"} <= set(texts)
