"""Reads the score files of several models and refuses to compare scores that were made in different ways.

Values are fractions, in the files and here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wspin.config.explain import complaints_of
from wspin.config.preregistration import AVERAGE
from wspin.errors import StudyError
from wspin.iteration import Iteration
from wspin.storage.files import read_json

Groups = Mapping[str, Sequence[str]]  # {mean of a table: its tasks}


class TaskScores(BaseModel):
    """The result of a task or group, of a group with its subtasks. Metrics have lm-eval's keys, `{metric},{filter}`."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    shots: int
    version: int | float | str
    n: Annotated[int, Field(ge=0, lt=2**63)]
    prompt_hash: str
    cut: int = 0  # requests longer than the model's context, which lost their beginning
    metrics: dict[str, float]
    stderr: dict[str, float | None]
    subtasks: dict[str, "TaskScores"] = {}

    @model_validator(mode="after")
    def _same_keys(self) -> Self:
        if self.metrics.keys() != self.stderr.keys():
            expected = ", ".join(self.metrics)
            raise ValueError(f"stderr holds {', '.join(self.stderr)}; expected {expected}, as in metrics")
        return self


class Scores(BaseModel):
    """A score file: the result of one suite for one model. `model` is the model's fingerprint."""

    model_config = ConfigDict(strict=True, frozen=True)

    suite: str
    model: str
    dtype: str  # of the model's weights
    engine: str
    autocast: str
    token_budget: int | None
    batch_size: int
    seeds: list[int]
    versions: dict[str, str]
    template: str | None
    tasks: dict[str, TaskScores]


class ScoreFile(NamedTuple):
    """A score file with its path and the name of its model in the study."""

    model: str
    path: Path
    scores: Scores


def arm_columns(model: str) -> tuple[str, int] | tuple[None, None]:
    """The columns `arm` and `iteration` of a frame; both missing for a model of the registry."""
    return Iteration.parse(model) or (None, None)


