"""Draws the average score per iteration of every arm, with intervals. Equal rows give equal bytes.

Figures use neither matplotlib's global state (`pyplot`) nor the user's style. The colours are Petroff's ten, made for
colour vision deficiencies too (arXiv 2107.02270); arms differ by marker as well.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from wspin.errors import StudyError

from .comparison import Average

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
REFERENCE = {"color": "black", "linewidth": 0.7}  # of lines that belong to no arm
SPREAD = 0.5  # of the distance between two iterations, over which the arms stand side by side
REACH = 1.5  # of the arms' range: reference lines further away from them are left out
GAP = 0.055  # of the height of the axes, between two labels


def averages(rows: Sequence[Average], confidence: float) -> Figure:
    """The average of every arm by iteration, in points, beside the registry's models as horizontal lines.

    `confidence` is the level of the rows' intervals. Lines far from all arms are named instead of drawn.
    """
    arms: dict[str, list[Average]] = {}
    for row in rows:
        if row.iteration:
            arms.setdefault(row.arm, []).append(row)
    with _style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _arms(axes, arms)
        left_out = _references(axes, [row for row in rows if not row.iteration], list(arms.values()))
        share = f"{100 * confidence:g} %"
        title = f"Average score by iteration, with {share} bootstrap intervals over items"
        axes.set_title(title, fontsize=10.5, pad=20 if left_out else 8)
        if left_out:
            values = ", ".join(f"{row.model} {100 * row.average:.2f}" for row in left_out)
            axes.text(0.5, 1.02, f"too far to be drawn: {values}", transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xlabel("iteration")
        axes.set_ylabel("average of the tasks, points")
        if arms:
            figure.legend(loc="outside lower center", ncols=min(5, len(arms)), frameon=False)
    return figure


def render(figure: Figure, path: str | Path) -> bytes:
    """The figure in the format that the path's suffix names. Raises `StudyError` at another suffix."""
    kind = Path(path).suffix.removeprefix(".")
    if kind not in NO_DATES:
        raise StudyError(f"{path}: expected a name that ends in .{', .'.join(NO_DATES)}, found {kind or 'no suffix'!r}")
    content = io.BytesIO()
    with _style():
        figure.savefig(content, format=kind, dpi=200, metadata=NO_DATES[kind])
    return content.getvalue()


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _arms(axes: Axes, arms: dict[str, list[Average]]) -> None:
    """Every arm as points with intervals, joined by a line; at one iteration the arms stand side by side."""
    looks = zip(cycle(matplotlib.color_sequences["petroff10"]), cycle(MARKERS), strict=False)
    step = SPREAD / max(len(arms), 5)
    for place, ((arm, rows), (colour, marker)) in enumerate(zip(arms.items(), looks, strict=False)):
        rows = sorted(rows, key=lambda row: int(row.iteration))
        x = np.array([int(row.iteration) for row in rows]) + step * (place - (len(arms) - 1) / 2)
        low, middle, high = (100 * np.array([getattr(row, key) for row in rows]) for key in ("low", "average", "high"))
        errors = np.maximum([middle - low, high - middle], 0.0)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5.5, "linewidth": 1, "elinewidth": 1}
        axes.errorbar(x, middle, errors, label=arm, capsize=2, **look)
    iterations = sorted({int(row.iteration) for rows in arms.values() for row in rows}) or [0]
    axes.set_xlim(iterations[0] - 0.5, iterations[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1))


def _references(axes: Axes, rows: Sequence[Average], arms: Sequence[Sequence[Average]]) -> list[Average]:
    """Draw models that have no iterations as lines with a label at the right; returns those that lie too far off."""
    bounds = 100 * np.array([(row.low, row.high) for arm in arms or [rows] for row in arm])
    low, high = bounds.min(), bounds.max()
    reach = REACH * max(high - low, 1.0)
    near = [row for row in rows if low - reach <= 100 * row.average <= high + reach]
    heights = np.array(sorted(100 * row.average for row in near))
    low, high = min([low, *heights]), max([high, *heights])
    margin = 0.06 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)
    gap = GAP * (high - low + 2 * margin)
    for row, height in zip(sorted(near, key=lambda row: row.average), _apart(heights, gap), strict=True):
        value = 100 * row.average
        axes.axhline(value, **REFERENCE, linestyle=(0, (5, 3)), zorder=0)
        axes.annotate(
            f"{row.model} {value:.2f}",
            (1.0, value),
            (1.03, height),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", **REFERENCE, "shrinkA": 1, "shrinkB": 0},
        )
    return [row for row in rows if row not in near]


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Ascending heights (n,), moved as little as possible (least squares) so that no two are closer than `gap`."""
    if not len(heights):
        return heights
    steps = gap * np.arange(len(heights))
    return isotonic_regression(heights - steps).x + steps
