"""Runs a suite of lm-eval's tasks on one model: scores with standard errors, and one row per document.

Tasks read their data from the working directory, and see there what was fetched for the suite: `datasets` takes a
local folder `./{org}/{name}` before the hub, so lm-eval's own tasks run unchanged on a pinned snapshot, and task files
of the study find their data beside them. Tasks with other shots run apart, on the same loaded model.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspin.errors import StudyError, first_line
from wspin.models import folders

from .results import Row, sample_rows, task_scores

# Draws for the standard error of metrics without a closed form (none of the study's); 0 would switch off all errors.
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Suite:
    """What is evaluated."""

    name: str
    folder: Path  # what was fetched: task files, or the data of lm-eval's own tasks
    shots: dict[str, int]  # by task
    own: bool  # tasks of lm-eval's own registry; else the task files in `folder`
    documents: list[Row] | None = None  # rows of `heldout.jsonl`, for tasks that read it


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
            scores |= {name: task_scores(name, shots, found) for name in names}
            rows |= {name: sample_rows(task, found["samples"][name]) for name, task in tasks.items()}
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
    return VLLM(
        str(folder), dtype="float32", batch_size=batch_size, max_model_len=folders.context_length(folder), **place
    )


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
        reason = f"{type(error).__name__}: {first_line(error)}"
        whence = f"{suite.folder}: expected the data of {', '.join(names)}"
        raise StudyError(f"{whence}, found {reason}; correct eval.sources.{suite.name} or fetch it again") from error
    for name, task in loaded["tasks"].items():
        if task.get_config("num_fewshot") == 0 and shots:
            raise StudyError(f"eval.suites.{suite.name}: {name}: expected 0 shots, as the task says, found {shots}")
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=seed[3])
    return run(lm=lm, task_dict=loaded, bootstrap_iters=BOOTSTRAP, log_samples=True), loaded["tasks"]
