"""What all figures have in common: style, colours, markers, the width of a column, empty figures, and their files.

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

from wspin.errors import StudyError

COLUMN = 3.3  # inches: a column of a paper with two
SMALL = 7.0  # points: of all letters in such a column
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",  # as the letters
    "axes.titlepad": 3.0,
    "errorbar.capsize": 1.2,
    "figure.titlesize": "medium",
    "font.size": SMALL,
    "legend.columnspacing": 1.0,
    "legend.fontsize": "medium",
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "legend.labelspacing": 0.3,
    "lines.linewidth": 0.8,
    "lines.markeredgewidth": 0.8,
    "lines.markersize": 2.5,
    "xtick.major.pad": 2.0,
    "xtick.major.size": 2.0,
    "ytick.major.pad": 2.0,
    "ytick.major.size": 2.0,
    "pdf.fonttype": 42,  # text stays text, in PDF and SVG
    "svg.fonttype": "none",
    "svg.hashsalt": "wspin",
    "text.parse_math": False,  # a `$` in a name is one
}
MARKERS = "osD^vPX<>hp"  # eleven for ten colours: more arms than that still look different
NO_DATES = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
KINDS = tuple(NO_DATES)  # of files of a figure
SPREAD = 0.75  # of the distance between two iterations, over which many arms stand side by side
STEP = 0.1  # of that distance: between two of few arms
REFERENCE = {"color": "black", "linewidth": 0.7}  # of lines that belong to no arm


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw and render with matplotlib's defaults and `STYLE`, whatever the user's settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def empty_figure(height: float, width: float = COLUMN) -> Figure:
    """A figure of so many inches, whose parts are laid out without overlap."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def looks() -> Iterator[tuple[Any, str]]:
    """A colour and a marker for one arm after the other."""
    return zip(cycle(matplotlib.color_sequences["petroff10"]), cycle(MARKERS), strict=False)


def beside(iterations: pd.Series, place: int, count: int) -> np.ndarray:
    """Abscissae (n,) of an arm's iterations: where it stands as number `place` of so many arms side by side."""
    step = min(STEP, SPREAD / max(count, 1))
    return iterations.to_numpy(int) + step * (place - (count - 1) / 2)


def iteration_axis(axes: Axes, iterations: pd.Series) -> None:
    """Name, limits and ticks of an axis of iterations, if there are none too."""
    axes.set_xlabel("iteration")
    first, last = (0, 0) if iterations.empty else (iterations.min(), iterations.max())
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1))


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int, title: str = "") -> None:
    """A legend below all axes, of at most so many columns as are not cut."""
    place: dict[str, Any] = {"loc": "outside lower center", "title": title, "title_fontsize": SMALL}
    legend = figure.legend(handles, labels, ncols=columns, **place)
    if columns > 1 and legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        legend_below(figure, handles, labels, columns - 1, title)


def fit_height(figure: Figure, axes: Axes, height: float) -> None:
    """Make the figure so high that these axes have so many inches, and the rows of a grid theirs in proportion."""
    figure.align_ylabels()
    ratios = np.array(axes.get_gridspec().get_height_ratios())
    rows = ratios.sum() / ratios[axes.get_subplotspec().rowspan.start]
    figure.set_figheight(10 * rows * height)
    figure.draw_without_rendering()
    figure.set_figheight(rows * (11 * height - axes.bbox.height / figure.dpi))


def rendered(figure: Figure, paths: Sequence[str]) -> dict[str, bytes]:
    """The figure in the format of every path's suffix, by path. Raises `StudyError` as `render`."""
    return {path: render(figure, path) for path in paths}


def render(figure: Figure, path: str | Path) -> bytes:
    """The figure in the format that the path's suffix names. Raises `StudyError` at another suffix."""
    kind = Path(path).suffix.removeprefix(".")
    if kind not in NO_DATES:
        raise StudyError(f"{path}: expected a name that ends in .{', .'.join(NO_DATES)}, found {kind or 'no suffix'!r}")
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format=kind, dpi=200, metadata=NO_DATES[kind])
    return content.getvalue()
