"""Runs a suite of lm-eval's tasks on one model: scores with standard errors, and one row per document.

Tasks read their data from the working directory, and see there what was fetched for the suite: `datasets` takes a
local folder `./{org}/{name}` before the hub, so lm-eval's own tasks run unchanged on a pinned snapshot, and task files
of the study find their data beside them. Tasks with other shots run apart, on the same loaded model.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import numbers
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wspin.data import chat
from wspin.data.corruption import corrupt
from wspin.errors import StudyError
from wspin.models import folders
from wspin.rng import row_generator
from wspin.storage import tables
from wspin.storage.files import digest, whole_file

# Draws for the standard error of metrics without a closed form (none of the study's); 0 would switch off all errors.
BOOTSTRAP = 1000
CHOICES = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """What is evaluated."""

    name: str
    folder: Path  # what was fetched: task files, or the data of lm-eval's own tasks
    shots: dict[str, int]  # by task
    own: bool  # tasks of lm-eval's own registry; else the task files in `folder`
    documents: list[Row] | None = None  # rows of `heldout.jsonl`, for tasks that read it


def heldout_documents(path: str | Path, template: str, eos: str, model: str | Path) -> list[Row]:
    """Held-out rows as tasks read them: the rendered prompt, the real answer, and a choice of answers with its label.

    Prompts are rendered as the model in the folder `model` sees them; a choice is closed by EOS, as a training answer.
    Raises `StudyError` if there is no row, or if the template holds special tokens, which lm-eval would read as text.
    """
    documents = tables.read(path, "prompts").select(["prompt_id", "prompt", "response"]).to_pylist()
    tokenizer = folders.load_tokenizer(model)
    around = chat.template_text(template, tokenizer)
    if found := [token for token in tokenizer.all_special_tokens if token in around]:
        told = f"expected a template without special tokens for tasks on held-out rows, found {', '.join(found)}"
        raise StudyError(f"dialogue.template: {told}; leave these tasks out, or choose another template")
    for row in documents:
        texts, row["label"] = choices(row["prompt_id"], row["response"])
        row["choices"] = [text + eos for text in texts]
        row["text"] = chat.render(template, row.pop("prompt"), tokenizer)
    if not documents:
        raise StudyError(f"{path}: expected held-out rows, found none; make the file again")
    return documents


def choices(prompt_id: str, answer: str) -> tuple[list[str], int]:
    """The answer among distinct corruptions of it, in an order that belongs to the prompt, and its place there."""
    rng = row_generator("choices", prompt_id)
    texts = [answer]
    while len(texts) < CHOICES:
        made = corrupt(answer, rng)
        if made not in texts:
            texts.append(made)
    order = rng.permutation(CHOICES).tolist()
    return [texts[i] for i in order], order.index(0)


def evaluate(
    suite: Suite, model: str | Path, engine: tuple[str, int], seed: Sequence[int], eos: str
) -> tuple[Row, list[Row]]:
    """(scores by task, sample rows) of a model folder.

    `engine`: its name and the batch size; `seed`: python, numpy, torch, few-shot examples.

    Raises `StudyError` if a task is unknown, has no data, or gives no score.
    """
    from lm_eval.tasks import TaskManager

    name, batch_size = engine
    own = eos if suite.documents else None
    lm = vllm_model(model, batch_size) if name == "vllm" else language_model(model, batch_size, own)
    scores, rows = {}, {}
    with working_folder(suite) as folder:
        manager = TaskManager(include_path=None if suite.own else str(folder), include_defaults=suite.own)
        _check_names(suite, manager.all_tasks)
        for shots in sorted(set(suite.shots.values())):
            names = [name for name, wanted in suite.shots.items() if wanted == shots]
            found, tasks = _run(lm, manager, suite, names, shots, seed)
            if twice := rows.keys() & tasks.keys():
                raise StudyError(f"eval.suites.{suite.name}: expected a task once, found {min(twice)} with other shots")
            scores |= {name: _score(name, shots, found) for name in names}
            rows |= {name: _rows(task, found["samples"][name]) for name, task in tasks.items()}
    return scores, [{"task": name, **row} for name in sorted(rows) for row in rows[name]]


def language_model(folder: str | Path, batch_size: int, eos: str | None) -> Any:
    """A model as lm-eval runs it, in float32; with `eos`, prompts and answers are tokenised as in training."""
    from lm_eval.models.huggingface import HFLM

    class Conversation(HFLM):
        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            """Apart, as `dialogue` does it; lm-eval's own way lets a token cross the border between the two."""
            closed = [self.tokenizer.eos_token_id] if continuation.endswith(eos) else []
            return self.tok_encode(context), [*self.tok_encode(continuation.removesuffix(eos)), *closed]

    model, tokenizer = folders.load_model(folder, folders.best_device()), folders.load_tokenizer(folder)
    if eos is None:
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    tokenizer.eos_token = eos  # what lm-eval stops on
    tokenizer.split_special_tokens = True  # as in `dialogue`: the user's text stays text
    folders.check_eos(model, tokenizer.eos_token_id, folder)
    return Conversation(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False)


def vllm_model(folder: str | Path, batch_size: int) -> Any:
    """A model as lm-eval's own vLLM backend runs it, in float32. Raises `StudyError` if vLLM is not installed."""
    import torch

    from wspin.models.vllm import import_vllm

    import_vllm("eval")
    from lm_eval.models.vllm_causallms import VLLM

    place = {} if torch.cuda.is_available() else {"enforce_eager": True}
    return VLLM(str(folder), dtype="float32", batch_size=batch_size, max_model_len=folders.context(folder), **place)


