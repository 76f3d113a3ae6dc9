"""Draws the average score per iteration of every arm, with intervals, and the paired differences to the baseline."""

import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from .replicates import Pairs, methods, pooled_models
from .scores import arm_columns
from .style import REFERENCE, beside, empty_figure, fit_height, iteration_axis, legend_below, looks, styled

REACH = 1.5  # of the arms' range: reference lines further away from them are left out
HEIGHT, LINE = 1.7, 0.13  # inches: of the axes, and of a line of text
LOWER = 0.75  # inches: of the axes of differences
TITLE = 55  # characters in a line of the title
WIDE = 14  # characters in a line of a reference's label, at the right of the axes
HOLLOW = {"marker": "o", "markersize": 4.5, "markerfacecolor": "none", "linestyle": "none"}
PUBLISHED: dict[str, Any] = {**HOLLOW, "color": "0.4", "zorder": 3}
Labels = dict[str, str]  # of the arms in the legend, in order
SAME = 1e-6  # two averages of a model that differ by less are of the same tasks


def by_iteration(
    rows: pd.DataFrame,
    confidence: float,
    replicates: Pairs = (),
    differences: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
) -> Figure:
    """The average of every arm by iteration, in points, beside the registry's models as horizontal lines.

    `rows` as of `comparison.averages`; `confidence` is the level of their intervals. With `replicates`, (first,
    replicate) of arms or models, the means over the seeds, from the lowest to the highest seed. Lines far from all arms
    are named instead of drawn. Below, the paired `differences` of averages, of `read_average_differences`. `published`,
    of `read_published_means`, are drawn beside arms whose average is of the same tasks. Raises `StudyError` as
    `pooled_models`.
    """
    pairs = list(replicates)
    marks = _published_marks(rows, published, methods(rows.model, pairs))
    lines = ["Average score by iteration", f"bars: {100 * confidence:g} % intervals over documents"]
    labels = {arm: arm for arm in rows.arm.dropna()}
    if pairs:
        rows, labels, seeds = pooled_averages(rows, pairs)
        lines = [f"{lines[0]}, mean over {seeds}", "bars: lowest to highest seed"]
    in_points = _points(rows)
    arms, registry = in_points[rows.iteration.notna()], in_points[rows.iteration.isna()]
    below = _differences(differences, pairs)
    with styled():
        figure = empty_figure(HEIGHT)
        panels = figure.subplots(1 if below.empty else 2, 1, sharex=True, squeeze=False)[:, 0]
        _panel(panels[0], arms, labels)
        far, height = _references(panels[0], registry, arms, marks, labels)
        lines += textwrap.wrap(f"too far to be drawn: {', '.join(far)}", TITLE) if far else []
        figure.suptitle("\n".join(lines))
        if not below.empty:
            _difference_panel(panels[1], below, labels)
            panels[0].get_gridspec().set_height_ratios([height, LOWER])
        iteration_axis(panels[-1], arms.iteration)
        _legend(figure, panels[0])
        fit_height(figure, panels[0], height)
    return figure


def pooled_averages(rows: pd.DataFrame, replicates: Pairs) -> tuple[pd.DataFrame, dict[str, str], str]:
    """A row for each pooled model: the mean, lowest and highest average of its seeds; labels of arms; how many seeds.

    Where arms differ in that, it stands behind their names in the labels.
    """
    names = rows.model.map(pooled_models(rows.model, replicates))
    values = rows.average.groupby(names, sort=False).agg(average="mean", low="min", high="max", seeds="size")
    pooled = _with_places(values.reset_index())
    seeds = pooled.groupby("arm", sort=False).seeds.max()
    if seeds.nunique() == 1:
        return pooled, {arm: arm for arm in seeds.index}, f"{int(seeds.max())} seeds"
    return pooled, {arm: f"{arm} ({count})" for arm, count in seeds.items()}, "the seeds"


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in points: 58.125 is that, whatever its last bit, as in tables."""
    return rows.assign(**{key: (100 * rows[key]).round(8) for key in ("average", "low", "high")})


def _with_places(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of models with their arm and iteration."""
    places = pd.DataFrame(map(arm_columns, rows.model), columns=["arm", "iteration"], index=rows.index)
    return rows.join(places.astype({"iteration": "Int64"}))


def _differences(rows: pd.DataFrame | None, replicates: Pairs) -> pd.DataFrame:
    """Paired differences in points by arm and iteration, of seeds as of averages; `of`: the baseline arm."""
    if rows is None or rows.empty:
        return pd.DataFrame()
    arms = methods([*rows.model, *rows.baseline], replicates)
    placed = _with_places(rows.rename(columns={"difference": "average"}))
    placed = placed.assign(arm=placed.model.map(arms), of=placed.baseline.map(arms))
    if replicates:
        seeds = placed.groupby(["arm", "iteration", "of"], sort=False).average
        placed = seeds.agg(average="mean", low="min", high="max").reset_index()
    return _points(placed)


