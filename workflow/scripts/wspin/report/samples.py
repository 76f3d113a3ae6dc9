"""Reads a model's results on every document, checks them against its scores, and pairs two models' documents.

A leaf task (a task, or a subtask of a group) is one stratum of the bootstrap; see `bootstrap`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wspin.errors import StudyError
from wspin.progress import with_progress
from wspin.storage import strict_json, tables

from .bootstrap import Floats
from .scores import ScoreFile, TaskScores, check_chosen

COLUMNS = ["task", "doc_id", "doc_hash", "prompt_hash", "filter", "metrics"]


@dataclass(frozen=True)
class TaskSamples:
    """The n documents of a leaf task in the order of their ids, and the metric's value on each, (n,)."""

    path: Path
    task: str
    documents: list[tuple[int, str]]  # doc_id, doc_hash
    prompts: list[str]  # prompt_hash
    values: Floats


def samples_path(scores: Path) -> Path:
    """The file of samples that belongs to a score file."""
    return scores.with_name(f"{scores.stem}.samples.parquet")


def input_paths(files: Iterable[ScoreFile]) -> list[str]:
    """Every file that `read_samples` reads, and its score file."""
    return [str(path) for file in files for path in (file.path, samples_path(file.path))]


def read_samples(files: Sequence[ScoreFile], metrics: dict[str, str]) -> dict[str, dict[str, list[TaskSamples]]]:
    """{model: {task: its leaves}} of the metric chosen for each task, in the order of `metrics`.

    Raises `StudyError` if a file of samples is missing, malformed or of other scores, or if a score is not the mean of
    its documents; and as `check_chosen`.
    """
    check_chosen(files, metrics)
    models: dict[str, dict[str, list[TaskSamples]]] = {file.model: {} for file in files}
    for file in with_progress(files, len(files), "report: samples", "files"):
        table = _read_table(file)
        for task, result in file.scores.tasks.items():
            names, path = sorted(result.subtasks) or [task], samples_path(file.path)
            leaves = [_leaf_samples(table, path, leaf, metrics[task]) for leaf in names]
            _check_mean(file, task, result, metrics[task], leaves)
            models[file.model][task] = leaves
    return {model: {task: tasks[task] for task in metrics} for model, tasks in models.items()}


def _read_table(file: ScoreFile) -> pa.Table:
    path = samples_path(file.path)
    try:
        table = tables.read_parquet(path, COLUMNS)  # without those that the file lacks
    except FileNotFoundError:
        raise StudyError(f"{path}: expected the samples of {file.path}, found no file; evaluate again") from None
    metadata, scores = tables.metadata(table), file.scores
    expected = {"format": tables.FORMAT, "kind": "samples", "suite": scores.suite, "model": scores.model}
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise StudyError(
                f"{path}: {key}: expected {value!r}, found {metadata.get(key)!r}; "
                f"the samples do not belong to {file.path}: evaluate the model again"
            )
    if table.column_names != COLUMNS:
        missing = ", ".join(name for name in COLUMNS if name not in table.column_names)
        raise StudyError(f"{path}: columns: expected {', '.join(COLUMNS)}; missing: {missing}; evaluate again")
    return table


def _leaf_samples(table: pa.Table, path: Path, leaf: str, key: str) -> TaskSamples:
    """The rows of one leaf under the filter of the metric `{metric},{filter}`: one per document."""
    metric, _, filter_ = key.partition(",")
    rows = table.filter((pc.field("task") == leaf) & (pc.field("filter") == filter_)).sort_by("doc_id")
    columns = {name: rows[name].to_pylist() for name in COLUMNS}
    ids = columns["doc_id"]
    if repeated := [doc_id for doc_id, following in pairwise(ids) if doc_id == following]:
        place = f"{path}: {leaf}, document {repeated[0]}, filter {filter_}"
        raise StudyError(f"{place}: expected one row, found several; evaluate the model again")
    values = [_value(path, leaf, doc_id, metric, text) for doc_id, text in zip(ids, columns["metrics"], strict=True)]
    documents = list(zip(ids, columns["doc_hash"], strict=True))
    return TaskSamples(path, leaf, documents, columns["prompt_hash"], np.array(values, np.float64))


def _value(path: Path, leaf: str, doc_id: int, metric: str, text: str) -> float:
    """The metric's value in a row's JSON object."""
    try:
        value: Any = strict_json.parse(text, distinct=False)[metric]
    except (ValueError, KeyError, TypeError):
        value = text
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise StudyError(
            f"{path}: {leaf}, document {doc_id}: metrics: expected a number under {metric!r}, found {value!r:.100}; "
            "choose a metric that is a mean over documents in report.metrics"
        )
    return float(value)


def _check_mean(file: ScoreFile, task: str, result: TaskScores, key: str, leaves: Sequence[TaskSamples]) -> None:
    """The score must be the mean of all its documents, so that intervals belong to the numbers of the table."""
    place = f"{samples_path(file.path)}: {task}"
    values = np.concatenate([leaf.values for leaf in leaves])
    if len(values) != result.n:
        raise StudyError(
            f"{place}: expected {result.n} documents with {key!r} as in {file.path}, found {len(values)}; "
            "the files do not belong together: evaluate the model again"
        )
    mean = float(values.mean())
    if not math.isclose(mean, result.metrics[key], rel_tol=1e-9):
        raise StudyError(
            f"{place}: expected documents with mean {result.metrics[key]!r}, the {key!r} in {file.path}, "
            f"found {mean!r}; the metric is no mean over documents (choose another in report.metrics), or the files do "
            "not belong together (evaluate the model again)"
        )


# Pairs of documents


def paired_values(first: Sequence[TaskSamples], second: Sequence[TaskSamples]) -> tuple[list[Floats], list[Floats]]:
    """The values of two models on a task, by leaf (n,): entry i is the same document after the same prompt in both.

    Raises `StudyError` with file, task and document where documents or prompts differ.
    """
    subtasks, others = ([leaf.task for leaf in leaves] for leaves in (first, second))
    if subtasks != others:
        expected = f"expected subtasks {', '.join(others)} as in {second[0].path}"
        raise StudyError(f"{first[0].path}: {expected}, found {', '.join(subtasks)}")
    for leaf, other in zip(first, second, strict=True):
        _check_documents(leaf, other)
    return [leaf.values for leaf in first], [leaf.values for leaf in second]


def _check_documents(leaf: TaskSamples, other: TaskSamples) -> None:
    if unpaired := set(leaf.documents) ^ set(other.documents):
        doc_id, doc_hash = min(unpaired)
        has, lacks = (leaf, other) if (doc_id, doc_hash) in leaf.documents else (other, leaf)
        raise StudyError(
            f"{lacks.path}: {lacks.task}, document {doc_id}: expected doc_hash {doc_hash} as in {has.path} "
            f"(n = {len(has.documents)}), found none (n = {len(lacks.documents)}); evaluate one of the two again"
        )
    for (doc_id, _), prompt, expected in zip(leaf.documents, leaf.prompts, other.prompts, strict=True):
        if prompt != expected:
            raise StudyError(
                f"{leaf.path}: {leaf.task}, document {doc_id}: prompt_hash: expected {expected} as in {other.path}, "
                f"found {prompt}; other prompts do not compare: evaluate one of the two again"
            )
