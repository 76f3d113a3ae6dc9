"""Counts the lengths of answers, and draws their quantiles by arm and iteration beside those of the real answers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from wspin.escaping import escaped
from wspin.iteration import Iteration
from wspin.storage import tables

from .style import REFERENCE, beside, empty_figure, fit_height, iteration_axis, legend_below, looks, styled

COLUMNS = ("arm", "iteration", "answers", "cut", "q05", "q25", "median", "q75", "q95")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
HEIGHTS = (1.5, 0.5)  # inches: of the panels of lengths and of shares
HALF, TAILS = 2.0, 0.7  # points: lines from 25 to 75 %, and from 5 to 95 %
EDGE: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.3}
REAL: dict[str, Any] = {"color": "0.85", "linewidth": 0}

Lengths = Counter[tuple[int, bool]]  # (tokens, whether it was cut) -> answers


def length_quantiles(generations: Mapping[str, Sequence[str]], arms: Mapping[str, str]) -> pd.DataFrame:
    """A row per arm and iteration, by `COLUMNS`: answers, the share cut, and quantiles of their tokens, EOS included.

    `generations`: iteration -> the files of its shards, read one after the other; `arms`: iteration -> the arm under
    whose name it is drawn, answers of several as one. Raises `StudyError` if a file is missing.
    """
    read, counts = cache(_generated), {}
    for name, paths in generations.items():
        counts.setdefault((arms[name], Iteration.parse(name).k), Counter()).update(sum(map(read, paths), Counter()))
    return pd.DataFrame([(*key, *_row(lengths)) for key, lengths in counts.items()], columns=COLUMNS)


def real_quantiles(references: Iterable[str]) -> pd.Series:
    """The same of the real answers, in the student's tokens, from the shards of a reference; none is cut."""
    lengths: Lengths = Counter()
    for path in references:
        table = tables.read_reference(path)
        lengths.update((len(ids), False) for ids in tables.row_arrays(table, "chosen_token_ids"))
    return pd.Series(_row(lengths), index=COLUMNS[2:])


def _generated(path: str) -> Lengths:
    table = tables.read(path, "generations")
    tokens = map(len, tables.row_arrays(table, "token_ids"))
    return Counter(zip(tokens, (reason == "length" for reason in table["finish_reason"].to_pylist()), strict=True))


def _row(counts: Lengths) -> tuple[float, ...]:
    """The columns behind arm and iteration: a quantile is the least length that so many answers do not exceed."""
    lengths = sorted(counts)
    answers = np.cumsum([counts[length] for length in lengths])
    total = int(answers[-1])
    cut = sum(counts[length] for length in lengths if length[1])
    places = np.searchsorted(answers, np.array(QUANTILES) * total)
    return (total, cut / total, *(lengths[place][0] for place in places))


def answer_lengths(rows: pd.DataFrame, real: pd.Series) -> Figure:
    """Above, quantiles of the lengths, from the rows of `length_quantiles`; below, the share of answers that is cut."""
    with styled():
        figure = empty_figure(sum(HEIGHTS))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=HEIGHTS)
        above.axhspan(real.q25, real.q75, **REAL, zorder=0)
        for quantile, dashes in (("q05", (0, (2, 2))), ("median", "-"), ("q95", (0, (2, 2)))):
            above.axhline(real[quantile], **REFERENCE, linestyle=dashes, zorder=0.5)
        count = rows.arm.nunique()
        for place, ((_, of_arm), look) in enumerate(zip(rows.groupby("arm", sort=False), looks(), strict=False)):
            _arm(above, below, of_arm, beside(of_arm.iteration, place, count), look)
        iteration_axis(below, rows.iteration)
        above.set_ylabel("tokens of an answer")
        above.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        below.set(ylabel="cut, %", xlabel="iteration that trains on the answers")
        top = max(1.0, 105 * rows.cut.max())
        below.set_ylim(-0.05 * top, top)
        handles, labels = below.get_legend_handles_labels()
        real_line = Line2D([], [], **REFERENCE)
        legend_below(figure, [*handles, real_line], [*labels, "real"], columns=5)
        fit_height(figure, above, HEIGHTS[0])
    return figure


def _arm(above: Axes, below: Axes, rows: pd.DataFrame, x: np.ndarray, look: tuple[Any, str]) -> None:
    colour, marker = look
    above.vlines(x, rows.q25, rows.q75, color=colour, linewidth=HALF)
    above.vlines(x, rows.q05, rows.q95, color=colour, linewidth=TAILS)
    below.plot(x, 100 * rows.cut, color=colour, marker=marker, label=escaped(rows.arm.iloc[0]))
    above.plot(
        x, rows["median"], color=colour, marker=marker, markeredgecolor="black", markeredgewidth=0.3, linestyle="none"
    )