def _published_marks(rows: pd.DataFrame, published: pd.DataFrame | None, arms: dict[str, str]) -> pd.DataFrame:
    """Published averages in points by arm and iteration, beside ours of the same tasks; `arms`: by model."""
    if published is None or published.empty:
        return pd.DataFrame({"arm": [], "iteration": [], "average": []})
    beside_ours = published.merge(rows[rows.arm.notna()], on="model")
    same = beside_ours[np.isclose(beside_ours.ours, beside_ours.average, rtol=0.0, atol=SAME)]
    return same.assign(arm=same.model.map(arms), average=100 * same.published)


def _each_arm(rows: pd.DataFrame, labels: Labels) -> Iterator[tuple[str, pd.DataFrame, np.ndarray, tuple[Any, str]]]:
    """(label, rows in order, their abscissae, look) of every arm that has rows."""
    for place, ((arm, label), look) in enumerate(zip(labels.items(), looks(), strict=False)):
        of_arm = rows[rows.arm == arm].sort_values("iteration", kind="stable")
        if len(of_arm):
            yield label, of_arm, beside(of_arm.iteration, place, len(labels)), look


def _panel(axes: Axes, rows: pd.DataFrame, labels: Labels) -> None:
    """Every arm as points with intervals, joined by a line; at one iteration the arms stand side by side."""
    for label, of_arm, x, (colour, marker) in _each_arm(rows, labels):
        low, middle, high = (of_arm[key].to_numpy() for key in ("low", "average", "high"))
        errors = np.maximum([middle - low, high - middle], 0.0)
        axes.errorbar(x, middle, errors, label=label, color=colour, marker=marker)


def _legend(figure: Figure, axes: Axes) -> None:
    """The arms of these axes, if there are any, and behind them published averages."""
    keys = list(zip(*axes.get_legend_handles_labels(), strict=True))
    keys.sort(key=lambda key: isinstance(key[0], Line2D))
    if keys:
        legend_below(figure, *zip(*keys, strict=True), columns=min(5, len(keys)))


def _difference_panel(axes: Axes, rows: pd.DataFrame, labels: Labels) -> None:
    axes.axhline(0.0, **REFERENCE, zorder=0)
    _panel(axes, rows, labels)
    axes.set_ylabel(textwrap.fill(f"minus {', '.join(dict.fromkeys(rows.of))}", WIDE))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _references(
    axes: Axes, rows: pd.DataFrame, arms: pd.DataFrame, marks: pd.DataFrame, labels: Labels
) -> tuple[list[str], float]:
    """Draw models that have no iterations as lines with a label at the right, and published averages as marks.

    Returns names and values of those that lie too far off, and the height in inches that the axes need for the labels.
    """
    axes.set_ylabel("average of the tasks, points")
    bounds = (rows if arms.empty else arms)[["low", "high"]].to_numpy()
    low, high = bounds.min(), bounds.max()
    reach = REACH * max(high - low, 1.0)
    is_near, is_drawn = (values.average.between(low - reach, high + reach) for values in (rows, marks))
    for number, (_, of_arm, x, _) in enumerate(_each_arm(marks[is_drawn], labels)):
        axes.plot(x, of_arm.average, label="published" if not number else None, **PUBLISHED)
    far = [f"{row.model} {row.average:.2f}" for row in rows[~is_near].itertuples()]
    far += [f"{row.model} (published) {row.average:.2f}" for row in marks[~is_drawn].itertuples()]
    heights = [*rows[is_near].average, *marks[is_drawn].average]
    low, high = min([low, *heights]), max([high, *heights])
    margin = 0.06 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)
    return far, _labels(axes, rows[is_near].sort_values("average", kind="stable"))


def _labels(axes: Axes, rows: pd.DataFrame) -> float:
    """A line with a label for each of these models, from below; returns the height that the labels need, in inches."""
    texts = [textwrap.fill(f"{row.model} {row.average:.2f}", WIDE) for row in rows.itertuples()]
    lines, (low, high) = np.array([text.count("\n") + 1 for text in texts]), axes.get_ylim()
    height = max(HEIGHT, LINE * lines.sum())
    places = _apart(rows.average.to_numpy(), LINE / height * (high - low) * lines, (low, high))
    for text, value, place in zip(texts, rows.average, places, strict=True):
        axes.axhline(value, **REFERENCE, linestyle=(0, (5, 3)), zorder=0)
        axes.annotate(
            text,
            (1.0, value),
            (1.05, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", **REFERENCE, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )
    return height


def _apart(places: np.ndarray, heights: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Ascending places (n,) of labels, moved as little as possible (least squares) to lie apart, inside the bounds."""
    if not len(places):
        return places
    steps = np.cumsum(heights) - heights / 2
    free = isotonic_regression(places - steps).x
    return np.clip(free, bounds[0], bounds[1] - heights.sum()) + steps
