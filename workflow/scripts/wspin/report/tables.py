"""The tables of scores and differences: CSV with every number, and Markdown and LaTeX for readers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from wspin.escaping import escaped, in_markdown
from wspin.storage.text_tables import csv_text, frame_table

from . import comparison
from .comparison import Draws, Models
from .frame import chosen_scores, score_frame
from .scores import Groups, ScoreFile, cut_note, dtype_note, means_note, table_columns, with_average


def score_tables(files: Sequence[ScoreFile], metrics: dict[str, str], groups: Groups | None = None) -> dict[str, str]:
    """By suffix: every score as CSV, the chosen ones as Markdown and LaTeX. Raises `StudyError` as `chosen_scores`.

    The CSV leaves out the subtasks of groups.
    """
    scores = score_frame(files)
    csv = csv_text(scores[scores.group.isna()].drop(columns="group"))
    points, legend = score_points(files, metrics, groups or {}), _score_legend(files, metrics, groups or {})
    return {".csv": csv, **_rendered(points, legend)}


def difference_tables(
    models: Models, pairs: Iterable[tuple[str, str]], draws: Draws, note: str = "", groups: Groups | None = None
) -> dict[str, str]:
    """By suffix: the differences as CSV, Markdown and LaTeX, the latter with a `note` behind the legend.

    Raises `StudyError` as `comparison.differences`.
    """
    differences = comparison.differences(models, pairs, draws, groups)
    return {".csv": csv_text(differences), **difference_texts(differences, draws, note, groups)}


def _rendered(wide: pd.DataFrame, legend: str) -> dict[str, str]:
    """Markdown and LaTeX by suffix: the index as text, columns of numbers, and the legend, one line, below."""
    table, legend = wide.reset_index(), escaped(legend)
    latex = frame_table(table, "latex_booktabs")
    return {".md": f"{frame_table(table)}\n\n{legend}\n", ".tex": f"{latex}\n% {legend}\n"}


# Scores


def score_points(files: Sequence[ScoreFile], metrics: Mapping[str, str], groups: Groups) -> pd.DataFrame:
    """Models by the chosen tasks and the means of groups of them, as `table_columns`: points with standard errors.

    A mean is the plain one of its tasks; it has no standard error if one of them has none.
    """
    scores = chosen_scores(files, metrics)
    rows = pd.concat([scores, *(_means(scores, *group) for group in with_average(groups, metrics).items())])
    rows["shown"] = list(map(in_points, rows.value, rows.stderr))
    models = pd.Index(dict.fromkeys(file.model for file in files), name="model")
    return rows.pivot(index="model", columns="task", values="shown").reindex(
        models, columns=table_columns(groups, metrics)
    )


def _means(scores: pd.DataFrame, group: str, tasks: Sequence[str]) -> pd.DataFrame:
    """A row for each model: the plain mean of some tasks."""
    averaged = scores[scores.task.isin(tasks)].groupby("model")
    return averaged.agg(value=("value", "mean"), stderr=("stderr", _mean_error)).reset_index().assign(task=group)


def _mean_error(errors: pd.Series) -> float:
    """The standard error of a mean of independent values, from theirs; NaN if one of them is."""
    return float(np.linalg.norm(errors)) / len(errors)


def in_points(value: float, stderr: float) -> str:
    """A fraction as points with its standard error, unless this is NaN: `47.50 ± 2.50`."""
    value, stderr = (round(100 * share, 8) for share in (value, stderr))  # 58.125 is that, whatever its last bit
    return f"{value:.2f}" + ("" if np.isnan(stderr) else f" ± {stderr:.2f}")


def _score_legend(files: Sequence[ScoreFile], metrics: dict[str, str], groups: Groups) -> str:
    results = {task: result for file in files for task, result in file.scores.tasks.items()}
    keys = {task: in_markdown(key) for task, key in metrics.items()}
    tasks = [f"{task}: {key}, {results[task].shots} shots, n = {results[task].n}" for task, key in keys.items()]
    independent = "the standard error of a mean takes its tasks" if groups else "its standard error takes them"
    return (
        f"{'; '.join(tasks)}. Points; ± is one standard error over items. {means_note(groups)}; {independent}"
        f" as independent: sqrt(sum of squares) / number of tasks."
        f"{cut_note(files)}{dtype_note(files)}"
    )


# Differences


def difference_texts(
    differences: pd.DataFrame, draws: Draws, note: str = "", groups: Groups | None = None
) -> dict[str, str]:
    """Markdown and LaTeX of pairs of models by tasks, in points with the bounds of the interval."""
    if differences.empty:
        legend = escaped(f"There is no arm to compare: no arm shares an iteration with the baseline arm.{note}")
        return {".md": f"{legend}\n", ".tex": f"% {legend}\n"}
    difference, low, high = (differences[key].map(_signed) for key in ("difference", "low", "high"))
    rows = differences.assign(shown=difference + " [" + low + ", " + high + "]")
    rows.index = pd.Index(rows.model + " - " + rows.baseline, name="model - baseline")
    sizes = dict(zip(rows.task, rows.n, strict=True))
    wide = rows.pivot(columns="task", values="shown").reindex(rows.index.unique(), columns=list(sizes))
    return _rendered(wide, f"{_difference_legend(sizes, draws, groups or {})}{note}")


def uncompared_note(arms: Iterable[tuple[str, str]]) -> str:
    """A sentence about the (arm, seed) that are compared with nothing; empty where there is none."""
    names = [f"{arm} ({seed})" for arm, seed in arms]
    reason = "as the baseline arm has no replicate with their seed"
    return f" Without a row, {reason}: {', '.join(names)}." if names else ""


def _signed(value: float) -> str:
    return f"{round(round(100 * value, 8), 2) + 0.0:+.2f}"  # + 0.0: no negative zero


def _difference_legend(sizes: dict[str, int], draws: Draws, groups: Groups) -> str:
    tasks = ", ".join(f"{task} n = {n}" for task, n in sizes.items() if task not in with_average(groups, ()))
    return (
        f"Points: model minus baseline [low, high], on the same documents after the same prompts: {tasks}. "
        f"The interval holds {100 * draws.confidence:g} % of {draws.count} draws of a paired bootstrap (percentiles, "
        f"seed {draws.seed}) that resamples the documents of each task, in a group of each subtask. "
        f"{means_note(groups)}. The interval tells how far other documents would move a difference, not how far "
        "other seeds of the training would; nor is it widened for the number of comparisons."
    )
