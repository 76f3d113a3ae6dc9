"""Reads training curves, and draws the reward margins of every arm's iterations.

A margin is the mean over a step's pairs of chosen minus rejected reward, beta times the summed log-ratios to the
opponent: once as the loss weights the tokens, once with all of them alike, which compares arms with different weights.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wspin.config.explain import complaints_of
from wspin.errors import StudyError, first_line
from wspin.escaping import escaped
from wspin.iteration import Iteration
from wspin.storage import strict_json
from wspin.storage.files import sha256
from wspin.storage.opening import readable
from wspin.storage.provenance import read_record

from .style import COLUMN, REFERENCE, empty_figure, fit_height, legend_below, looks, styled

KINDS = {"weighted": "as in the loss", "unweighted": "all tokens alike"}
WINDOW = 1 / 10  # of the steps of an iteration: how many a point is the mean of
LARGEST = 1e6  # margin that is drawn: a training that diverged leaves the others their scale
PANEL = 0.7  # inches: width of an iteration
HEIGHT = 1.05  # inches: of a panel
MARKS = 3  # markers on a curve, where those of other arms are not: curves may coincide


class Step(BaseModel):
    """What is drawn of a line of a curve."""

    model_config = ConfigDict(strict=True)

    step: int = Field(ge=1, lt=2**63)
    weighted: float = Field(alias="rewards/margin")
    unweighted: float = Field(alias="unweighted/margin")


def read_margins(curves: Mapping[str, str | Path], arms: Mapping[str, str]) -> pd.DataFrame:
    """A row per step of the curves, {iteration: its file}: arm, iteration, replicate, step and both margins.

    NaN stands for a margin that is not finite, or above `LARGEST`. `arms`: iteration -> the arm under whose name it is
    drawn. Raises `StudyError` if a file is missing or malformed.
    """
    rows = []
    for name, path in curves.items():
        arm, k = Iteration.parse(name) or (name, 0)
        rows += [(arms[name], k, arm, step.step, step.weighted, step.unweighted) for step in _read(path)]
    frame = pd.DataFrame(rows, columns=["arm", "iteration", "replicate", "step", *KINDS])
    values = frame[list(KINDS)]
    return frame.assign(**values.where(values.abs() <= LARGEST))


def _read(path: str | Path) -> Iterator[Step]:
    remedy = "train the model again"
    with contextlib.suppress(FileNotFoundError):  # a curve by itself; earlier records have no hash of it
        expected = read_record(Path(path).with_name("model") / "provenance.json").get("curve")
        if expected and expected != sha256(path):
            raise StudyError(f"{path}: expected the bytes of its model's record, found others: it is damaged; {remedy}")
    try:
        with open(path, "rb", opener=readable) as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise StudyError(f"{path}: expected a training curve, found no file; {remedy}") from None
    if not lines:
        raise StudyError(f"{path}: expected a line per step, found none; {remedy}")
    for number, line in enumerate(lines, 1):
        place = f"{path}: line {number}"
        try:
            yield Step.model_validate(strict_json.parse(line))
        except ValidationError as error:
            keys, message = complaints_of(error, Step)[0]
            raise StudyError(f"{': '.join([place, *keys])}: {message}; {remedy}") from None
        except ValueError as error:
            raise StudyError(f"{place}: expected the entries of a step, found {first_line(error)}; {remedy}") from None


def reward_margins(rows: pd.DataFrame) -> Figure:
    """Both margins of the rows of `read_margins` by step: iterations side by side, an arm per colour and marker.

    The curve of an arm is the mean over its replicates, then a running mean over the part `WINDOW` of the steps, with a
    gap at each step where a replicate's margin is NaN.
    """
    iterations = sorted(set(rows.iteration))
    means = rows.groupby(["arm", "iteration", "step"], sort=False)[list(KINDS)].mean(skipna=False).reset_index()
    with styled():
        figure = empty_figure(HEIGHT, max(COLUMN, 0.5 + PANEL * len(iterations)))
        grid = figure.subplots(len(KINDS), len(iterations), sharex="col", sharey="row", squeeze=False)
        for column, iteration in enumerate(iterations):
            _arms(grid[:, column], means, iteration)
            grid[0, column].set_title(f"ite{iteration}")
        for axes, kind in zip(grid[:, 0], KINDS.values(), strict=True):
            axes.set_ylabel(f"margin, nats\n({kind})")
        for axes in grid.flat:
            axes.axhline(0.0, **REFERENCE, zorder=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
        for axes in grid[-1]:
            axes.set_xlabel("step")
        legend_below(figure, *grid[0, 0].get_legend_handles_labels(), columns=4)
        fit_height(figure, grid[0, 0], HEIGHT)
    return figure


def _arms(column: Iterable[Axes], means: pd.DataFrame, iteration: int) -> None:
    """The curves of an iteration in its panels; every arm has its place in the legend, if without a curve."""
    count = means.arm.nunique()
    for place, ((arm, curves), look) in enumerate(zip(means.groupby("arm", sort=False), looks(), strict=False)):
        for axes, kind in zip(column, KINDS, strict=True):
            _curve(axes, curves[curves.iteration == iteration], kind, escaped(arm), look, place / count)


def _curve(axes: Axes, curve: pd.DataFrame, kind: str, label: str, look: tuple[Any, str], shift: float) -> None:
    """One line, with markers that begin at the part `shift` of their distance."""
    window, gap = max(1, round(WINDOW * len(curve))), max(1, len(curve) // MARKS)
    smooth = curve[kind].rolling(window, center=True, min_periods=1).mean().where(curve[kind].notna())
    colour, marker = look
    axes.plot(curve.step, smooth, label=label, color=colour, marker=marker, markevery=(int(shift * gap), gap))
