"""The study's comparison: every arm against the baseline arm, and every model's average, with intervals.

Every interval is drawn with the same random numbers: models with equal answers have equal intervals, and another model
or arm changes none of them.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from wspin.config.explain import value_message
from wspin.errors import StudyError, first_line
from wspin.escaping import escaped
from wspin.rng import row_generator
from wspin.storage.opening import readable
from wspin.storage.provenance import check_recorded

from . import bootstrap
from .samples import TaskSamples, paired_values
from .scores import arm_columns

AVERAGE = "average"

Mean = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]  # of fractions, and of metrics that are none
Name = Annotated[str, AfterValidator(escaped)]  # of a model or arm, as a figure shows it
Models = dict[str, dict[str, list[TaskSamples]]]  # {model: {task: its leaves}}


class Draws(NamedTuple):
    """How intervals are drawn: the number of draws, the share of them inside an interval, and the seed."""

    count: int
    confidence: float
    seed: int

    def rng(self) -> np.random.Generator:
        """A new generator, the same for every interval."""
        return row_generator(self.seed, "bootstrap")


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

    model: Name
    arm: Name
    iteration: Annotated[str, Field(pattern=r"^\d{0,4}$")]
    average: Mean
    low: Mean
    high: Mean


def differences(models: Models, pairs: Iterable[tuple[str, str]], draws: Draws) -> list[Difference]:
    """For each (model, baseline) a row per task, and one for the average.

    Raises `StudyError` if a name is not among the models, or if documents or prompts of the two differ.
    """
    rows = []
    for model, baseline in pairs:
        if missing := [name for name in (model, baseline) if name not in models]:
            expected = f"expected models of the table ({', '.join(models)})"
            raise StudyError(f"{model} against {baseline}: {expected}, found {missing[0]!r}")
        pairs_of = {task: paired_values(leaves, models[baseline][task]) for task, leaves in models[model].items()}
        first, second = ({task: values[side] for task, values in pairs_of.items()} for side in (0, 1))
        estimate = bootstrap.paired_difference(first, second, draws.count, draws.confidence, draws.rng())
        sizes = {task: sum(map(len, strata)) for task, strata in first.items()}
        for task, interval in {**estimate.tasks, AVERAGE: estimate.average}.items():
            rows.append(Difference(model, baseline, task, *interval, sizes.get(task, sum(sizes.values()))))
    return rows


def averages(models: Models, draws: Draws) -> list[Average]:
    """The average of every model, with its interval."""
    rows = []
    for model, tasks in models.items():
        values = {task: [leaf.values for leaf in leaves] for task, leaves in tasks.items()}
        interval = bootstrap.estimate(values, draws.count, draws.confidence, draws.rng()).average
        rows.append(Average(model, *arm_columns(model), *interval))
    return rows


def read_averages(path: str | Path) -> list[Average]:
    """The rows of `averages` from their CSV. Raises `StudyError` if there is none, or it is damaged or malformed."""
    check_recorded(path)
    try:
        with open(path, newline="", opener=readable) as file:
            table = csv.reader(file)
            header, rows = next(table, []), list(table)
    except FileNotFoundError:
        raise StudyError(f"{path}: expected a table of averages, found no file; make the differences first") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: expected a table of averages, found {first_line(error)}; make it again") from None
    if tuple(header) != Average._fields or not rows:
        expected, found = f"{','.join(Average._fields)} and rows below it", ",".join(header) or "nothing"
        raise StudyError(f"{path}: header: expected {expected}, found {found} and {len(rows)}; make it again")
    try:
        return TypeAdapter(list[Average]).validate_python(rows)
    except ValidationError as error:
        mistake = error.errors()[0]
        row, *column = mistake["loc"]
        place = f"row {row + 1}: {Average._fields[column[0]] if column else 'fields'}"
        raise StudyError(f"{path}: {place}: {value_message(mistake)}; make the table again") from None
