"""Draws the pooled differences to the baseline, a row per arm, in the width of one column of a paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from wspin.escaping import escaped

from .scores import AVERAGE, arm_columns
from .style import REFERENCE, empty_figure, legend_below, styled

ROW, MARGIN = 0.16, 0.5  # inches: of a row, and of what stands above and below the rows of a panel
LONG, WIDE = 18, 21  # characters of a row's name and of a title that leave room for two panels side by side
REACH = 3.0  # a row is too far to be drawn if it lies so many times beyond what half of the rows reach
INNER: dict[str, Any] = {"color": "#3f90da", "linewidth": 3.5}
OUTER: dict[str, Any] = {"color": "black", "linewidth": 0.8}
POINT: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 3, "linestyle": "none"}
FAR: dict[str, Any] = {"color": "black", "markersize": 3, "linestyle": "none", "clip_on": False}
BACKGROUND: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
BEYOND: dict[str, Any] = {"marker": ">", "label": "too far to be drawn"}


def last_differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of `pooling.pool`: the differences of every arm's last iteration, and of models without any."""
    differences = rows[rows.baseline.notna()]
    last = differences.groupby("arm").iteration.transform("max")
    return differences[differences.arm.isna() | (differences.iteration == last)]


def differences(rows: pd.DataFrame, confidence: float) -> Figure:
    """The last differences in the rows of `pooling.pool`: a panel for the average and one for each task, arms as rows.

    Thick: the interval over documents. Thin: that over documents and seeds, which a row with one seed has not. With a
    single task there is no panel for the average, which would be the same. A row that would squeeze the others is an
    arrow at the panel's edge, with its number.
    """
    rows = last_differences(rows)
    tasks = [task for task in dict.fromkeys(rows.task) if task != AVERAGE]
    panels = tasks if len(tasks) < 2 else [AVERAGE, *tasks]
    labels = row_labels(rows)
    is_narrow = max(map(len, labels.values()), default=0) <= LONG and max(map(len, tasks), default=0) <= WIDE
    columns = 2 if len(panels) > 1 and is_narrow else 1
    lines = [[task] * columns for task in panels[:1]]
    lines += [[*panels[i : i + columns], "."][:columns] for i in range(1, len(panels), columns)]
    with styled():
        height = len(lines) * (MARGIN + ROW * len(labels)) + 0.4
        figure = empty_figure(max(height, 1.0))
        if not panels:
            figure.text(0.5, 0.5, "no arm to compare", ha="center", va="center")
            return figure
        far = False
        for task, axes in figure.subplot_mosaic(lines).items():
            far |= _panel(axes, rows[rows.task == task].set_index("model"), labels)
            axes.set_title(escaped(task))
        keys = [*_keys(rows, f"{100 * confidence:g} %"), *([Line2D([], [], **FAR, **BEYOND)] if far else [])]
        title = f"model minus {_baseline(rows)}, points\nintervals not adjusted for the number of rows"
        legend_below(figure, keys, [key.get_label() for key in keys], columns=2, title=title)
    return figure


def row_labels(rows: pd.DataFrame) -> dict[str, str]:
    """Model -> how its row is called: by its arm, and its iteration if this is not the last one of all arms.

    The number of seeds stands behind the names if it differs between rows.
    """
    latest, several = rows.iteration.max(), rows.seeds.nunique() > 1
    labels = {}
    for row in rows.drop_duplicates("model").itertuples():
        name = row.arm if pd.notna(row.iteration) and row.iteration == latest else row.model
        labels[row.model] = escaped(name) + (f" ({row.seeds})" if several else "")
    return labels


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> bool:
    """Draws the rows of a task; returns whether any was too far to be drawn."""
    values = 100 * rows.reindex(list(labels))[["mean", "low", "high", "item_low", "item_high"]]
    values["place"] = np.arange(len(values))
    far = is_far(values)
    near = values[~far]
    axes.axvline(0.0, **REFERENCE, zorder=0)
    axes.hlines(near.place, near.item_low, near.item_high, **INNER)
    axes.hlines(near.place, near.low, near.high, **OUTER)
    axes.plot(near["mean"], near.place, **POINT)
    _arrows(axes, values[far])
    axes.set_yticks(
        values.place, list(labels.values()) if axes.get_subplotspec().is_first_col() else [""] * len(values)
    )
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params("y", length=0)
    axes.spines["left"].set_visible(False)
    return bool(far.any())


def is_far(values: pd.DataFrame) -> pd.Series:
    """Which rows, in points, have a mean `REACH` times as far from 0 as the half of the rows that lie next to it reach.

    That is the median of their intervals' farther ends, at least one point.
    """
    ends = values[["low", "high", "item_low", "item_high"]].abs().max(axis=1)
    return values["mean"].abs() > REACH * max(ends.median(), 1.0)


def _arrows(axes: Axes, far: pd.DataFrame) -> None:
    """An arrow at the edge that each of these rows lies beyond, and the row's mean beside it."""
    across = axes.get_yaxis_transform()
    text = {"textcoords": "offset points", "va": "center", "bbox": BACKGROUND}
    for row in far.itertuples():
        edge, marker, inwards, side = (0.98, ">", -4, "right") if row.mean > 0 else (0.02, "<", 4, "left")
        axes.plot([edge], [row.place], marker=marker, transform=across, **FAR)
        axes.annotate(f"{row.mean:+.2f}", (edge, row.place), (inwards, 0), xycoords=across, ha=side, **text)


def _baseline(rows: pd.DataFrame) -> str:
    """The model that all rows are compared with; with several, their arms, and those without iterations."""
    names = list(dict.fromkeys(rows.baseline))
    arms = dict.fromkeys(arm_columns(name)[0] or name for name in names)
    return escaped(", ".join(names if len(names) == 1 else arms))


def _keys(rows: pd.DataFrame, share: str) -> Sequence[Line2D]:
    """What the two intervals are, without the second where no row has it."""
    counts = sorted(set(rows.seeds) - {1})
    seeds = f"{counts[0]} seeds" if len(counts) == 1 and rows.seeds.nunique() == 1 else "seeds"
    inner = Line2D([], [], **INNER, solid_capstyle="butt", label=f"{share}, documents")
    return [inner, Line2D([], [], **OUTER, label=f"documents and {seeds}")][: 2 if counts else 1]
