"""Draws the average score per iteration of every arm, with intervals."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from .replicates import pooled_models
from .scores import arm_columns
from .style import REFERENCE, beside, empty_figure, fit_height, iteration_axis, legend_below, looks, styled

REACH = 1.5  # of the arms' range: reference lines further away from them are left out
HEIGHT, LINE = 1.7, 0.13  # inches: of the axes, and of a line of text
TITLE = 55  # characters in a line of the title
WIDE = 14  # characters in a line of a reference's label, at the right of the axes


def by_iteration(rows: pd.DataFrame, confidence: float, replicates: Sequence[tuple[str, str]] = ()) -> Figure:
    """The average of every arm by iteration, in points, beside the registry's models as horizontal lines.

    `rows` as of `comparison.averages`; `confidence` is the level of their intervals. With `replicates`, (first,
    replicate) of arms or models, the means over the seeds, from the lowest to the highest seed. Lines far from all arms
    are named instead of drawn. Raises `StudyError` as `pooled_models`.
    """
    title, bars = "Average score by iteration", f"{100 * confidence:g} % intervals over documents"
    if replicates:
        rows, seeds = pooled_averages(rows, replicates)
        title, bars = f"{title}, mean over {seeds}", "lowest to highest seed"
    in_points = rows.assign(**{key: 100 * rows[key] for key in ("average", "low", "high")})
    arms, registry = in_points[rows.iteration.notna()], in_points[rows.iteration.isna()]
    with styled():
        figure = empty_figure(HEIGHT)
        axes = figure.add_subplot()
        _arms(axes, arms)
        left_out, height = _references(axes, registry, arms)
        far = ", ".join(f"{row.model} {row.average:.2f}" for row in left_out.itertuples())
        lines = [title, f"bars: {bars}", *(textwrap.wrap(f"too far to be drawn: {far}", TITLE) if far else [])]
        figure.suptitle("\n".join(lines))
        axes.set_xlabel("iteration")
        axes.set_ylabel("average of the tasks, points")
        if not arms.empty:
            legend_below(figure, *axes.get_legend_handles_labels(), min(5, arms.arm.nunique()))
        fit_height(figure, axes, height)
    return figure


def pooled_averages(rows: pd.DataFrame, replicates: Sequence[tuple[str, str]]) -> tuple[pd.DataFrame, str]:
    """A row for each pooled model: the mean, lowest and highest average of its seeds; and how many these are.

    Where arms differ in that, it stands behind their names.
    """
    names = rows.model.map(pooled_models(rows.model, replicates))
    values = rows.average.groupby(names, sort=False).agg(average="mean", low="min", high="max", seeds="size")
    pooled = values.reset_index()
    places = pd.DataFrame(map(arm_columns, pooled.model), columns=["arm", "iteration"]).astype({"iteration": "Int64"})
    pooled = pooled.join(places)
    seeds = pooled.groupby("arm").seeds.transform("max")
    if seeds.nunique() == 1:
        return pooled, f"{int(seeds.max())} seeds"
    numbers = seeds.fillna(0).astype(int).map(" ({})".format)
    return pooled.assign(arm=pooled.arm + numbers.where(pooled.arm.notna(), "")), "the seeds"


def _arms(axes: Axes, arms: pd.DataFrame) -> None:
    """Every arm as points with intervals, joined by a line; at one iteration the arms stand side by side."""
    count = arms.arm.nunique()
    by_arm = zip(arms.groupby("arm", sort=False), looks(), strict=False)
    for place, ((arm, rows), (colour, marker)) in enumerate(by_arm):
        rows = rows.sort_values("iteration", kind="stable")
        x = beside(rows.iteration, place, count)
        low, middle, high = (rows[key].to_numpy() for key in ("low", "average", "high"))
        errors = np.maximum([middle - low, high - middle], 0.0)
        axes.errorbar(x, middle, errors, label=arm, color=colour, marker=marker)
    iteration_axis(axes, arms.iteration)


def _references(axes: Axes, rows: pd.DataFrame, arms: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Draw models that have no iterations as lines with a label at the right.

    Returns those that lie too far off, and the height in inches that the axes need for the labels.
    """
    bounds = (rows if arms.empty else arms)[["low", "high"]].to_numpy()
    low, high = bounds.min(), bounds.max()
    reach = REACH * max(high - low, 1.0)
    is_near = rows.average.between(low - reach, high + reach)
    near = rows[is_near].sort_values("average", kind="stable")
    heights = near.average.to_numpy()
    low, high = min([low, *heights]), max([high, *heights])
    margin = 0.06 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)
    labels = [textwrap.fill(f"{row.model} {row.average:.2f}", WIDE) for row in near.itertuples()]
    lines = np.array([label.count("\n") + 1 for label in labels])
    height = max(HEIGHT, LINE * lines.sum())
    places = _apart(heights, LINE / height * (high - low + 2 * margin) * lines, axes.get_ylim())
    for label, value, place in zip(labels, heights, places, strict=True):
        axes.axhline(value, **REFERENCE, linestyle=(0, (5, 3)), zorder=0)
        axes.annotate(
            label,
            (1.0, value),
            (1.05, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", **REFERENCE, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )
    return rows[~is_near], height


def _apart(places: np.ndarray, heights: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Ascending places (n,) of labels, moved as little as possible (least squares) to lie apart, inside the bounds."""
    if not len(places):
        return places
    steps = np.cumsum(heights) - heights / 2
    free = isotonic_regression(places - steps).x
    return np.clip(free, bounds[0], bounds[1] - heights.sum()) + steps
