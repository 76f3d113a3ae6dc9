"""Bootstrap intervals of task means and of their average, for one model and for the difference of two.

A *stratum* is an array (n,) of values, one per item, within which items are resampled: a task, or a subtask of a
group. A task is the list of its strata; its mean is the plain mean of all its items, so a group weights its subtasks by
size. All values are fractions.

Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Differences are taken
item by item before anything is resampled, so what two models have in common on an item cancels: Miller, Adding Error
Bars to Evals (2024), arXiv 2411.00640.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wspin.errors import StudyError

BATCH_VALUES = 2_000_000  # resampled values in memory at a time, of all strata together

Floats = NDArray[np.float64]
Tasks = Mapping[str, Sequence[Floats]]


class Interval(NamedTuple):
    """A value and the bounds of its interval, as fractions."""

    value: float
    low: float
    high: float


class Estimate(NamedTuple):
    """The mean of every task, and the plain mean of these means."""

    tasks: dict[str, Interval]
    average: Interval


def paired_difference(
    first: Tasks, second: Tasks, resamples: int, confidence: float, rng: np.random.Generator
) -> Estimate:
    """First model minus second, paired: entry i of a stratum is the same item in both, so (n,) and (n,).

    Raises `ValueError` if tasks or shapes differ (the caller pairs the items), `StudyError` as `estimate`.
    """
    if first.keys() != second.keys():
        raise ValueError(f"expected tasks {sorted(second)}, found {sorted(first)}")
    pairs = {task: list(zip(first[task], second[task], strict=True)) for task in first}
    if unequal := [task for task, strata in pairs.items() if any(a.shape != b.shape for a, b in strata)]:
        raise ValueError(f"expected items in pairs, found strata of other lengths in {unequal}")
    differences = {task: [a - b for a, b in strata] for task, strata in pairs.items()}
    return estimate(differences, resamples, confidence, rng)


def estimate(tasks: Tasks, resamples: int, confidence: float, rng: np.random.Generator) -> Estimate:
    """Means with the percentile intervals that hold `confidence` of `resamples` stratified draws.

    Every draw resamples each stratum (n,), n >= 1, with replacement and independently, and gives the means of all tasks
    and their average at once. The order of the items in a stratum and of the tasks has no influence. If all draws are
    equal the interval has no width. Raises `StudyError` without tasks, with fewer than two draws, and if `confidence`
    is not between 0 and 1.
    """
    from scipy import stats  # slow to import, and not every importer of this module draws

    if not tasks or resamples < 2 or not 0.0 < confidence < 1.0:
        found = f"{len(tasks)} tasks, {resamples} draws, confidence {confidence}"
        raise StudyError(f"bootstrap: expected a task, two draws and a confidence between 0 and 1, found {found}")
    names = sorted(tasks)
    sizes = [[len(stratum) for stratum in tasks[name]] for name in names]
    # Every draw of a single item is that item, also if it stands twice: scipy refuses samples of one.
    strata = [np.sort(np.repeat(s, 2) if len(s) == 1 else s) for name in names for s in tasks[name]]
    result = stats.bootstrap(
        strata,
        lambda *samples, axis: _means([sample.mean(axis=axis) for sample in samples], sizes),
        n_resamples=resamples,
        batch=max(1, BATCH_VALUES // sum(map(len, strata))),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    )
    values = [float(np.concatenate(list(tasks[name])).mean()) for name in names]
    values.append(math.fsum(values) / len(values))
    constant = np.ptp(result.bootstrap_distribution, axis=-1) == 0.0  # its quantiles may be off in the last digit
    lows, highs = (np.where(constant, values, bound).tolist() for bound in result.confidence_interval)
    *intervals, average = map(Interval, values, lows, highs)
    by_name = dict(zip(names, intervals, strict=True))
    return Estimate({task: by_name[task] for task in tasks}, average)


def _means(strata: Sequence[Floats], sizes: Sequence[Sequence[int]]) -> Floats:
    """(tasks + 1, draws): means of the tasks and, last, their average, from the means (draws,) of their strata."""
    remaining = iter(strata)
    means = [np.average([next(remaining) for _ in task], axis=0, weights=task) for task in sizes]
    return np.stack([*means, np.mean(means, axis=0)])
