"""What would stop a study: memory, time, disk, access."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from wspin.config.study import Study
from wspin.errors import StudyError
from wspin.fetch import hub

from .estimates import GB, Estimate, Estimates

# What would stop it


def find_complaints(made: Estimates, estimates: list[Estimate]) -> Iterator[str]:
    """A line for everything that would fail: the place in the config, what was found, expected, and what to do."""
    yield from _contexts(made)
    yield from _batch(made.study)
    yield from _memory(made, estimates)
    yield from _run_times(made.study, estimates)
    yield from _disk(made)
    yield from _paths(made.study)
    if "vllm" in (made.study.generate.engine, made.study.eval.engine) and not _has_vllm():
        yield "generate.engine, eval.engine: vllm is not installed beside the study: run `make setup-vllm`"


def _contexts(made: Estimates) -> Iterator[str]:
    longest = made.study.dialogue.max_tokens
    for name in made.study.data.fits:
        size = made.size(name)
        if size and longest > size.context:
            told = f"found {longest}, over the context of {name!r}, {size.context} tokens"
            yield f"dialogue.max_tokens: {told}; lower it (rows are measured against the smaller one anyway)"


def _batch(study: Study) -> Iterator[str]:
    """A GPU that has one pair of a step has nothing to do most of the time; a batch of two is for one GPU."""
    gpus = study.resources.train.gpu
    if gpus > 1 and study.train.global_batch < 2 * gpus:
        told = f"found {gpus} for steps of {study.train.global_batch} pairs, less than two for each"
        yield f"resources.train.gpu: {told}; train on {max(1, study.train.global_batch // 2)}, or raise global_batch"


def _memory(made: Estimates, estimates: Iterable[Estimate]) -> Iterator[str]:
    advice = {
        "train": "lower train.token_budget, set train.gradient_checkpointing, or train.parallel: fsdp on more GPUs",
        "logprobs": "lower logprobs.token_budget",
        "generate": "lower generate.batch_size or max_new_tokens",
        "eval": "lower eval.batch_size",
    }
    room = made.assumed.gpu_memory_gb
    for stage, what in advice.items():
        needed = max((one.memory for one in estimates if one.stage == stage), default=0)
        if needed > room:
            yield f"preflight.gpu_memory_gb: found {room:g}, but {stage} needs {needed:.0f} GB a GPU; {what}"


def _run_times(study: Study, estimates: Iterable[Estimate]) -> Iterator[str]:
    for stage in ("train", "generate", "logprobs", "eval"):
        minutes = max((60 * one.hours for one in estimates if one.stage == stage), default=0)
        given = getattr(study.resources, stage).runtime
        if minutes > given:
            told = f"found {given} minutes, a job is estimated to take {minutes:.0f}"
            yield f"resources.{stage}.runtime: {told}; raise it"


def _disk(made: Estimates) -> Iterator[str]:
    place = Path(made.paths.results).absolute()
    there = _size(place) / GB
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free / GB, sum(made.disk().values()) - there
    if needed > free:
        told = f"found {free:.0f} GB free at {place}, the study needs {needed:.0f} GB more"
        yield f"results: {told}; name a folder on a larger disk"


def _size(results: Path) -> int:
    """Bytes of a study's results; another study's below them, known by their own `config.yaml`, are not among them."""
    total = 0
    for folder, below, names in os.walk(results):
        below[:] = [name for name in below if not Path(folder, name, "config.yaml").exists()]
        total += sum(Path(folder, name).lstat().st_size for name in names)
    return total


def _paths(study: Study) -> Iterator[str]:
    named = {f"models.{name}": model.path for name, model in study.models.items()}
    named |= {f"data.{name}": getattr(study.data, name).path for name in ("sft", "preferences")}
    named |= {f"eval.sources.{name}": source.path for name, source in study.eval.sources.items()}
    given = {"generate.given": study.generate.given, "weigh.given": study.weigh.given}
    for place, path in {**{f"{place}.path": path for place, path in named.items()}, **given}.items():
        if path and not Path(path).exists():
            yield f"{place}: expected a file or folder at {path}, found none"


def _has_vllm() -> bool:
    return Path(".venv-vllm/bin/python").exists() or importlib.util.find_spec("vllm") is not None


def check_access(study: Study) -> tuple[list[str], list[str]]:
    """(what was found, what is wrong) of every repository that the study fetches; nothing is wrong if none is asked."""
    taken = [hub.Repository(one.hub, "model", one.revision) for one in study.models.values() if one.hub]
    sources = [study.data.sft, study.data.preferences, *study.eval.sources.values()]
    taken += [hub.Repository(one.hub, "dataset", one.revision) for one in sources if one.hub and not one.path]
    wrong = []
    for repository in taken:
        try:
            hub.check_access(repository)
        except hub.Unreachable as error:
            return [f"Revisions and access are not checked: {error}"], wrong
        except StudyError as error:
            wrong.append(str(error))
    return [f"Hub: {len(taken) - len(wrong)} of {len(taken)} repositories are there and may be read."], wrong
