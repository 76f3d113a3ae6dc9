"""Draws the average score per iteration of every arm, with intervals, and what all figures have in common.

Equal rows give equal bytes: figures use neither matplotlib's global state (`pyplot`) nor the user's style. The colours
are Petroff's ten, made for colour vision deficiencies too (arXiv 2107.02270); arms differ by marker as well.
"""

import contextlib
import io
import textwrap
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from wspin.errors import StudyError

from .replicates import pooled_models
from .scores import arm_columns

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.0,
    "pdf.fonttype": 42,  # text stays text, in PDF and SVG
    "svg.fonttype": "none",
    "svg.hashsalt": "wspin",
    "text.parse_math": False,  # a `$` in a name is one
}
MARKERS = "osD^vPX<>hp"  # eleven for ten colours: more arms than that still look different
NO_DATES = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
COLUMN = 3.3  # inches: a column of a paper with two
SMALL = 7.0  # points: of the letters in such a column
REFERENCE = {"color": "black", "linewidth": 0.7}  # of lines that belong to no arm
SPREAD = 0.75  # of the distance between two iterations, over which many arms stand side by side
STEP = 0.1  # of that distance: between two of few arms
REACH = 1.5  # of the arms' range: reference lines further away from them are left out
HEIGHT, LINE = 1.7, 0.13  # inches: of the axes, and of a line of text
TITLE = 55  # characters in a line of the title
WIDE = 14  # characters in a line of a reference's label, at the right of the axes


def averages(rows: pd.DataFrame, confidence: float, replicates: Sequence[tuple[str, str]] = ()) -> Figure:
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
    with style():
        figure = empty_figure(COLUMN, HEIGHT)
        axes = figure.add_subplot()
        _arms(axes, arms)
        left_out, height = _references(axes, registry, arms)
        far = ", ".join(f"{row.model} {row.average:.2f}" for row in left_out.itertuples())
        lines = [title, f"bars: {bars}", *(textwrap.wrap(f"too far to be drawn: {far}", TITLE) if far else [])]
        figure.suptitle("\n".join(lines), fontsize=SMALL)
        axes.set_xlabel("iteration", fontsize=SMALL)
        axes.set_ylabel("average of the tasks, points", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL, length=2, pad=2)
        if not arms.empty:
            _legend(figure, min(5, arms.arm.nunique()))
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


def _legend(figure: Figure, columns: int) -> None:
    """A legend below the axes, of at most so many columns as are not cut."""
    spaces = {"handlelength": 1.5, "columnspacing": 1, "labelspacing": 0.3}
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL, **spaces)
    if columns > 1 and legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        _legend(figure, columns - 1)


def fit_height(figure: Figure, axes: Axes, height: float) -> None:
    """Make the figure as high as leaves these axes so many inches beside all that is laid out around them."""
    figure.set_figheight(10 * height)
    figure.draw_without_rendering()
    figure.set_figheight(11 * height - axes.bbox.height / figure.dpi)


def render(figure: Figure, path: str | Path) -> bytes:
    """The figure in the format that the path's suffix names. Raises `StudyError` at another suffix."""
    kind = Path(path).suffix.removeprefix(".")
    if kind not in NO_DATES:
        raise StudyError(f"{path}: expected a name that ends in .{', .'.join(NO_DATES)}, found {kind or 'no suffix'!r}")
    content = io.BytesIO()
    with style():
        figure.savefig(content, format=kind, dpi=200, metadata=NO_DATES[kind])
    return content.getvalue()


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and render with matplotlib's defaults and `STYLE`, whatever the user's settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def empty_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, whose parts are laid out without overlap."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def looks() -> Iterator[tuple[Any, str]]:
    """A colour and a marker for one arm after the other."""
    return zip(cycle(matplotlib.color_sequences["petroff10"]), cycle(MARKERS), strict=False)


def _arms(axes: Axes, arms: pd.DataFrame) -> None:
    """Every arm as points with intervals, joined by a line; at one iteration the arms stand side by side."""
    count = arms.arm.nunique()
    step = min(STEP, SPREAD / max(count, 1))
    by_arm = zip(arms.groupby("arm", sort=False), looks(), strict=False)
    for place, ((arm, rows), (colour, marker)) in enumerate(by_arm):
        rows = rows.sort_values("iteration", kind="stable")
        x = rows.iteration.to_numpy(int) + step * (place - (count - 1) / 2)
        low, middle, high = (rows[key].to_numpy() for key in ("low", "average", "high"))
        errors = np.maximum([middle - low, high - middle], 0.0)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 2.5, "linewidth": 0.8}
        axes.errorbar(x, middle, errors, label=arm, capsize=1.2, capthick=0.8, elinewidth=0.8, **look)
    first, last = (0, 0) if arms.empty else (arms.iteration.min(), arms.iteration.max())
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1))


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
            fontsize=SMALL,
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
