"""lm-eval's results in the study's files: scores by task, and a row per document."""

import json
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables
from wspin.storage.files import digest, whole_file

Row = dict[str, Any]


def write_samples(path: str | Path, rows: list[Row], metadata: dict[str, Any]) -> None:
    """Write one row per task, document and filter; its `metrics` are a JSON object."""
    texts = ("doc_hash", "prompt_hash", "target_hash", "filter", "target", "answer", "metrics")
    fields = {"task": pa.string(), "doc_id": pa.int32(), **dict.fromkeys(texts, pa.string())}
    header = json.dumps({"format": tables.FORMAT, "kind": "samples", **metadata}, sort_keys=True)
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields.items()], {"wspin": header})
    with whole_file(path) as temporary:
        tables.write_parquet(temporary, pa.Table.from_pylist(rows, schema))


def task_scores(name: str, shots: int, results: Row, cut: Mapping[str, int]) -> Row:
    """Scores of a task; of a group its aggregate, with those of its subtasks.

    `cut`: how many requests of a task were longer than the context; the entry `cut` is left out where it is 0.
    """
    names = sorted(leaves(name, results["group_subtasks"]))
    samples = [(leaf, sample) for leaf in names for sample in results["samples"].get(leaf, [])]
    by_document = {(leaf, sample["doc_id"]): sample["prompt_hash"] for leaf, sample in samples}  # of all filters
    prompts = [by_document[document] for document in sorted(by_document)]
    metrics, stderr = _metrics(results["results"].get(name, {}))
    if not prompts or not metrics or None in metrics.values():
        missing = "samples" if not prompts else "finite score" if metrics else "score of its own; name the tasks in it"
        raise StudyError(f"{name}: expected samples and scores, found no {missing}")
    version = str(results["versions"][name])  # lm-eval has numbers for tasks, texts for groups
    entry = {"shots": shots, "version": version, "n": len(prompts), "prompt_hash": digest(prompts)}
    cuts = {"cut": number} if (number := sum(cut[leaf] for leaf in names)) else {}
    subtasks = {} if names == [name] else {"subtasks": {leaf: task_scores(leaf, shots, results, cut) for leaf in names}}
    return {**entry, **cuts, "metrics": metrics, "stderr": stderr, **subtasks}


def leaves(name: str, children: dict[str, list[str]]) -> list[str]:
    """The tasks of a group, or the task itself; `children` of every group."""
    return [leaf for child in children[name] for leaf in leaves(child, children)] if name in children else [name]


def _metrics(measured: Row) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """(values, standard errors) under lm-eval's keys, `{metric},{filter}`; None for anything but finite numbers."""
    metrics, stderr = {}, {}
    for key, value in measured.items():
        metric, comma, filter_ = key.partition(",")
        if comma:
            side = stderr if metric.endswith("_stderr") else metrics
            number = isinstance(value, numbers.Real) and math.isfinite(value)
            side[f"{metric.removesuffix('_stderr')},{filter_}"] = float(value) if number else None
    return metrics, stderr


def sample_rows(task: Any, samples: list[Row]) -> list[Row]:
    """A row per document and filter of a task, in their order."""
    rows = []
    for sample in sorted(samples, key=lambda sample: (sample["doc_id"], sample["filter"])):
        row = {key: sample[key] for key in ("doc_id", "doc_hash", "prompt_hash", "target_hash", "filter")}
        row["target"], row["answer"] = _target_and_answer(task, sample)
        row["metrics"] = _json({metric: sample[metric] for metric in sample["metrics"]})
        rows.append(row)
    return rows


def _target_and_answer(task: Any, sample: Row) -> tuple[str, str]:
    """The expected and the model's answer; of a multiple choice, the texts."""
    target, responses = sample["target"], sample["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(target), responses[0] if isinstance(responses[0], str) else _json(responses[0])
    texts = task.doc_to_choice(sample["doc"])
    likelihoods = [likelihood for likelihood, _ in responses[: len(texts)]]
    return texts[target] if isinstance(target, int) else str(target), texts[likelihoods.index(max(likelihoods))]


def _json(value: Any) -> str:
    """JSON with sorted keys, numpy's values as plain ones."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=lambda array: array.tolist())
