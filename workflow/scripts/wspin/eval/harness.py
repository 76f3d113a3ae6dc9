"""Runs a suite of lm-eval's tasks on one model: scores with standard errors, and one row per document.

Tasks read their data from the working directory, which holds the files fetched for the suite: `datasets` prefers a
local folder `./{org}/{name}` to the hub, so lm-eval's own tasks run unchanged on a pinned snapshot, and the study's
task files find their data beside them. Tasks with equal numbers of shots run together, all on the same loaded model,
after the requests of all have been built, which needs no model, and measured.
"""

import contextlib
import difflib
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspin.config.base import Precision
from wspin.config.stages import EvalSettings
from wspin.data.task_files import check_task_files
from wspin.errors import StudyError, first_line
from wspin.progress import with_progress

from .language_models import hugging_face_model, vllm_model
from .lengths import complaints, request_needs
from .responses import ResumableLM
from .results import Row, leaves, sample_rows, task_scores

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
    code: bool = False  # whether the task files may run code
    cut: bool = False  # whether requests may be longer than the context: lm-eval cuts them on the left

    def names(self, shots: int) -> list[str]:
        """The tasks that have these shots."""
        return [name for name, task_shots in self.shots.items() if task_shots == shots]


def evaluate(
    suite: Suite, model: str | Path, settings: EvalSettings, eos: str, state: Path, dtype: Precision = "float32"
) -> tuple[Row, list[Row]]:
    """(scores by task, sample rows) of a model folder, its weights in `dtype`; `state`: as `ResumableLM`.

    Raises `StudyError` before the model is loaded if a task is unknown or has no data, and as `check_task_files` unless
    the suite allows code; before the first forward pass if a request is longer than the context and the suite allows no
    cuts; and if a task gives no score.
    """
    check_code(suite)
    from lm_eval.evaluator import evaluate as run

    scores, rows, state, here = {}, {}, state.absolute(), Path.cwd()  # the working folder is another one
    with working_folder(suite) as folder:
        loaded = load_tasks(suite, folder, settings.seeds)
        with contextlib.chdir(here):
            if settings.engine == "vllm":
                lm = vllm_model(model, settings, dtype)
            else:
                lm = hugging_face_model(model, settings, eos if suite.documents else None, dtype)
        cut = _count_cut(suite, lm, loaded, settings.engine)
        tasks = [task for of_shots in loaded.values() for task in of_shots["tasks"].values()]
        total = sum(request.repeats for task in tasks for request in task.instances)
        lm = ResumableLM(lm, state, lambda: _seed(settings.seeds), total)
        for shots, tasks in loaded.items():
            results = run(lm=lm, task_dict=tasks, bootstrap_iters=BOOTSTRAP, log_samples=True)
            scores |= {name: task_scores(name, shots, results, cut) for name in suite.names(shots)}
            rows |= {name: sample_rows(task, results["samples"][name]) for name, task in tasks["tasks"].items()}
    return scores, [{"task": name, **row} for name in sorted(rows) for row in rows[name]]


def check_code(suite: Suite) -> None:
    """Refuse task files that could run code, unless the suite allows it: before anything of them is loaded."""
    if not (suite.default_tasks or suite.code):
        check_task_files(suite.folder)
        _use_sandbox()


def _use_sandbox() -> None:
    """Let lm-eval's templates reach values and filters alone; in its own environment they reach all of Python."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    plain = utils.env
    utils.env = SandboxedEnvironment(undefined=plain.undefined, keep_trailing_newline=plain.keep_trailing_newline)
    utils.env.filters.update(plain.filters)


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


def load_tasks(suite: Suite, folder: Path, seeds: list[int]) -> dict[int, Row]:
    """Number of shots -> lm-eval's tasks of the suite that have them, their requests built; `folder`: where it works.

    Raises `StudyError` if a task is unknown, has no data or no requests.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=None if suite.default_tasks else str(folder), include_defaults=suite.default_tasks
    )
    _check_names(suite, manager.all_tasks)
    loaded = {shots: _load(manager, suite, shots, seeds) for shots in sorted(set(suite.shots.values()))}
    _check_once(suite, [name for tasks in loaded.values() for name in tasks["tasks"]])
    return loaded


