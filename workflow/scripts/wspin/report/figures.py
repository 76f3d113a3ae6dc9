"""Draws the average score per iteration of every arm, with intervals, and what all figures have in common.

Equal rows give equal bytes: figures use neither matplotlib's global state (`pyplot`) nor the user's style. The colours
are Petroff's ten, made for colour vision deficiencies too (arXiv 2107.02270); arms differ by marker as well.
"""

import contextlib
import io
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
SPREAD = 0.5  # of the distance between two iterations, over which the arms stand side by side
REACH = 1.5  # of the arms' range: reference lines further away from them are left out
GAP = 0.055  # of the height of the axes, between two labels


def averages(rows: pd.DataFrame, confidence: float, replicates: Sequence[tuple[str, str]] = ()) -> Figure:
    """The average of every arm by iteration, in points, beside the registry's models as horizontal lines.

    `rows` as of `comparison.averages`; `confidence` is the level of their intervals. With `replicates`, (first,
    replicate) of arms or models, the means over the seeds, from the lowest to the highest seed. Lines far from all arms
    are named instead of drawn. Raises `StudyError` as `pooled_models`.
    """
    title = f"Average score by iteration, with {100 * confidence:g} % bootstrap intervals over items"
    if replicates:
        rows, seeds = pooled_averages(rows, replicates)
        title = f"Average score by iteration: mean over {seeds}, bars lowest to highest"
    in_points = rows.assign(**{key: 100 * rows[key] for key in ("average", "low", "high")})
    arms, registry = in_points[rows.iteration.notna()], in_points[rows.iteration.isna()]
    with style():
        figure = empty_figure(7.2, 4.4)
        axes = figure.add_subplot()
        _arms(axes, arms)
        left_out = _references(axes, registry, arms)
        axes.set_title(title, fontsize=10.5, pad=8 if left_out.empty else 20)
        if not left_out.empty:
            values = ", ".join(f"{row.model} {row.average:.2f}" for row in left_out.itertuples())
            axes.text(0.5, 1.02, f"too far to be drawn: {values}", transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xlabel("iteration")
        axes.set_ylabel("average of the tasks, points")
        if not arms.empty:
            _legend(figure, min(5, arms.arm.nunique()))
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
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    if columns > 1 and legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        _legend(figure, columns - 1)


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
    step = SPREAD / max(count, 5)
    by_arm = zip(arms.groupby("arm", sort=False), looks(), strict=False)
    for place, ((arm, rows), (colour, marker)) in enumerate(by_arm):
        rows = rows.sort_values("iteration", kind="stable")
        x = rows.iteration.to_numpy(int) + step * (place - (count - 1) / 2)
        low, middle, high = (rows[key].to_numpy() for key in ("low", "average", "high"))
        errors = np.maximum([middle - low, high - middle], 0.0)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5.5, "linewidth": 1, "elinewidth": 1}
        axes.errorbar(x, middle, errors, label=arm, capsize=2, **look)
    first, last = (0, 0) if arms.empty else (arms.iteration.min(), arms.iteration.max())
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1))


def _references(axes: Axes, rows: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Draw models that have no iterations as lines with a label at the right; returns those that lie too far off."""
    bounds = (rows if arms.empty else arms)[["low", "high"]].to_numpy()
    low, high = bounds.min(), bounds.max()
    reach = REACH * max(high - low, 1.0)
    is_near = rows.average.between(low - reach, high + reach)
    near = rows[is_near].sort_values("average", kind="stable")
    heights = near.average.to_numpy()
    low, high = min([low, *heights]), max([high, *heights])
    margin = 0.06 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)
    gap = GAP * (high - low + 2 * margin)
    for name, value, height in zip(near.model, heights, _apart(heights, gap), strict=True):
        axes.axhline(value, **REFERENCE, linestyle=(0, (5, 3)), zorder=0)
        axes.annotate(
            f"{name} {value:.2f}",
            (1.0, value),
            (1.03, height),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", **REFERENCE, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )
    return rows[~is_near]


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Ascending heights (n,), moved as little as possible (least squares) so that no two are closer than `gap`."""
    if not len(heights):
        return heights
    steps = gap * np.arange(len(heights))
    return isotonic_regression(heights - steps).x + steps
