"""The tables of scores and differences: CSV with every number, and Markdown and LaTeX for readers."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wspin.escaping import escaped, in_markdown
from wspin.storage.text_tables import csv_text, text_table

from . import comparison
from .comparison import AVERAGE, Average, Difference, Draws, Models
from .scores import Score, ScoreFile, arm_columns, chosen_scores, cut_note, dtype_note


class ScoreRow(NamedTuple):
    """A line of the CSV of scores; `arm` and `iteration` are empty for models of the registry."""

    model: str
    arm: str
    iteration: str
    task: str
    filter: str
    metric: str
    value: float
    stderr: float | None
    n: int


def score_tables(files: Sequence[ScoreFile], metrics: dict[str, str]) -> dict[str, str]:
    """By suffix: every score as CSV, the chosen ones as Markdown and LaTeX. Raises `StudyError` as `chosen_scores`."""
    lines = [
        [model, *map(in_points, scores.values()), in_points(average_score(list(scores.values())))]
        for model, scores in chosen_scores(files, metrics).items()
    ]
    rendered = _rendered(["model", *metrics, AVERAGE], lines, _score_legend(files, metrics))
    return {".csv": csv_text(ScoreRow._fields, score_rows(files)), **rendered}


def difference_tables(models: Models, pairs: Iterable[tuple[str, str]], draws: Draws, note: str = "") -> dict[str, str]:
    """By suffix: the differences as CSV, Markdown and LaTeX, the latter with a `note` behind the legend.

    Raises `StudyError` as `comparison.differences`.
    """
    rows = comparison.differences(models, pairs, draws)
    return {".csv": csv_text(Difference._fields, rows), **difference_texts(rows, draws, note)}


def average_csv(models: Models, draws: Draws) -> str:
    """Every model's average with its interval, as `comparison.read_averages` reads it."""
    return csv_text(Average._fields, comparison.averages(models, draws))


def _rendered(header: list[str], lines: list[list[str]], legend: str) -> dict[str, str]:
    """Markdown and LaTeX by suffix: a column of text, columns of numbers, and the legend, one line, below."""
    columns, legend = "l" + "r" * (len(header) - 1), escaped(legend)
    latex = text_table(header, lines, columns, "latex_booktabs")
    return {".md": f"{text_table(header, lines, columns)}\n\n{legend}\n", ".tex": f"{latex}\n% {legend}\n"}


# Scores


def score_rows(files: Iterable[ScoreFile]) -> list[ScoreRow]:
    """One row per model, task, metric and filter: all that the score files hold, also what the table leaves out."""
    rows = []
    for file in files:
        for task, result in sorted(file.scores.tasks.items()):
            for key in sorted(result.metrics):
                metric, _, filter_ = key.partition(",")
                place = (file.model, *arm_columns(file.model), task, filter_, metric)
                rows.append(ScoreRow(*place, result.metrics[key], result.stderr[key], result.n))
    return rows


def average_score(scores: Sequence[Score]) -> Score:
    """Plain mean of the tasks; no standard error if one of them has none."""
    errors = [score.stderr for score in scores if score.stderr is not None]
    stderr = math.hypot(*errors) / len(scores) if len(errors) == len(scores) else None
    return Score(math.fsum(score.value for score in scores) / len(scores), stderr)


def in_points(score: Score) -> str:
    """A fraction as points with its standard error: `47.50 ± 2.50`."""
    value, stderr = (share and round(100 * share, 8) for share in score)  # 58.125 is that, whatever its last bit
    return f"{value:.2f}" + ("" if stderr is None else f" ± {stderr:.2f}")


def _score_legend(files: Sequence[ScoreFile], metrics: dict[str, str]) -> str:
    results = {task: result for file in files for task, result in file.scores.tasks.items()}
    keys = {task: in_markdown(key) for task, key in metrics.items()}
    tasks = [f"{task}: {key}, {results[task].shots} shots, n = {results[task].n}" for task, key in keys.items()]
    return (
        f"{'; '.join(tasks)}. Points; ± is one standard error over items. The average is the plain mean of the tasks; "
        f"its standard error takes them as independent: sqrt(sum of squares) / number of tasks."
        f"{cut_note(files)}{dtype_note(files)}"
    )


# Differences


def difference_texts(rows: Sequence[Difference], draws: Draws, note: str = "") -> dict[str, str]:
    """Markdown and LaTeX of pairs of models by tasks, in points with the bounds of the interval."""
    if not rows:
        legend = escaped(f"There is no arm to compare: no arm shares an iteration with the baseline arm.{note}")
        return {".md": f"{legend}\n", ".tex": f"% {legend}\n"}
    by_pair: dict[str, dict[str, str]] = {}
    for row in rows:
        difference, low, high = (_signed(value) for value in (row.difference, row.low, row.high))
        by_pair.setdefault(f"{row.model} - {row.baseline}", {})[row.task] = f"{difference} [{low}, {high}]"
    sizes = {row.task: row.n for row in rows}
    lines = [[pair, *by_task.values()] for pair, by_task in by_pair.items()]
    return _rendered(["model - baseline", *sizes], lines, f"{_difference_legend(sizes, draws)}{note}")


def uncompared_note(arms: Iterable[tuple[str, str]]) -> str:
    """A sentence about the (arm, seed) that are compared with nothing; empty where there is none."""
    names = [f"{arm} ({seed})" for arm, seed in arms]
    reason = "as the baseline arm has no replicate with their seed"
    return f" Without a row, {reason}: {', '.join(names)}." if names else ""


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
