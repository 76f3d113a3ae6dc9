"""The study's comparison: every arm against the baseline arm, and every model's average, with intervals.

Every interval is drawn with the same random numbers: models with equal answers have equal intervals, and another model
or arm changes none of them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from wspin.errors import StudyError
from wspin.progress import with_progress
from wspin.rng import row_generator

from . import bootstrap
from .bootstrap import Estimate, Interval, Tasks
from .csv_rows import Mean, Name, read_rows
from .samples import TaskSamples, paired_values
from .scores import AVERAGE, Groups, arm_columns, table_columns, with_average

Models = dict[str, dict[str, list[TaskSamples]]]  # {model: {task: its leaves}}


class Draws(NamedTuple):
    """How intervals are drawn: the number of draws, the share of them inside an interval, and the seed."""

    count: int
    confidence: float
    seed: int

    def rng(self) -> np.random.Generator:
        """A new generator, the same for every interval."""
        return row_generator(self.seed, "bootstrap")


class Average(NamedTuple):
    """A row of a file of averages: the plain mean of a model's tasks, as fractions."""

    model: Name
    arm: Name
    iteration: Annotated[str, Field(pattern=r"^\d{0,4}$")]
    average: Mean
    low: Mean
    high: Mean


class Difference(NamedTuple):
    """A row of a file of differences, as fractions, as far as it is drawn."""

    model: Name
    baseline: Name
    task: str
    difference: Mean
    low: Mean
    high: Mean


def differences(
    models: Models, pairs: Iterable[tuple[str, str]], draws: Draws, groups: Groups | None = None
) -> pd.DataFrame:
    """For each (model, baseline) a row for each of `table_columns`: model minus baseline, n documents.

    Differences and bounds are fractions. Raises `StudyError` if a name is not among the models, or if documents or
    prompts of the two differ.
    """
    rows, distinct = [], dict.fromkeys(pairs)
    for model, baseline in with_progress(distinct, len(distinct), "report: differences", "pairs"):
        first, second = paired_tasks(models, model, baseline)

        def estimate(tasks: Sequence[str], first: Tasks = first, second: Tasks = second) -> Estimate:
            sides = ({task: values[task] for task in tasks} for values in (first, second))
            return bootstrap.paired_difference(*sides, draws.count, draws.confidence, draws.rng())

        averaged = with_average(groups or {}, first)
        for column, interval in _intervals(estimate, groups or {}, list(first)).items():
            n = sum(len(stratum) for task in averaged.get(column, [column]) for stratum in first[task])
            rows.append((model, baseline, column, *interval, n))
    return pd.DataFrame(rows, columns=["model", "baseline", "task", "difference", "low", "high", "n"])


def paired_tasks(models: Models, model: str, baseline: str) -> tuple[Tasks, Tasks]:
    """The tasks of a model and of its baseline: entry i of a stratum is the same document after the same prompt.

    Raises `StudyError` as `differences`.
    """
    if missing := [name for name in (model, baseline) if name not in models]:
        expected = f"expected models of the table ({', '.join(models)})"
        raise StudyError(f"{model} against {baseline}: {expected}, found {missing[0]!r}")
    pairs = {task: paired_values(leaves, models[baseline][task]) for task, leaves in models[model].items()}
    first, second = ({task: values[side] for task, values in pairs.items()} for side in (0, 1))
    return first, second


def _intervals(
    estimate: Callable[[Sequence[str]], Estimate], groups: Groups, tasks: Sequence[str]
) -> dict[str, Interval]:
    """The interval of each of `table_columns`; what is averaged is drawn alone, so that no other task changes it."""
    intervals: dict[str, Interval] = {}
    for group, names in with_average(groups, tasks).items():
        drawn = estimate(names)
        intervals = {**drawn.tasks, **intervals, group: drawn.average}  # of a task its first one
    if others := [task for task in tasks if task not in intervals]:
        intervals |= estimate(others).tasks
    return {column: intervals[column] for column in table_columns(groups, tasks)}


def averages(models: Models, draws: Draws, groups: Groups | None = None) -> pd.DataFrame:
    """A row per model, by the fields of `Average`; `arm` and `iteration` are missing for models of the registry."""
    rows = []
    for model, tasks in with_progress(models.items(), len(models), "report: averages", "models"):
        averaged = with_average(groups or {}, tasks)[AVERAGE]
        values = {task: [leaf.values for leaf in tasks[task]] for task in averaged}
        interval = bootstrap.estimate(values, draws.count, draws.confidence, draws.rng()).average
        rows.append((model, *arm_columns(model), *interval))
    return _average_frame(rows)


def _average_frame(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=Average._fields).replace("", None)
    return frame.assign(iteration=pd.to_numeric(frame.iteration).astype("Int64"))


def read_averages(path: str | Path) -> pd.DataFrame:
    """The frame of `averages` from its CSV. Raises `StudyError` as `read_rows`."""
    return _average_frame(read_rows(path, Average, "averages"))


def read_average_differences(path: str | Path) -> pd.DataFrame:
    """The rows of averages in the CSV of `differences`, by the fields of `Difference`. Raises as `read_rows`."""
    frame = pd.DataFrame(read_rows(path, Difference, "differences", may_be_empty=True), columns=Difference._fields)
    return frame[frame.task == AVERAGE]
