"""Scores and differences pooled over replicates: runs of one arm or model that differ in their seed.

With n seeds and N documents, a value per seed and document, and for a difference model minus baseline at equal seed:

    mean        of the n seeds' means over the documents
    seed_sd     standard deviation of these n means, n - 1 degrees of freedom
    item_stderr standard error over the documents of their means over the seeds, in a group within its subtasks
    stderr      sqrt(seed_sd^2 / n + item_stderr^2)

What a seed does to single documents is part of both terms, so `stderr` errs on the large side. Intervals are the mean
-+ t times an error, with the degrees of freedom of Satterthwaite, Biometrics Bulletin 2 (1946), 110: close to n - 1
where the seeds dominate, to those of the documents where these do. The documents' part is that of Miller, Adding Error
Bars to Evals (2024), arXiv 2411.00640. All values are fractions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from wspin.errors import StudyError

from .bootstrap import Floats, Tasks
from .comparison import Models, paired_tasks
from .samples import TaskSamples, paired_values
from .scores import Groups, arm_columns, table_columns, with_average


class Pooled(NamedTuple):
    """A task or mean of tasks; with one seed `seed_sd`, `stderr`, `low` and `high` are unknown, NaN."""

    seeds: int
    mean: float
    seed_sd: float
    item_stderr: float
    stderr: float
    low: float  # of the interval of documents and seeds
    high: float
    item_low: float  # of that of the documents alone
    item_high: float
    n: int  # documents


Leaves = Mapping[str, Sequence[TaskSamples]]  # by task
COLUMNS = ("model", "arm", "iteration", "baseline", "task", *Pooled._fields)


class Variance(NamedTuple):
    """An estimate of the variance of a mean, with its degrees of freedom."""

    value: float
    freedom: float


def pool(
    models: Models, names: Mapping[str, str], pairs: Iterable[tuple[str, str]], confidence: float, groups: Groups
) -> pd.DataFrame:
    """By `COLUMNS`: a row for each of `table_columns`, of pooled models, then of pooled (model, baseline) pairs.

    `names`: of `replicates.pooled_models`. `baseline` is missing in rows of scores. Raises `StudyError` if a name is
    not among the models, if documents or prompts differ, or if `confidence` is not between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:
        raise StudyError(f"--confidence: expected a number between 0 and 1, found {confidence}")
    firsts: dict[str, Leaves] = {}
    replicates: dict[tuple[str, str | None], list[Tasks]] = {}
    for model, tasks in models.items():
        first = firsts.setdefault(names[model], tasks)
        values = {task: paired_values(leaves, first[task])[0] for task, leaves in tasks.items()}
        replicates.setdefault((names[model], None), []).append(values)
    for model, baseline in dict.fromkeys(pairs):
        values, others = paired_tasks(models, model, baseline)
        differences = {task: [a - b for a, b in zip(values[task], others[task], strict=True)] for task in values}
        replicates.setdefault((names[model], names[baseline]), []).append(differences)
    rows = [
        (model, *arm_columns(model), baseline, task, *pooled)
        for (model, baseline), tasks in replicates.items()
        for task, pooled in pool_tasks(tasks, confidence, groups).items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"iteration": "Int64"})


def pool_tasks(replicates: Sequence[Tasks], confidence: float, groups: Groups) -> dict[str, Pooled]:
    """The tasks of n >= 1 replicates and their means, by `table_columns`.

    A task has strata (N,) of values, entry i the same document in all replicates.
    """
    means, items, sizes = {}, {}, {}
    for task in replicates[0]:
        strata = [np.mean(values, axis=0) for values in zip(*(tasks[task] for tasks in replicates), strict=True)]
        means[task] = np.array([np.concatenate(list(tasks[task])).mean() for tasks in replicates])
        items[task], sizes[task] = item_variance(strata), sum(map(len, strata))
    averaged = with_average(groups, means)
    pooled = {}
    for column in table_columns(groups, means):
        tasks = averaged.get(column, [column])
        parts = [Variance(items[task].value / len(tasks) ** 2, items[task].freedom) for task in tasks]
        n = sum(sizes[task] for task in tasks)
        pooled[column] = _pooled(np.mean([means[task] for task in tasks], axis=0), parts, n, confidence)
    return pooled


def item_variance(strata: Sequence[Floats]) -> Variance:
    """Of the mean of all N values, from the variance within strata, as lm-eval pools the subtasks of a group.

    NaN where no stratum has two values.
    """
    n = sum(map(len, strata))
    squares = math.fsum(float(np.square(values - values.mean()).sum()) for values in strata)
    freedom = n - len(strata)
    return Variance(squares / freedom / n if freedom else math.nan, freedom)


def _pooled(means: Floats, items: Sequence[Variance], n: int, confidence: float) -> Pooled:
    """One row from the means of the seeds (n,) and the independent parts of the documents' variance."""
    seeds, mean = len(means), float(means.mean())
    seed_sd = float(means.std(ddof=1)) if seeds > 1 else math.nan
    parts = [*items, Variance(seed_sd**2 / seeds, seeds - 1)]
    half, item_half = half_width(parts, confidence), half_width(items, confidence)
    errors = (seed_sd, math.sqrt(sum(part.value for part in items)), math.sqrt(sum(part.value for part in parts)))
    return Pooled(seeds, mean, *errors, mean - half, mean + half, mean - item_half, mean + item_half, n)


def half_width(parts: Sequence[Variance], confidence: float) -> float:
    """Half the interval of a mean whose variance is the sum of independent estimates; NaN if one of them is."""
    from scipy.special import stdtrit  # slow to import, and not every importer of this module pools

    variance = math.fsum(part.value for part in parts)
    if not variance > 0.0:  # all values equal, or unknown
        return variance
    freedom = variance**2 / math.fsum(part.value**2 / part.freedom for part in parts)
    return float(stdtrit(freedom, (1.0 + confidence) / 2.0)) * math.sqrt(variance)
