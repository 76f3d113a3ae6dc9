"""Counts the token weights of every iteration, and draws their histograms: an arm per row, a side per column."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from wspin.config.weigh import Weigh
from wspin.escaping import escaped
from wspin.iteration import Iteration
from wspin.progress import with_progress
from wspin.storage import tables
from wspin.weigh.forms import BY_ANSWER, bounds, exp_clamp, factor, form_of

from .style import empty_figure, fit_height, legend_below, styled
from .weights import own_token_ids, own_weights

COLUMNS = ("arm", "iteration", "side", "weight", "tokens", "is_clamp")
DIGITS = 3  # significant ones of a counted weight: a bin is far wider
BINS = 40
HEIGHT = 0.55  # inches: of a panel
WIDE = 24  # characters in a line of a panel's title
PALEST = 0.85  # of the colour map, from dark (first iteration) to light
WIDTHS = (1.8, 0.6)  # points: of the first and the last iteration's line
CLAMP: dict[str, Any] = {"color": "black", "linewidth": 0.7, "linestyle": (0, (2, 2))}


def count_weights(shards: Mapping[str, Sequence[tuple[str, str]]], arms: Mapping[str, str]) -> pd.DataFrame:
    """How many tokens have which weight, by `COLUMNS`, one shard in memory at a time.

    `shards`: iteration -> (weights, reference), the files of each shard; `arms`: iteration -> the arm under whose name
    it is drawn. Weights are rounded to `DIGITS` significant digits, EOS is left out. Rows with `is_clamp` hold the
    weights of log-ratios at a bound, and no tokens. Raises `StudyError` if a file is missing, or if weights do not
    belong to their reference.
    """
    counts: Counter[tuple[str, int, str, float, bool]] = Counter()
    for name, files in with_progress(shards.items(), len(shards), "report: histograms", "iterations"):
        k = Iteration.parse(name).k
        for shard in files:
            for (side, weight, is_clamp), tokens in _counted(*shard):
                counts[arms[name], k, side, weight, is_clamp] += tokens
    rows = [(*key[:4], tokens, key[4]) for key, tokens in counts.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _counted(path: str, reference_path: str) -> Iterator[tuple[tuple[str, float, bool], int]]:
    """((side, weight, whether it is a clamp), tokens) of a shard."""
    table, reference = tables.read(path, "weights"), tables.read_reference(reference_path)
    tables.check_weighted_ids(path, table, reference)
    settings = tables.metadata(table)["settings"]
    for side in tables.SIDES:
        weights = np.concatenate(own_weights(table, side, own_token_ids(reference, side)))
        for weight, tokens in zip(*np.unique(_rounded(weights), return_counts=True), strict=True):
            yield (side, float(weight), False), int(tokens)
        for weight in () if "given" in settings else clamped_weights(side, Weigh.model_validate(settings)):
            yield (side, weight, True), 0


def clamped_weights(side: str, settings: Weigh) -> tuple[float, ...]:
    """The final weights of log-ratios at the two bounds on a side; none where no bound becomes one number.

    That is with unbounded forms, weights that are normalised, and controls that change values.
    """
    scores = np.array(bounds(settings))
    if not np.isfinite(scores).all() or settings.normalise != "none" or settings.control not in ("none", "permuted"):
        return ()
    form = form_of(settings)
    if form == "exp_clamp":
        weights = exp_clamp(scores, factor(side, settings), settings)
    else:  # the bounds of `linear` act after mu
        weights = scores if form == "linear" else BY_ANSWER[form](scores, settings, np.random.default_rng(0))
    return tuple(sorted(weights.tolist()))


def _rounded(values: np.ndarray) -> np.ndarray:
    """To `DIGITS` significant digits."""
    values = values.astype(float)
    digits = np.floor(np.log10(np.abs(values), where=values != 0, out=np.zeros_like(values)))
    unit = 10.0 ** (digits - DIGITS + 1)
    return np.rint(values / unit) * unit


def weight_histograms(rows: pd.DataFrame) -> Figure:
    """The share of the tokens in each bin of their weight, of the rows of `count_weights`: a line per iteration."""
    arms, iterations = list(dict.fromkeys(rows.arm)), sorted(set(rows.iteration))
    with styled():
        figure = empty_figure(HEIGHT)
        if not arms:
            figure.text(0.5, 0.5, "no arm weighs its tokens", ha="center", va="center")
            return figure
        looks = _looks(iterations)
        grid = figure.subplots(len(arms), len(tables.SIDES), sharex="row", sharey="row", squeeze=False)
        for row, arm in zip(grid, arms, strict=True):
            of_arm = rows[rows.arm == arm]
            edges = _edges(of_arm.weight.to_numpy())
            for axes, side in zip(row, tables.SIDES, strict=True):
                _panel(axes, of_arm[of_arm.side == side], edges, looks)
                axes.set_title(textwrap.fill(f"{escaped(arm)}, {side}", WIDE))
        for axes in grid[-1]:
            axes.set_xlabel("weight of a token")
        figure.supylabel("share of the tokens, %", fontsize="medium")
        keys = [Line2D([], [], label=f"ite{k}", **look) for k, look in looks.items()]
        keys += [Line2D([], [], label="clamp", **CLAMP)] if rows.is_clamp.any() else []
        legend_below(figure, keys, [key.get_label() for key in keys], columns=5)
        fit_height(figure, grid[0, 0], HEIGHT)
    return figure


def _looks(iterations: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Lines from dark and wide to light and thin, so that equal ones are all seen."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, PALEST, len(iterations)))
    widths = np.linspace(*WIDTHS, len(iterations))
    return {k: {"color": c, "linewidth": w} for k, c, w in zip(iterations, colours, widths, strict=True)}


def _edges(weights: np.ndarray) -> np.ndarray:
    """Edges of `BINS` bins from the lowest to the highest weight, which lie in the middle of theirs."""
    low, high = weights.min(), weights.max()
    half = ((high - low) / (BINS - 1) or 1.0) / 2
    return np.linspace(low - half, high + half, BINS + 1)


def _panel(axes: Axes, rows: pd.DataFrame, edges: np.ndarray, looks: Mapping[int, dict[str, Any]]) -> None:
    for k, of_iteration in rows[~rows.is_clamp].groupby("iteration"):
        counts, _ = np.histogram(of_iteration.weight, edges, weights=of_iteration.tokens)
        axes.stairs(100 * counts / max(counts.sum(), 1), edges, **looks[k])
    for weight in set(rows[rows.is_clamp].weight):
        axes.axvline(weight, **CLAMP, zorder=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
