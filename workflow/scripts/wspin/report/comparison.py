"""The study's comparison: every arm against the baseline arm, and every model's average, with intervals.

Each interval is drawn with the same random numbers, so that models with equal answers have equal intervals, and one
more model or arm changes no other's.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from wspin.errors import StudyError
from wspin.rng import row_generator

from . import bootstrap
from .samples import TaskSamples, joined
from .scores import arm_and_iteration

AVERAGE = "average"

Models = dict[str, dict[str, list[TaskSamples]]]  # {model: {task: its leaves}}


class Draws(NamedTuple):
    """How the intervals are made: draws of a bootstrap, the share that an interval holds, the seed."""

    count: int
    confidence: float
    seed: int


class Difference(NamedTuple):
    """Model minus baseline on a task, or on the `average` of the tasks, as fractions; n documents."""

    model: str
    baseline: str
    task: str
    difference: float
    low: float
    high: float
    n: int


class Average(NamedTuple):
    """Plain mean of a model's tasks, as fractions; `arm` and `iteration` are empty for models of the registry."""

    model: str
    arm: str
    iteration: Annotated[str, Field(pattern=r"^\d*$")]
    average: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


def differences(models: Models, pairs: Iterable[tuple[str, str]], draws: Draws) -> list[Difference]:
    """For each (model, baseline) a row per task, and one for the average.

    Raises `StudyError` if a name is not among the models, or if two were not asked the same.
    """
    rows = []
    for model, baseline in pairs:
        for name in (model, baseline):
            if name not in models:
                known = ", ".join(models)
                raise StudyError(f"{model} against {baseline}: expected models of the table ({known}), found {name!r}")
        sides = {task: joined(items, models[baseline][task]) for task, items in models[model].items()}
        first, second = ({task: side[i] for task, side in sides.items()} for i in (0, 1))
        found = bootstrap.paired_difference(first, second, *_drawn(draws))
        sizes = {task: sum(map(len, strata)) for task, strata in first.items()}
        for task, interval in {**found.tasks, AVERAGE: found.average}.items():
            rows.append(Difference(model, baseline, task, *interval, sizes.get(task, sum(sizes.values()))))
    return rows


def averages(models: Models, draws: Draws) -> list[Average]:
    """The average of every model, with its interval."""
    rows = []
    for model, tasks in models.items():
        values = {task: [leaf.values for leaf in items] for task, items in tasks.items()}
        interval = bootstrap.estimate(values, *_drawn(draws)).average
        rows.append(Average(model, *arm_and_iteration(model), *interval))
    return rows


def _drawn(draws: Draws) -> tuple:
    return draws.count, draws.confidence, row_generator(draws.seed, "bootstrap")


def read_averages(path: str | Path) -> list[Average]:
    """The rows that `averages` made, from CSV. Raises `StudyError` if there is none or one is malformed."""
    try:
        with open(path, newline="") as file:
            table = csv.reader(file)
            header, rows = next(table, []), list(table)
    except FileNotFoundError:
        raise StudyError(f"{path}: expected a table of averages, found no file; make the differences first") from None
    if tuple(header) != Average._fields or not rows:
        expected, found = ",".join(Average._fields), ",".join(header) or "nothing"
        raise StudyError(
            f"{path}: header: expected {expected} and rows below it, found {found} and {len(rows)}; make it again"
        )
    try:
        return TypeAdapter(list[Average]).validate_python(rows)
    except ValidationError as error:
        one = error.errors()[0]
        row, *column = one["loc"]
        place = f"row {row + 1}: {Average._fields[column[0]] if column else 'fields'}"
        raise StudyError(f"{path}: {place}: {one['msg']}, found {one['input']!r}; make the table again") from None
