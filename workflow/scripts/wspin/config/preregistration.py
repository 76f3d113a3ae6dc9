"""The preregistration of a study: the family of tests that was named before its results were looked at."""

import re
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from wspin.errors import StudyError

from .base import ENTRY_NAME, Confidence, Section, Seed, Task
from .explain import complaints_of
from .reader import complaint_line, read_layer

AVERAGE = "average"  # stands among the tasks of a table
LAST = "last"  # in place of an iteration's number


def _contrast(text: str) -> str:
    names = text.split(" - ")
    if len(names) != 2 or not all(re.fullmatch(ENTRY_NAME, name) for name in names):
        raise ValueError("expected `arm - baseline` with blanks around the sign, names without iteration or seed")
    if names[0] == names[1]:
        raise ValueError("expected `arm - baseline`, two names")
    return text


def _iteration(value: Any) -> Any:
    if value != LAST and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"expected `{LAST}` or the number of an iteration")
    return value


def _distinct(values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError("expected every entry once; remove the repetition")
    return values


def _arms(contrasts: list[str]) -> list[str]:
    pairs = [contrast.split(" - ") for contrast in contrasts]
    if turned := [f"`{first} - {second}`" for first, second in pairs if [second, first] in pairs]:
        raise ValueError(f"expected every two names once; remove one of {' and '.join(turned[:2])}")
    names = list(chain(*pairs))
    replicates = [name for name in names if re.sub(r"\.s\d+$", "", name) in {*names} - {name}]
    if replicates:
        raise ValueError(f"expected arms and models, whose replicates belong to them; remove {replicates[0]!r}")
    return contrasts


Distinct = AfterValidator(_distinct)


class Preregistration(Section):
    """The family: every contrast on every task at every iteration by every test, and the level of all together."""

    level: Confidence = Field(description="largest share of families of true nulls in which any is called significant")
    contrasts: Annotated[
        list[Annotated[str, AfterValidator(_contrast)]], Field(min_length=1), Distinct, AfterValidator(_arms)
    ] = Field(description="`arm - baseline`: arms, or trained models of the registry; their replicates belong to them")
    tasks: Annotated[list[Task], Field(min_length=1), Distinct] = Field(
        description=f"tasks of `report.metrics`, and `{AVERAGE}`"
    )
    iterations: Annotated[list[Annotated[int | str, BeforeValidator(_iteration)]], Field(min_length=1), Distinct] = (
        Field(description=f"numbers, or `{LAST}`: the last iteration that both arms have")
    )
    tests: Annotated[list[Literal["mcnemar", "documents", "seeds"]], Field(min_length=1), Distinct] = Field(
        description="mcnemar: each seed's documents, right and wrong answers; documents: the mean over seeds of "
        "each document's difference; seeds: the mean of the seeds' differences"
    )
    seeds: Annotated[list[Seed], Field(min_length=1), Distinct] | None = Field(
        None, description="those that both sides of a contrast have; with others it is not tested. Default: any"
    )

    @field_validator("tests")
    @classmethod
    def _of_single_tasks(cls, tests: list[str], info: ValidationInfo) -> list[str]:
        if "mcnemar" in tests and AVERAGE in info.data.get("tasks", ()):
            expected = f"mcnemar counts right and wrong answers, and `{AVERAGE}` is a mean of tasks"
            raise ValueError(f"expected tests of all `tasks`: {expected}; remove one of the two")
        return tests

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(arm, baseline) of every contrast."""
        return [tuple(contrast.split(" - ")) for contrast in self.contrasts]


def read_preregistration(file: str | Path) -> Preregistration:
    """The family that a file names. Raises `StudyError` with one line per mistake."""
    layer = read_layer(file, "write them, or do not name it in report.preregistration")
    try:
        return Preregistration.model_validate(layer.values)
    except ValidationError as error:
        places, complaints = {(): str(file), **layer.places}, complaints_of(error, Preregistration)
        raise StudyError(*(complaint_line(places, *complaint) for complaint in complaints)) from None
