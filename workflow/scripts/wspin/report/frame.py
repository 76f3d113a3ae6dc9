"""All scores as one tidy frame, from which every table of scores is made."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from wspin.errors import StudyError

from .grim import is_share
from .replicates import Pairs, methods
from .scores import ScoreFile, TaskScores, arm_columns, check_chosen

COLUMNS = ("model", "method", "arm", "iteration", "seed", "task", "group", "filter", "metric", "value", "stderr", "n")
SHARES = ("acc", "acc_norm", "exact_match")  # metrics that score a document 0 or 1
MEANS = ("truthfulqa_mc2",)  # tasks whose metric of such a name does not
NUMBERS = {"iteration": "Int64", "seed": "Int64", "value": "float64", "stderr": "float64", "n": "int64"}


def score_frame(
    files: Sequence[ScoreFile], replicates: Pairs = (), seeds: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """A row per model, task, metric and filter, by `COLUMNS`: all that the score files hold, values as fractions.

    `method` is the arm or registry model, of a replicate the first one; `seeds` are by arm or registry model. `arm` and
    `iteration` are missing for models of the registry, `seed` where `seeds` has none, `group` for what is no subtask of
    one, and `stderr` where lm-eval gives none. Raises `StudyError` as `methods`.
    """
    rows = []
    method = methods([file.model for file in files], replicates)
    for file in files:
        arm, k = arm_columns(file.model)
        columns = (file.model, method[file.model], arm, k, (seeds or {}).get(arm or file.model))
        for task, group, result in _results(file.scores.tasks):
            for key in sorted(result.metrics):
                metric, _, filter_ = key.partition(",")
                rows.append((*columns, task, group, filter_, metric, result.metrics[key], result.stderr[key], result.n))
    return pd.DataFrame(rows, columns=COLUMNS).astype(NUMBERS)


def _results(tasks: Mapping[str, TaskScores], group: str | None = None) -> Iterator[tuple[str, str | None, TaskScores]]:
    """(task, its group, result) of tasks and, behind each, of its subtasks."""
    for task, result in sorted(tasks.items()):
        yield task, group, result
        yield from _results(result.subtasks, task)


def chosen_scores(files: Sequence[ScoreFile], metrics: Mapping[str, str]) -> pd.DataFrame:
    """The rows of `score_frame` with the metric chosen for each task.

    Raises `StudyError` as `check_chosen`, and at one of `SHARES` that is no share of its task's documents, but for the
    means of groups and of `MEANS`.
    """
    check_chosen(files, metrics)
    scores = score_frame(files)
    chosen = [(task, *key.partition(",")[::2]) for task, key in metrics.items()]
    rows = scores[scores.group.isna()].merge(pd.DataFrame(chosen, columns=["task", "metric", "filter"]))
    means = {*MEANS, *scores.group.dropna()}
    for row in rows[rows.metric.isin(SHARES) & ~rows.task.isin(means)].itertuples():
        if not is_share(row.value, row.n):
            expected = f"expected a share of {row.n} documents, found {row.value!r}"
            raise StudyError(
                f"{row.model}: {row.task}: {row.metric}: {expected}; choose another metric, or evaluate again"
            )
    return rows
