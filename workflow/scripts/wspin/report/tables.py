"""The tables of scores and differences: CSV with every number, and Markdown and LaTeX for readers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from wspin.escaping import escaped, in_markdown
from wspin.storage.text_tables import csv_text, frame_table

from . import comparison
from .comparison import Draws, Models
from .frame import chosen_scores, score_frame
from .replicates import Pairs
from .scores import Groups, ScoreFile, cut_note, dtype_note, means_note, table_columns, with_average


def score_tables(
    files: Sequence[ScoreFile],
    metrics: dict[str, str],
    groups: Groups | None = None,
    replicates: Pairs = (),
    seeds: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """By suffix: every score as CSV, the chosen ones as Markdown and LaTeX.

    The CSV leaves out the subtasks of groups. Raises `StudyError` as `score_frame` and `chosen_scores`.
    """
    scores = score_frame(files, replicates, seeds)
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
    return averaged.agg(value=("value", "mean"), stderr=("stderr", mean_error)).reset_index().assign(task=group)


def mean_error(errors: Sequence[float] | pd.Series) -> float:
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
    difference, low, high = (differences[key].map(signed_points) for key in ("difference", "low", "high"))
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


def signed_points(value: float) -> str:
    """A fraction as points with its sign: `+2.50`."""
    return f"{round(round(100 * value, 8), 2) + 0.0:+.2f}"  # + 0.0: no negative zero


def _difference_legend(sizes: dict[str, int], draws: Draws, groups: Groups) -> str:
    return (
        "Points: model minus baseline [low, high], on the same documents after the same prompts: "
        f"{_task_sizes(sizes, groups)}. "
        f"The interval holds {100 * draws.confidence:g} % of {draws.count} draws of a paired bootstrap (percentiles, "
        f"seed {draws.seed}) that resamples the documents of each task, in a group of each subtask. "
        f"{means_note(groups)}. The interval shows how far other documents would move a difference, not how far "
        "other seeds of the training would; nor is it widened for the number of comparisons."
    )


def _task_sizes(sizes: Mapping[str, int], groups: Groups) -> str:
    """The tasks with their numbers of documents, without the means of tasks."""
    return ", ".join(f"{task} n = {n}" for task, n in sizes.items() if task not in with_average(groups, ()))


# Pooled over replicates


def pooled_tables(rows: pd.DataFrame, confidence: float, groups: Groups, note: str = "") -> dict[str, str]:
    """By suffix: the rows of `pooling.pool` as CSV, and as a table of scores and one of differences in two formats."""
    is_score = rows.baseline.isna()
    scores, differences = rows[is_score], rows[~is_score]
    sizes = dict(zip(rows.task, rows.n, strict=True))
    wide = [_pooled_wide(scores, scores.model, "model", _pooled_score, sizes)]
    if not differences.empty:
        names = differences.model + " - " + differences.baseline
        wide.append(_pooled_wide(differences, names, "model - baseline", _pooled_difference, sizes))
    legend = escaped(f"{_pooled_legend(sizes, confidence, groups)}{note}")
    markdown, latex = ("\n\n".join(frame_table(table, style) for table in wide) for style in ("pipe", "latex_booktabs"))
    return {".csv": csv_text(rows), ".md": f"{markdown}\n\n{legend}\n", ".tex": f"{latex}\n% {legend}\n"}


def _pooled_wide(
    rows: pd.DataFrame, names: pd.Series, header: str, shown: Callable[[Any], str], sizes: Iterable[str]
) -> pd.DataFrame:
    """A line for each name: its number of seeds, and what is shown of every task."""
    texts = rows.assign(**{header: names, "shown": list(map(shown, rows.itertuples()))})
    wide = texts.pivot(index=[header, "seeds"], columns="task", values="shown")
    order = pd.MultiIndex.from_frame(texts[[header, "seeds"]].drop_duplicates())
    return wide.reindex(order, columns=list(sizes)).reset_index().astype({"seeds": str})


def _pooled_score(row: Any) -> str:
    return f"{in_points(row.mean, row.stderr)} {_parts(row)}"


def _pooled_difference(row: Any) -> str:
    interval = "" if np.isnan(row.stderr) else f" [{signed_points(row.low)}, {signed_points(row.high)}]"
    return f"{signed_points(row.mean)}{interval} {_parts(row)}"


def _parts(row: Any) -> str:
    """The standard deviation over seeds and the standard error over documents, `-` for what is unknown."""
    sd, stderr = ("-" if np.isnan(part) else in_points(part, np.nan) for part in (row.seed_sd, row.item_stderr))
    return f"({sd}; {stderr})"


def _pooled_legend(sizes: Mapping[str, int], confidence: float, groups: Groups) -> str:
    return (
        "Points: means over the seeds (standard deviation over seeds; standard error over documents: "
        f"{_task_sizes(sizes, groups)}). "
        "± is the error of both, sqrt(sd^2 / seeds + SE^2), where SE is that of the documents' means over the seeds; "
        "what a seed does to single documents is part of both, so the error is rather too large. Differences are taken "
        f"at equal seed, document by document; [low, high] is their {100 * confidence:g} % interval, the same error "
        "times a t quantile with Satterthwaite's degrees of freedom, and not widened for the number of comparisons. "
        "The standard deviation of few seeds is itself a rough estimate; with one seed it is unknown, and so is the "
        f"error of both. {means_note(groups)}. Documents of different tasks are taken as independent."
    )