def split_pairs(form: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    """(left, right) of texts in a form such as `TASK=METRIC`. Raises `StudyError` at a text in another form."""
    pairs = []
    for text in texts:
        left, _, right = text.partition("=")
        if not (left and right):
            raise StudyError(f"expected {form}, found {text!r}")
        pairs.append((left, right))
    return pairs


# Groups of tasks


def split_groups(texts: Iterable[str], metrics: Mapping[str, str]) -> dict[str, list[str]]:
    """{group: its tasks, in the order of `metrics`} of texts GROUP=TASK,TASK. Raises `StudyError` at unknown tasks."""
    groups = {}
    for group, tasks in split_pairs("GROUP=TASK,TASK", texts):
        if unknown := [task for task in tasks.split(",") if task not in metrics]:
            found = f"found {unknown[0]!r}; correct report.groups"
            raise StudyError(f"report.groups: {group}: expected tasks of {', '.join(metrics)}, {found}")
        groups[group] = [task for task in metrics if task in tasks.split(",")]
    return groups


def with_average(groups: Groups, tasks: Iterable[str]) -> dict[str, Sequence[str]]:
    """The groups with `average` before the others: the mean of all tasks, unless it is given."""
    return {AVERAGE: list(tasks), **groups}


def table_columns(groups: Groups, tasks: Iterable[str]) -> list[str]:
    """The columns of a table: each group behind those of its tasks that are new, then the tasks of no group."""
    grouped = (name for group, names in with_average(groups, tasks).items() for name in (*names, group))
    return list(dict.fromkeys((*grouped, *tasks)))


def means_note(groups: Groups) -> str:
    """Which tasks the means of a table are of, without a full stop."""
    others = (f"; {group} is that of {', '.join(tasks)}" for group, tasks in groups.items() if group != AVERAGE)
    return f"The average is the plain mean of {', '.join(groups.get(AVERAGE, ())) or 'the tasks'}{''.join(others)}"


# Reading


def read_scores(results: str | Path, models: Sequence[str], suites: Sequence[str]) -> list[ScoreFile]:
    """The scores of every model on every suite, models in the order given.

    Raises `StudyError` if a file is missing or malformed, or if two were made in different ways.
    """
    pairs = product(dict.fromkeys(models), dict.fromkeys(suites))
    paths = [(model, suite, Path(results) / model / "scores" / f"{suite}.json") for model, suite in pairs]
    files = [ScoreFile(model, path, _read_file(path, suite)) for model, suite, path in paths]
    check_comparable(files)
    return files


def _read_file(path: Path, suite: str) -> Scores:
    try:
        scores = Scores.model_validate(read_json(path, "scores", "evaluate the model again"))
    except FileNotFoundError:
        message = f"expected the scores of suite {suite!r}, found no file; evaluate the model first"
        raise StudyError(f"{path}: {message}") from None
    except ValidationError as error:
        place, message = complaints_of(error, Scores)[0]
        raise StudyError(f"{path}: {'.'.join(place)}: {message}; evaluate the model again") from None
    if scores.suite != suite:
        raise StudyError(f"{path}: suite: expected {suite!r}, found {scores.suite!r}; evaluate the model again")
    return scores


def check_comparable(files: Iterable[ScoreFile]) -> None:
    """Refuse scores made in different ways. Raises `StudyError` with both files and the values that differ."""
    first: dict[str, tuple[Path, Any]] = {}
    for file in files:
        for place, value in _conditions(file):
            path, expected = first.setdefault(place, (file.path, value))
            if value != expected:
                raise StudyError(
                    f"{file.path}: {place}: expected {expected!r} as in {path}, found {value!r}; "
                    "scores made in different ways do not compare: evaluate one of the two again"
                )


def _conditions(file: ScoreFile) -> Iterator[tuple[str, Any]]:
    """(place, value) of everything that must be equal wherever it occurs in the table."""
    model, _, scores = file
    yield f"model (of {model})", scores.model
    yield f"dtype (of {model}, engine {scores.engine})", scores.dtype  # vLLM rounds weights with `eval.autocast`
    for key in ("autocast", "batch_size", "seeds"):
        yield key, getattr(scores, key)
    for key in ("engine", "template"):  # lm-eval's own tasks have no template
        yield f"{key} (of suite {scores.suite})", getattr(scores, key)
    for key in ("versions", "token_budget"):
        yield f"{key} (of engine {scores.engine})", getattr(scores, key)
    for task, result in scores.tasks.items():
        yield f"tasks.{task} (suite)", scores.suite
        for key in ("shots", "version", "n", "prompt_hash"):
            yield f"tasks.{task}.{key}", getattr(result, key)


def cut_note(files: Iterable[ScoreFile]) -> str:
    """A sentence about the scores behind which requests were cut to fit a context; empty where none was."""
    cuts = [
        f"{file.model} {task} {result.cut}"
        for file in files
        for task, result in sorted(file.scores.tasks.items())
        if result.cut
    ]
    return f" Requests cut on the left to fit the model's context: {', '.join(cuts)}." if cuts else ""


def dtype_note(files: Iterable[ScoreFile]) -> str:
    """A sentence about the models whose weights were rounded when they were loaded; empty where none were."""
    models = dict.fromkeys(file.model for file in files if file.scores.dtype != "float32")
    return f" Loaded in bfloat16: {', '.join(models)}." if models else ""


# The chosen metrics


def check_chosen(files: Iterable[ScoreFile], metrics: Mapping[str, str]) -> None:
    """Raises `StudyError` if a model lacks a task or its metric, if a task has no metric, or a value is no fraction."""
    if AVERAGE in metrics:
        raise StudyError(f"report.metrics: expected tasks, found {AVERAGE!r}, the name of their mean; rename the task")
    tasks: dict[str, set[str]] = {}
    for file in files:
        for task, result in file.scores.tasks.items():
            _check_metric(file.path, task, result, metrics)
        tasks.setdefault(file.model, set()).update(file.scores.tasks)
    for model, present in tasks.items():
        for task in metrics:
            if task not in present:
                found = ", ".join(sorted(present))
                raise StudyError(f"{model}: expected scores of task {task!r}, found {found}; evaluate its suite")


def _check_metric(path: Path, task: str, result: TaskScores, metrics: Mapping[str, str]) -> None:
    if task not in metrics:
        raise StudyError(f"{path}: tasks.{task}: expected a metric chosen for it, found none; add it to report.metrics")
    key = metrics[task]
    place = f"{path}: tasks.{task}.metrics"
    if key not in result.metrics:
        keys = ", ".join(sorted(result.metrics))
        raise StudyError(f"{place}: expected {key!r}, found {keys}; choose one of them in report.metrics")
    value = result.metrics[key]
    if not 0.0 <= value <= 1.0:
        raise StudyError(f"{place}.{key}: expected a fraction, found {value!r}; choose another")
