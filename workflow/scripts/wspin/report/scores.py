"""Reads the scores of several models, and refuses to put scores side by side that were made in different ways.

Values are fractions in the score files and here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wspin.config.explain import complaints_of
from wspin.errors import StudyError


class TaskScores(BaseModel):
    """One task's result, of a group with its leaves'. Keys of metrics and stderr are lm-eval's `{metric},{filter}`."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    shots: int
    version: int | float | str
    n: int
    prompt_hash: str
    metrics: dict[str, float]
    stderr: dict[str, float | None]
    subtasks: dict[str, TaskScores] = {}

    @model_validator(mode="after")
    def _same_keys(self) -> TaskScores:
        if self.metrics.keys() != self.stderr.keys():
            raise ValueError(
                f"stderr holds {', '.join(self.stderr)}; expected {', '.join(self.metrics)}, as in metrics"
            )
        return self


class Scores(BaseModel):
    """A score file: the result of one suite for one model. `model` is the model's fingerprint."""

    model_config = ConfigDict(strict=True, frozen=True)

    suite: str
    model: str
    engine: str
    batch_size: int
    seeds: list[int]
    versions: dict[str, str]
    template: str | None
    tasks: dict[str, TaskScores]


class Scored(NamedTuple):
    """A score file, where it lies, and the name of its model in the study."""

    model: str
    path: Path
    scores: Scores


class Cell(NamedTuple):
    """A value with its standard error, as fractions."""

    value: float
    stderr: float | None


def arm_and_iteration(model: str) -> tuple[str, str]:
    """(arm, k) of `{arm}/ite{k}`; both empty for a model of the registry."""
    arm, _, iteration = model.rpartition("/ite")
    return arm, iteration if arm else ""


def pairs(form: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    """Both sides of texts such as `TASK=METRIC`, the `form`. Raises `StudyError` at a text that has another form."""
    found = []
    for text in texts:
        first, _, second = text.partition("=")
        if not (first and second):
            raise StudyError(f"expected {form}, found {text!r}")
        found.append((first, second))
    return found


# Reading


def read(results: str | Path, models: Sequence[str], suites: Sequence[str]) -> list[Scored]:
    """The scores of every model on every suite, models in the order given.

    Raises `StudyError` if a file is missing or malformed, or if two were made in different ways.
    """
    paths = [(model, suite, Path(results) / model / "scores" / f"{suite}.json") for model in models for suite in suites]
    scored = [Scored(model, path, _read_one(path, suite)) for model, suite, path in paths]
    check_comparable(scored)
    return scored


def _read_one(path: Path, suite: str) -> Scores:
    try:
        scores = Scores.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise StudyError(
            f"{path}: expected the scores of suite {suite!r}, found no file; evaluate the model first"
        ) from None
    except ValidationError as error:
        place, message = complaints_of(error, Scores)[0]
        raise StudyError(f"{path}: {'.'.join(place) or 'file'}: {message}; evaluate the model again") from None
    if scores.suite != suite:
        raise StudyError(f"{path}: suite: expected {suite!r}, found {scores.suite!r}; evaluate the model again")
    return scores


def check_comparable(scored: Iterable[Scored]) -> None:
    """Refuse scores made in different ways. Raises `StudyError` with both files and the values that differ."""
    first: dict[str, tuple[Path, Any]] = {}
    for one in scored:
        for place, value in _conditions(one):
            there, expected = first.setdefault(place, (one.path, value))
            if value != expected:
                raise StudyError(
                    f"{one.path}: {place}: found {value!r}, expected {expected!r} as in {there}; "
                    "scores made in different ways do not compare: evaluate one of the two again"
                )


def _conditions(one: Scored) -> Iterator[tuple[str, Any]]:
    """(place, value) of all that must be equal wherever it occurs in the table."""
    yield f"model (of {one.model})", one.scores.model
    for key in ("engine", "versions", "batch_size", "seeds"):
        yield key, getattr(one.scores, key)
    yield f"template (of suite {one.scores.suite})", one.scores.template  # lm-eval's own tasks have none
    for task, result in one.scores.tasks.items():
        yield f"tasks.{task} (suite)", one.scores.suite
        for key in ("shots", "version", "n", "prompt_hash"):
            yield f"tasks.{task}.{key}", getattr(result, key)


# The chosen metrics


def select(scored: Iterable[Scored], metrics: dict[str, str]) -> dict[str, dict[str, Cell]]:
    """{model: {task: cell}} of the metric chosen for each task, in the order of `metrics`.

    Raises `StudyError` if a model lacks a task or its metric, if a task has no metric, or if a value is no fraction.
    """
    found: dict[str, dict[str, Cell]] = {}
    for one in scored:
        cells = found.setdefault(one.model, {})
        for task, result in one.scores.tasks.items():
            cells[task] = _cell(one.path, task, result, metrics)
    for model, cells in found.items():
        for task in metrics:
            if task not in cells:
                raise StudyError(
                    f"{model}: no scores of task {task!r}, found {', '.join(sorted(cells))}; evaluate its suite"
                )
    return {model: {task: cells[task] for task in metrics} for model, cells in found.items()}


def _cell(path: Path, task: str, result: TaskScores, metrics: dict[str, str]) -> Cell:
    if task not in metrics:
        raise StudyError(f"{path}: tasks.{task}: no metric is chosen for it; name one in report.metrics")
    key = metrics[task]
    if key not in result.metrics:
        known = ", ".join(sorted(result.metrics))
        raise StudyError(
            f"{path}: tasks.{task}.metrics: expected {key!r}, found {known}; choose one of them in report.metrics"
        )
    if not 0.0 <= result.metrics[key] <= 1.0:
        raise StudyError(
            f"{path}: tasks.{task}.metrics.{key}: expected a fraction, found {result.metrics[key]!r}; choose another"
        )
    return Cell(result.metrics[key], result.stderr[key])
