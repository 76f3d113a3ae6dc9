"""Reads what a model got on every single document, checks it against the scores, and joins two models' documents.

A leaf task (a task, or a subtask of a group) is one stratum of the bootstrap; see `statistics`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wspin.errors import StudyError, first_line
from wspin.storage import tables

from .bootstrap import Floats
from .scores import Scored, TaskScores, select

COLUMNS = ["task", "doc_id", "doc_hash", "prompt_hash", "filter", "metrics"]


@dataclass(frozen=True)
class TaskSamples:
    """A leaf task's n documents in the order of their ids, each once, and what the model got on them, (n,)."""

    path: Path
    task: str
    documents: list[tuple[int, str]]  # doc_id, doc_hash
    prompts: list[str]  # prompt_hash
    values: Floats


def samples_path(scores: Path) -> Path:
    """Where the samples behind a score file lie."""
    return scores.with_name(f"{scores.stem}.samples.parquet")


def paths(scored: Iterable[Scored]) -> list[str]:
    """Every file that `read` reads, and the scores it belongs to."""
    return [str(path) for one in scored for path in (one.path, samples_path(one.path))]


def read(scored: Sequence[Scored], metrics: dict[str, str]) -> dict[str, dict[str, list[TaskSamples]]]:
    """{model: {task: its leaves}} of the metric chosen for each task, in the order of `metrics`.

    Raises `StudyError` if a file of samples is missing, malformed or of other scores, or if a score is not the mean of
    its documents; and as `select`.
    """
    cells = select(scored, metrics)
    found: dict[str, dict[str, list[TaskSamples]]] = {model: {} for model in cells}
    for one in scored:
        samples = _samples(one)
        for task, result in one.scores.tasks.items():
            leaves = sorted(result.subtasks) or [task]
            items = [_leaf(samples, samples_path(one.path), leaf, metrics[task]) for leaf in leaves]
            _check(one, task, result, metrics[task], items)
            found[one.model][task] = items
    return {model: {task: found[model][task] for task in metrics} for model in cells}


def _samples(one: Scored) -> pa.Table:
    path = samples_path(one.path)
    try:
        present = pq.read_schema(path).names
        table = tables.read_parquet(path, [name for name in COLUMNS if name in present])
    except FileNotFoundError:
        raise StudyError(f"{path}: expected the samples of {one.path}, found no file; evaluate again") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = first_line(error)
        raise StudyError(f"{path}: expected a parquet file, found {reason}; evaluate the model again") from None
    made_with, scores = tables.metadata(table), one.scores
    expected = {"format": tables.FORMAT, "kind": "samples", "suite": scores.suite, "model": scores.model}
    for key, value in expected.items():
        if made_with.get(key) != value:
            there = f"as in {one.path}; evaluate the model again"
            raise StudyError(f"{path}: {key}: expected {value!r}, found {made_with.get(key)!r}, {there}")
    if table.column_names != COLUMNS:
        missing = ", ".join(name for name in COLUMNS if name not in table.column_names)
        raise StudyError(f"{path}: columns: expected {', '.join(COLUMNS)}; missing: {missing}; evaluate again")
    return table


def _leaf(samples: pa.Table, path: Path, leaf: str, key: str) -> TaskSamples:
    """The rows of one leaf under the filter of the metric `{metric},{filter}`: one per document."""
    metric, _, chosen = key.partition(",")
    mine = samples.filter((pc.field("task") == leaf) & (pc.field("filter") == chosen)).sort_by("doc_id")
    columns = {name: mine[name].to_pylist() for name in COLUMNS}
    ids = columns["doc_id"]
    for doc_id, following in pairwise(ids):
        if doc_id == following:
            where = f"{path}: {leaf}, document {doc_id}, filter {chosen}"
            raise StudyError(f"{where}: expected one row, found several; evaluate the model again")
    values = [_value(path, leaf, doc_id, metric, text) for doc_id, text in zip(ids, columns["metrics"], strict=True)]
    documents = list(zip(ids, columns["doc_hash"], strict=True))
    return TaskSamples(path, leaf, documents, columns["prompt_hash"], np.array(values, np.float64))


def _value(path: Path, leaf: str, doc_id: int, metric: str, text: str) -> float:
    """The metric's value in a row's JSON object."""
    try:
        found: Any = json.loads(text)[metric]
    except (ValueError, KeyError, TypeError):
        found = text
    if not isinstance(found, int | float) or not math.isfinite(found):
        raise StudyError(
            f"{path}: {leaf}, document {doc_id}: metrics: expected a number under {metric!r}, found {found!r}; "
            "choose a metric that is a mean over documents in report.metrics"
        )
    return float(found)


def _check(one: Scored, task: str, result: TaskScores, key: str, items: Sequence[TaskSamples]) -> None:
    """The score is the mean of all its documents, so that the items say what the table says."""
    place = f"{samples_path(one.path)}: {task}"
    values = np.concatenate([leaf.values for leaf in items])
    if len(values) != result.n:
        asked = f"expected {result.n} documents with {key!r} as in {one.path}"
        raise StudyError(
            f"{place}: {asked}, found {len(values)}; the files do not belong together: evaluate the model again"
        )
    mean = float(values.mean())
    if not math.isclose(mean, result.metrics[key], rel_tol=1e-9):
        asked = f"expected documents with mean {result.metrics[key]!r}, the {key!r} in {one.path}"
        raise StudyError(
            f"{place}: {asked}, found {mean!r}; the metric is no mean over documents (choose another in "
            "report.metrics), or the files do not belong together (evaluate the model again)"
        )


# Joining


def joined(first: Iterable[TaskSamples], second: Iterable[TaskSamples]) -> tuple[list[Floats], list[Floats]]:
    """The values of two models on a task, by leaf (n,): entry i is the same document after the same prompt in both.

    Raises `StudyError` with file, task and document where the two were not asked the same.
    """
    ours, theirs = list(first), list(second)
    if [leaf.task for leaf in ours] != [leaf.task for leaf in theirs]:
        found, expected = (", ".join(leaf.task for leaf in side) for side in (ours, theirs))
        raise StudyError(f"{ours[0].path}: expected subtasks {expected} as in {theirs[0].path}, found {found}")
    for one, other in zip(ours, theirs, strict=True):
        _same_documents(one, other)
    return [leaf.values for leaf in ours], [leaf.values for leaf in theirs]


def _same_documents(one: TaskSamples, other: TaskSamples) -> None:
    if alone := set(one.documents) ^ set(other.documents):
        doc_id, content = min(alone)
        has, lacks = (one, other) if (doc_id, content) in one.documents else (other, one)
        raise StudyError(
            f"{lacks.path}: {lacks.task}, document {doc_id}: expected doc_hash {content} as in {has.path} "
            f"(n = {len(has.documents)}), found none (n = {len(lacks.documents)}); evaluate one of the two again"
        )
    for (doc_id, _), prompt, expected in zip(one.documents, one.prompts, other.prompts, strict=True):
        if prompt != expected:
            raise StudyError(
                f"{one.path}: {one.task}, document {doc_id}: prompt_hash: found {prompt}, expected {expected} as in "
                f"{other.path}; other prompts do not compare: evaluate one of the two again"
            )
