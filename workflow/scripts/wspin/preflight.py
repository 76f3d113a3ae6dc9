"""What a study will take, and what would stop it: told before the first GPU minute, without network or weights."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from wspin.config.sources import Model
from wspin.config.study import Study
from wspin.errors import StudyError
from wspin.estimates import GB, Estimate, Estimates, Lengths
from wspin.fetch import hub
from wspin.sizes import Size
from wspin.storage import tables
from wspin.study.paths import StudyPaths

SHIPPED = Path("config/hub")  # configs of the study's models, until they are fetched


# What is known before anything runs


def sizes(layout: StudyPaths) -> dict[str, Size]:
    """The size of every fetched model whose config is at hand: fetched, given by a path, made here, or shipped."""
    found = {name: _config(layout, name, layout.study.models[name]) for name in layout.fetched_models}
    return {name: Size(config) for name, config in found.items() if config is not None}


def _config(layout: StudyPaths, name: str, model: Model) -> Any:
    from transformers import AutoConfig

    from wspin.models.scratch import scratch_config

    if model.scratch:
        return scratch_config(model.scratch)
    places = [layout.model(name), model.path, model.hub and SHIPPED / model.hub]
    for place in places:
        if place and (Path(place) / "config.json").exists():
            return AutoConfig.from_pretrained(place, local_files_only=True)
    return None


def lengths(layout: StudyPaths) -> Lengths:
    """Mean lengths: measured where the student has read the study's rows, assumed before."""
    assumed = layout.study.preflight
    measured = Path(layout.file(layout.study.start, "reference", layout.shards()[0]))
    if not measured.exists():
        means = (assumed.prompt_tokens, assumed.response_tokens, assumed.generated_tokens)
        return Lengths(*means, "assumed in the config, nothing is measured yet")
    reference = tables.read_reference(measured)
    chosen, rejected = (
        reference[f"{side}_token_ids"].combine_chunks().value_lengths().to_numpy().mean() for side in tables.SIDES
    )
    told = f"answers measured in {measured}, prompts assumed"
    return Lengths(assumed.prompt_tokens, float(chosen), float(rejected), told)


# The table


def table(estimates: list[Estimate], made: Estimates) -> str:
    """The estimates to be read, with what they assume below."""
    price = made.assumed.price
    header = ["stage", "what", "jobs", "GPUs", "GB a GPU", "PFLOP", "minutes a job", "GPU hours", "price"]
    lines = []
    for one in merged(estimates):
        numbers = (one.memory, one.petaflop, 60 * one.hours, one.gpu_hours, one.gpu_hours * price)
        lines.append([one.stage, one.what, one.jobs, one.gpus, *map(_number, numbers)])
    hours = sum(one.gpu_hours for one in estimates)
    work = sum(one.petaflop for one in estimates)
    jobs = sum(one.jobs for one in estimates)
    lines.append(["all", "", jobs, "", "", _number(work), "", _number(hours), _number(hours * price)])
    align = ("left", "left", *["right"] * 7)
    text = tabulate(lines, header, tablefmt="simple", disable_numparse=True, colalign=align)
    return "\n".join([text, "", *_notes(made)])


def merged(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Estimates that follow each other and say the same of each job, as one: `spin/ite1 ... spin/ite3`."""
    found: list[Estimate] = []
    for _, alike in groupby(estimates, key=lambda one: (one.stage, one.gpus, one.memory, one.petaflop, one.hours)):
        first, *others = alike
        alone = others[-1].what.split()[-1] if others else ""  # behind the words that both have
        what = f"{first.what} ... {alone}" if others else first.what
        work = first.petaflop + sum(one.petaflop for one in others)
        found.append(replace(first, what=what, jobs=first.jobs * (1 + len(others)), petaflop=work))
    return found


def _notes(made: Estimates) -> Iterator[str]:
    assumed, mean = made.assumed, made.lengths
    yield (
        f"Mean tokens: prompt {mean.prompt:.0f}, real answer {mean.response:.0f}, generated {mean.generated:.0f} "
        f"({mean.source})."
    )
    yield (
        f"Assumed: {assumed.tflops:g} TFLOP/s, {assumed.bandwidth_tb:g} TB/s and {assumed.gpu_memory_gb:g} GB a GPU, "
        f"{100 * assumed.utilisation:g} % of both reached, {assumed.price:g} a GPU hour; start-up is not counted."
    )
    disk = ", ".join(f"{kind} {_number(size)}" for kind, size in made.disk().items())
    yield f"Disk, GB: {disk}; together {_number(sum(made.disk().values()))}."
    if unknown := [name for name in made.layout.fetched_models if name not in made.sizes]:
        yield f"Not estimated, no config.json of them is here yet: {', '.join(unknown)}, and what is made from them."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


# What would stop it


def complaints(made: Estimates, estimates: list[Estimate]) -> Iterator[str]:
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
    place = Path(made.layout.results).absolute()
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


def access(study: Study) -> tuple[list[str], list[str]]:
    """(what was found, what is wrong) of every repository that the study fetches; nothing is wrong if none is asked."""
    taken = [hub.Repository(one.hub, "model", one.revision) for one in study.models.values() if one.hub]
    sources = [study.data.sft, study.data.preferences, *study.eval.sources.values()]
    taken += [hub.Repository(one.hub, "dataset", one.revision) for one in sources if one.hub and not one.path]
    wrong = []
    for repository in taken:
        try:
            hub.check(repository)
        except hub.Unreachable as error:
            return [f"Revisions and access are not checked: {error}"], wrong
        except StudyError as error:
            wrong.append(str(error))
    return [f"Hub: {len(taken) - len(wrong)} of {len(taken)} repositories are there and may be read."], wrong
