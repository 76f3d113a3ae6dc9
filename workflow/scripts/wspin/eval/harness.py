"""Runs a suite of lm-eval's tasks on one model: scores with standard errors, and one row per document.

Tasks read their data from the working directory, which holds the files fetched for the suite: `datasets` prefers a
local folder `./{org}/{name}` to the hub, so lm-eval's own tasks run unchanged on a pinned snapshot, and the study's
task files find their data beside them. Tasks with equal numbers of shots run together, all on the same loaded model.
"""

import contextlib
import difflib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspin.config.stages import EvalSettings
from wspin.errors import StudyError, first_line
from wspin.models import folders

from .results import Row, sample_rows, task_scores

# Draws for standard errors without a closed form (no metric of the study needs them); 0 would switch off all errors.
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Suite:
    """The tasks of one evaluation."""

    name: str
    folder: Path  # the fetched files: task files, or the data of lm-eval's own tasks
    shots: dict[str, int]  # by task
    default_tasks: bool  # tasks of lm-eval's own registry; else the task files in `folder`
    documents: list[Row] | None = None  # rows of `heldout.jsonl`, for tasks that read it


def evaluate(suite: Suite, model: str | Path, settings: EvalSettings, eos: str) -> tuple[Row, list[Row]]:
    """(scores by task, sample rows) of a model folder.

    Raises `StudyError` if a task is unknown, has no data, or gives no score.
    """
    from lm_eval.tasks import TaskManager

    if settings.engine == "vllm":
        lm = vllm_model(model, settings.batch_size)
    else:
        lm = language_model(model, settings.batch_size, eos if suite.documents else None)
    scores, rows = {}, {}
    with working_folder(suite) as folder:
        defaults = suite.default_tasks
        manager = TaskManager(include_path=None if defaults else str(folder), include_defaults=defaults)
        _check_names(suite, manager.all_tasks)
        for shots in sorted(set(suite.shots.values())):
            names = [name for name, task_shots in suite.shots.items() if task_shots == shots]
            results, tasks = _run(lm, manager, suite, names, shots, settings.seeds)
            if repeated := rows.keys() & tasks.keys():
                found = f"found {min(repeated)} with other shots"
                raise StudyError(f"eval.suites.{suite.name}: expected a task once, {found}")
            scores |= {name: task_scores(name, shots, results) for name in names}
            rows |= {name: sample_rows(task, results["samples"][name]) for name, task in tasks.items()}
    return scores, [{"task": name, **row} for name in sorted(rows) for row in rows[name]]


def language_model(folder: str | Path, batch_size: int, eos: str | None) -> Any:
    """lm-eval's backend for transformers, in float32; with `eos`, prompts and answers are tokenised as in training."""
    from lm_eval.models.huggingface import HFLM

    class Conversation(HFLM):
        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            """Tokenised apart, as in `data.chat`; by default lm-eval lets a token span the border between the two."""
            closed = [self.tokenizer.eos_token_id] if continuation.endswith(eos) else []
            return self.tok_encode(context), [*self.tok_encode(continuation.removesuffix(eos)), *closed]

    model, tokenizer = folders.load_model(folder, folders.best_device()), folders.load_tokenizer(folder)
    if eos is None:
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    tokenizer.eos_token = eos  # lm-eval stops on it
    tokenizer.split_special_tokens = True  # as in `data.chat`: special tokens in a user's text stay text
    folders.check_eos(model, tokenizer.eos_token_id, folder)
    return Conversation(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False)


def vllm_model(folder: str | Path, batch_size: int) -> Any:
    """lm-eval's backend for vLLM, in float32. Raises `StudyError` if vLLM is not installed."""
    import torch

    from wspin.models.vllm import import_vllm

    import_vllm("eval")
    from lm_eval.models.vllm_causallms import VLLM

    device = {} if torch.cuda.is_available() else {"enforce_eager": True}
    context = folders.context_length(folder)
    return VLLM(str(folder), dtype="float32", batch_size=batch_size, max_model_len=context, **device)


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


def _check_names(suite: Suite, tasks: list[str]) -> None:
    for name in suite.shots:
        if name not in tasks:
            place = "lm-eval's own tasks" if suite.default_tasks else suite.folder
            near = ", ".join(difflib.get_close_matches(name, tasks, 3, 0.0)) or "no task"
            raise StudyError(f"{place}: expected task {name!r}, found {near}; correct eval.suites.{suite.name}")


def _run(lm: Any, manager: Any, suite: Suite, names: list[str], shots: int, seeds: list[int]) -> tuple[Row, Row]:
    """lm-eval's results of some tasks, and its task objects by name (a group's subtasks, not the group).

    `seeds`: of python, numpy, torch and of the few-shot examples.
    """
    import numpy as np
    import torch
    from lm_eval.evaluator import evaluate as run

    python, numpy, torch_seed, fewshot = seeds
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(torch_seed)
    try:
        loaded = manager.load(names)
    except Exception as error:  # of lm-eval, of `datasets` or of the task files
        raise StudyError(
            f"{suite.folder}: expected the data of {', '.join(names)}, found {type(error).__name__}: "
            f"{first_line(error)}; correct eval.sources.{suite.name} or fetch it again"
        ) from error
    for name, task in loaded["tasks"].items():
        if task.get_config("num_fewshot") == 0 and shots:
            raise StudyError(f"eval.suites.{suite.name}: {name}: expected 0 shots, as the task says, found {shots}")
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=fewshot)
    return run(lm=lm, task_dict=loaded, bootstrap_iters=BOOTSTRAP, log_samples=True), loaded["tasks"]