def _check_names(suite: Suite, tasks: list[str]) -> None:
    for name in suite.shots:
        if name not in tasks:
            place = "lm-eval's own tasks" if suite.default_tasks else suite.folder
            near = ", ".join(difflib.get_close_matches(name, tasks, 3, 0.0)) or "no task"
            raise StudyError(f"{place}: expected task {name!r}, found {near}; correct eval.suites.{suite.name}")


def _check_once(suite: Suite, names: list[str]) -> None:
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise StudyError(f"eval.suites.{suite.name}: expected a task once, found {repeated[0]} with other shots")


def _seed(seeds: list[int]) -> None:
    """Seed python, numpy and torch; the fourth seed is the few-shot examples'."""
    import numpy as np
    import torch

    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])


def _load(manager: Any, suite: Suite, shots: int, seeds: list[int]) -> Row:
    """lm-eval's tasks of a suite that have these shots, with their requests."""
    names = suite.names(shots)
    _seed(seeds)
    try:
        loaded = manager.load(names)
    except Exception as error:  # of lm-eval, of `datasets` or of the task files
        raise StudyError(
            f"{suite.folder}: expected the data of {', '.join(names)}, found {type(error).__name__}: "
            f"{first_line(error)}; correct eval.sources.{suite.name} or fetch it again"
        ) from error
    for name, task in with_progress(loaded["tasks"].items(), len(loaded["tasks"]), "eval: building requests", "tasks"):
        if task.get_config("num_fewshot") == 0 and shots:
            raise StudyError(f"eval.suites.{suite.name}: {name}: expected 0 shots, as the task says, found {shots}")
        if shots:
            _check_examples(f"eval.suites.{suite.name}: {name}", task, shots)
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=seeds[3])
        try:
            task.build_all_requests()
        except Exception as error:  # of lm-eval or of the task's functions
            raise StudyError(
                f"eval.suites.{suite.name}: {name}: expected documents that make requests with {shots} shots, found "
                f"{type(error).__name__}: {first_line(error)}; correct the task, its data or its shots"
            ) from error
        task.build_all_requests = lambda **_: None  # `evaluate` would draw other examples than those measured
    return loaded


def _check_examples(place: str, task: Any, shots: int) -> None:
    """Refuse a task whose examples lm-eval draws from the documents that it evaluates, themselves included."""
    splits, examples = task.config, task.fewshot_cfg
    if splits.fewshot_config and examples.samples is not None:
        return
    source = examples.split or splits.training_split or splits.validation_split or splits.test_split
    # lm-eval leaves out the document that is evaluated only if these two are equal.
    if source == (splits.test_split or splits.validation_split) and examples.split != splits.test_split:
        found = f"found {shots} shots of the split {source}, which is evaluated: a prompt could hold its own answer"
        raise StudyError(f"{place}: expected examples of other documents, {found}; set fewshot_split in the task")


def _count_cut(suite: Suite, lm: Any, loaded: dict[int, Row], engine: str) -> dict[str, int]:
    """The requests of every task that lm-eval will cut. Raises `StudyError` with a line for each task of the suite."""
    cut, mistakes = {}, []
    for shots, tasks in loaded.items():
        needs = {name: request_needs(lm, task, engine) for name, task in tasks["tasks"].items()}
        cut |= {name: sum(need.whole > lm.max_length for need in of_task) for name, of_task in needs.items()}
        for name in suite.names(shots):
            of_name = [need for leaf in leaves(name, tasks["group_map"]) for need in needs.get(leaf, [])]
            mistakes += complaints(f"eval.suites.{suite.name}: {name}", of_name, lm.max_length, shots, suite.cut)
    if mistakes:
        raise StudyError(*mistakes)
    return cut
