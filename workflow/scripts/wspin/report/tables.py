"""Stage report: tables, figures and pages of what the study measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wspin.storage.text_tables import csv_text, text_table

from . import comparison
from .comparison import AVERAGE, Average, Difference, Draws, Models
from .scores import Cell, Scored, TaskScores, arm_and_iteration, select


class Row(NamedTuple):
    """A line of the tidy table; `arm` and `iteration` are empty for models of the registry."""

    model: str
    arm: str
    iteration: str
    task: str
    filter: str
    metric: str
    value: float
    stderr: float | None
    n: int


class Table(NamedTuple):
    """A table to be read: its first column is text, the others are numbers; the legend is one line."""

    header: list[str]
    lines: list[list[str]]
    legend: str


# Tidy rows


def tidy(scored: Iterable[Scored]) -> list[Row]:
    """One row per model, task, metric and filter: all that the score files hold, not only what the table shows."""
    return [
        _row(one.model, task, key, result)
        for one in scored
        for task, result in sorted(one.scores.tasks.items())
        for key in sorted(result.metrics)
    ]


def _row(model: str, task: str, key: str, result: TaskScores) -> Row:
    metric, _, chosen = key.partition(",")
    place = (model, *arm_and_iteration(model), task, chosen, metric)
    return Row(*place, result.metrics[key], result.stderr[key], result.n)


# Tables to be read


def _rendered(table: Table) -> dict[str, str]:
    """Markdown and LaTeX with booktabs, by suffix: the legend below; the legend alone if there are no lines."""
    if not table.lines:
        return {".md": f"{table.legend}\n", ".tex": f"% {table.legend}\n"}
    columns = "l" + "r" * (len(table.header) - 1)
    markdown = text_table(table.header, table.lines, columns)
    latex = text_table(table.header, table.lines, columns, "latex_booktabs")
    return {".md": f"{markdown}\n\n{table.legend}\n", ".tex": f"{latex}\n% {table.legend}\n"}


def score_tables(scored: Sequence[Scored], metrics: dict[str, str]) -> dict[str, str]:
    """Every score as CSV, the chosen ones as Markdown and LaTeX, by suffix. Raises `StudyError` as `scores.select`."""
    return {".csv": csv_text(Row._fields, tidy(scored)), **_rendered(_score_table(scored, metrics))}


def difference_tables(models: Models, pairs: Iterable[tuple[str, str]], draws: Draws) -> dict[str, str]:
    """The differences as CSV, Markdown and LaTeX, by suffix. Raises `StudyError` as `comparison.differences`."""
    rows = comparison.differences(models, pairs, draws)
    return {".csv": csv_text(Difference._fields, rows), **_rendered(_difference_table(rows, draws))}


def average_csv(models: Models, draws: Draws) -> str:
    """Every model's average with its interval, as `comparison.read_averages` reads it."""
    return csv_text(Average._fields, comparison.averages(models, draws))


def _score_table(scored: Sequence[Scored], metrics: dict[str, str]) -> Table:
    """Models by tasks in points, with one standard error."""
    lines = [
        [model, *map(points, cells.values()), points(average(list(cells.values())))]
        for model, cells in select(scored, metrics).items()
    ]
    return Table(["model", *metrics, AVERAGE], lines, _legend(scored, metrics))


def average(cells: Sequence[Cell]) -> Cell:
    """Plain mean of the tasks; no standard error if one of them has none."""
    errors = [cell.stderr for cell in cells if cell.stderr is not None]
    known = len(errors) == len(cells)
    return Cell(
        math.fsum(cell.value for cell in cells) / len(cells), math.hypot(*errors) / len(cells) if known else None
    )


def points(cell: Cell) -> str:
    """A share as points with its standard error, to be read."""
    value, stderr = (share and round(100 * share, 8) for share in cell)  # 58.125 is that, whatever its last bit
    return f"{value:.2f}" + ("" if stderr is None else f" ± {stderr:.2f}")


def _legend(scored: Iterable[Scored], metrics: dict[str, str]) -> str:
    results = {task: result for one in scored for task, result in one.scores.tasks.items()}
    tasks = [f"{task}: {key}, {results[task].shots} shots, n = {results[task].n}" for task, key in metrics.items()]
    return (
        f"{'; '.join(tasks)}. Points; ± is one standard error over items. The average is the plain mean of the tasks; "
        "its standard error takes them as independent: sqrt(sum of squares) / number of tasks."
    )


def _difference_table(rows: Sequence[Difference], draws: Draws) -> Table:
    """Pairs of models by tasks in points, with the bounds of the interval; no lines if there is no pair."""
    if not rows:
        return Table([], [], "There is no arm to compare: no arm shares an iteration with the baseline arm.")
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        change, low, high = (_signed(value) for value in (row.difference, row.low, row.high))
        cells.setdefault(f"{row.model} - {row.baseline}", {})[row.task] = f"{change} [{low}, {high}]"
    sizes = {row.task: row.n for row in rows}
    lines = [[pair, *by_task.values()] for pair, by_task in cells.items()]
    return Table(["model - baseline", *sizes], lines, _difference_legend(sizes, draws))


def _signed(value: float) -> str:
    return f"{round(round(100 * value, 8), 2) + 0.0:+.2f}"  # + 0.0: no negative zero


def _difference_legend(sizes: dict[str, int], draws: Draws) -> str:
    tasks = ", ".join(f"{task} n = {n}" for task, n in sizes.items() if task != AVERAGE)
    return (
        f"Points: model minus baseline [low, high], on the same documents after the same prompts: {tasks}. "
        f"The interval holds {100 * draws.confidence:g} % of {draws.count} draws of a paired bootstrap (percentiles, "
        f"seed {draws.seed}) that resamples the documents of each task, in a group of each subtask. The average is the "
        "plain mean of the tasks. The interval tells how far other documents would move a difference, not how far "
        "other seeds of the training would; nor is it widened for the number of comparisons."
    )