@contextlib.contextmanager
def working_folder(suite: Suite) -> Iterator[Path]:
    """A temporary working directory with links to the suite's files and its documents; `datasets` caches beside it."""
    import datasets

    datasets.disable_progress_bars()
    cache = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory(prefix="eval-") as temporary:
        folder = Path(temporary) / "work"
        shutil.copytree(suite.folder.resolve(), folder, copy_function=os.symlink)
        if suite.documents:
            with open(folder / "heldout.jsonl", "x") as file:  # x: never through a link
                file.writelines(json.dumps(row) + "\n" for row in suite.documents)
        datasets.config.HF_DATASETS_CACHE = Path(temporary) / "cache"
        try:
            with contextlib.chdir(folder):
                yield folder
        finally:
            datasets.config.HF_DATASETS_CACHE = cache


def write_samples(path: str | Path, rows: list[Row], made_with: dict[str, Any]) -> None:
    """Write one row per task, document and filter; its `metrics` are a JSON object."""
    texts = ("doc_hash", "prompt_hash", "target_hash", "filter", "target", "answer", "metrics")
    fields = {"task": pa.string(), "doc_id": pa.int32(), **dict.fromkeys(texts, pa.string())}
    described = json.dumps({"format": tables.FORMAT, "kind": "samples", **made_with}, sort_keys=True)
    schema = pa.schema([pa.field(name, of, nullable=False) for name, of in fields.items()], {"wspin": described})
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary, compression="zstd")


def _check_names(suite: Suite, known: list[str]) -> None:
    for name in suite.shots:
        if name not in known:
            place = "lm-eval's own tasks" if suite.own else suite.folder
            near = ", ".join(difflib.get_close_matches(name, known, 3, 0.0)) or "no task"
            raise StudyError(f"{place}: expected task {name!r}, found {near}; correct eval.suites.{suite.name}")


def _run(lm: Any, manager: Any, suite: Suite, names: list[str], shots: int, seed: Sequence[int]) -> tuple[Row, Row]:
    """lm-eval's results of some tasks, and its task objects by name (a group's subtasks, not the group)."""
    import numpy as np
    import torch
    from lm_eval.evaluator import evaluate as run

    random.seed(seed[0])
    np.random.seed(seed[1])
    torch.manual_seed(seed[2])
    try:
        loaded = manager.load(names)
    except Exception as error:  # lm-eval's own, those of `datasets`, and those of the task files
        reason = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        whence = f"{suite.folder}: expected the data of {', '.join(names)}"
        raise StudyError(f"{whence}, found {reason}; correct eval.sources.{suite.name} or fetch it again") from error
    for name, task in loaded["tasks"].items():
        if task.get_config("num_fewshot") == 0 and shots:
            raise StudyError(f"eval.suites.{suite.name}: {name}: expected 0 shots, as the task says, found {shots}")
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=seed[3])
    return run(lm=lm, task_dict=loaded, bootstrap_iters=BOOTSTRAP, log_samples=True), loaded["tasks"]


def _score(name: str, shots: int, found: Row) -> Row:
    """Scores of a task; of a group its aggregate, and below it those of its subtasks."""
    leaves = sorted(_leaves(name, found["group_subtasks"]))
    samples = {(leaf, one["doc_id"]): one["prompt_hash"] for leaf in leaves for one in found["samples"].get(leaf, [])}
    prompts = [samples[key] for key in sorted(samples)]  # one per document, whatever the number of filters
    metrics, stderr = _metrics(found["results"].get(name, {}))
    if not prompts or not metrics or None in metrics.values():
        missing = "samples" if not prompts else "finite score" if metrics else "score of its own; name the tasks in it"
        raise StudyError(f"{name}: expected samples and scores, found no {missing}")
    version = str(found["versions"][name])  # lm-eval has numbers for tasks, texts for groups
    entry = {"shots": shots, "version": version, "n": len(prompts), "prompt_hash": digest(prompts)}
    below = {} if leaves == [name] else {"subtasks": {leaf: _score(leaf, shots, found) for leaf in leaves}}
    return {**entry, "metrics": metrics, "stderr": stderr, **below}


def _leaves(name: str, below: dict[str, list[str]]) -> list[str]:
    return [leaf for child in below[name] for leaf in _leaves(child, below)] if name in below else [name]


def _metrics(measured: Row) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """(values, standard errors) under lm-eval's keys, `{metric},{filter}`; what is no finite number is None."""
    metrics, stderr = {}, {}
    for key, value in measured.items():
        metric, comma, filter_ = key.partition(",")
        if comma:
            side = stderr if metric.endswith("_stderr") else metrics
            number = isinstance(value, numbers.Real) and math.isfinite(value)
            side[f"{metric.removesuffix('_stderr')},{filter_}"] = float(value) if number else None
    return metrics, stderr


def _rows(task: Any, samples: list[Row]) -> list[Row]:
    rows = []
    for sample in sorted(samples, key=lambda sample: (sample["doc_id"], sample["filter"])):
        row = {key: sample[key] for key in ("doc_id", "doc_hash", "prompt_hash", "target_hash", "filter")}
        row["target"], row["answer"] = _target_and_answer(task, sample)
        row["metrics"] = _json({metric: sample[metric] for metric in sample["metrics"]})
        rows.append(row)
    return rows


def _target_and_answer(task: Any, sample: Row) -> tuple[str, str]:
    """What was expected and what the model gave; of a choice, the texts."""
    target, given = sample["target"], sample["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(target), given[0] if isinstance(given[0], str) else _json(given[0])
    texts = task.doc_to_choice(sample["doc"])
    likelihoods = [likelihood for likelihood, _ in given[: len(texts)]]
    return texts[target] if isinstance(target, int) else str(target), texts[likelihoods.index(max(likelihoods))]


def _json(value: Any) -> str:
    """JSON with sorted keys, numpy's values as plain ones."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=lambda one: one.tolist())
