"""Problems that would stop a study: memory, time, disk, access."""

import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from wspin.config.preregistration import AVERAGE, read_preregistration
from wspin.config.scorers import Scorer
from wspin.config.study import Study
from wspin.config.trackers import missing_tracker
from wspin.errors import StudyError
from wspin.fetch import hub, models
from wspin.study.paths import StudyPaths

from .disk import disk
from .estimates import Estimate, Estimator
from .memory import GB, keeps_reference


def find_complaints(estimator: Estimator, estimates: list[Estimate]) -> Iterator[str]:
    """A line for each problem: its place in the config, what was found and expected, and what to do."""
    yield from find_model_complaints(estimator.paths)
    yield from _contexts(estimator)
    yield from _batch(estimator.study)
    yield from _memory_and_run_times(estimator, estimates)
    yield from _disk(estimator)
    yield from _paths(estimator.study)
    yield from _engines(estimator.study)
    yield from _trackers(estimator.paths)
    yield from _preregistration(estimator.paths)


def find_model_complaints(paths: StudyPaths) -> Iterator[str]:
    """Models that are there already, fetched or at their path, as `fetch` checks them."""
    for name in paths.fetched_models:
        eos = paths.study.dialogue.eos if name in paths.policies else None
        for folder in filter(None, (paths.model(name), paths.study.models[name].path)):
            if (Path(folder) / "config.json").exists():
                try:
                    models.check(folder, paths.template(name), eos)
                except StudyError as error:
                    yield from error.args


def _preregistration(paths: StudyPaths) -> Iterator[str]:
    """Names of the family that the study does not have: their tests count, and are not done."""
    report = paths.study.report
    if not report.preregistration:
        return
    family = read_preregistration(report.preregistration)
    wanted = {"tasks": family.tasks, "contrasts": [name for pair in family.pairs for name in pair]}
    existing = {
        "tasks": (*report.metrics, *report.groups, AVERAGE),
        "contrasts": (*paths.arms, *paths.study.eval.models),
    }
    for key, names in wanted.items():
        for name in dict.fromkeys(names):
            if name not in existing[key]:
                expected = f"expected those of this study ({', '.join(existing[key])}), found {name!r}"
                yield f"{report.preregistration}: {key}: {expected}; correct it, or its tests count as not significant"


def _contexts(estimator: Estimator) -> Iterator[str]:
    longest = estimator.study.dialogue.max_tokens
    for name in estimator.study.data.fits:
        size = estimator.size(name)
        if size and longest > size.context:
            found = f"found {longest}, over the context of {name!r}, {size.context} tokens"
            yield f"dialogue.max_tokens: {found}; lower it (rows are measured against the smaller one anyway)"


def _batch(study: Study) -> Iterator[str]:
    """A GPU with a single pair per step idles most of the time; a batch of two is for one GPU."""
    gpus = study.resources.train.gpu
    if gpus > 1 and study.train.global_batch < 2 * gpus:
        found = f"found {gpus} for steps of {study.train.global_batch} pairs, less than two for each"
        yield f"resources.train.gpu: {found}; train on {max(1, study.train.global_batch // 2)}, or raise global_batch"


def _loaded_in_float32(estimator: Estimator) -> set[str]:
    """Models that teach or are evaluated, without those that vLLM alone loads, in bfloat16."""
    paths, settings = estimator.paths, estimator.study.eval
    engines = set(map(settings.engine_of, settings.suites))
    evaluated = settings.models if "transformers" in engines or settings.autocast == "float32" else []
    return {*(Scorer.parse(scorer).model for scorer in paths.scorers), *evaluated}


def _too_large(estimator: Estimator) -> dict[str, str]:
    """Model that is never trained, loaded in float32 -> the line about its weights, if they alone fill a GPU."""
    room, paths = estimator.assumed.gpu_memory_gb, estimator.paths
    trained = {estimator.root(name) for name in (*paths.trained_models, *paths.iteration_models())}
    names = _loaded_in_float32(estimator) & estimator.sizes.keys()
    loaded = {name: 4 * estimator.sizes[name].parameters / GB for name in sorted(names)}
    remedy = "set it to bfloat16, which changes this model's log-probabilities and scores"
    return {
        name: f"models.{name}.dtype: found float32 weights of {gb:.0f} GB for a GPU of {room:g} GB; {remedy}"
        for name, gb in loaded.items()
        if gb > room and name not in trained and paths.study.models[name].dtype != "bfloat16"
    }


def _train_advice(estimator: Estimator, estimates: Iterable[Estimate]) -> str:
    """What lowers the memory of the largest training; fsdp is refused where a frozen reference is kept."""
    largest = max((each for each in estimates if each.stage == "train"), key=lambda each: each.memory, default=None)
    train = largest and estimator.paths.train_settings(largest.name)
    advice = "lower train.token_budget, set train.gradient_checkpointing, or"
    if train and keeps_reference(train):
        return f"{advice} drop the KL term of {largest.name!r}: loss {train.loss} keeps a frozen reference for it"
    return f"{advice} train.parallel: fsdp on more GPUs"


def _memory_and_run_times(estimator: Estimator, estimates: Iterable[Estimate]) -> Iterator[str]:
    room, too_large = estimator.assumed.gpu_memory_gb, _too_large(estimator)
    yield from too_large.values()
    fitting = estimator.without(too_large).all() if too_large else estimates
    advice = {
        "train": _train_advice(estimator, fitting),
        "logprobs": "lower logprobs.token_budget",
        "generate": "lower generate.batch_size or max_new_tokens",
        "eval": "lower eval.token_budget or eval.batch_size",
    }
    for stage, what in advice.items():
        needed = max((estimate.memory for estimate in fitting if estimate.stage == stage), default=0)
        if needed > room:
            yield f"preflight.gpu_memory_gb: found {room:g}, but {stage} needs {needed:.0f} GB a GPU; {what}"
    for stage in ("train", "generate", "logprobs", "eval"):
        minutes = max((60 * estimate.hours for estimate in estimates if estimate.stage == stage), default=0)
        limit = getattr(estimator.study.resources, stage).runtime
        if minutes > limit:
            found = f"found {limit} minutes, a job is estimated to take {minutes:.0f}"
            yield f"resources.{stage}.runtime: {found}; raise it"


def _disk(estimator: Estimator) -> Iterator[str]:
    place = Path(estimator.paths.results).absolute()
    used = _size(place) / GB
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free / GB, sum(disk(estimator).values()) - used
    if needed > free:
        found = f"found {free:.0f} GB free at {place}, the study needs {needed:.0f} GB more"
        yield f"results: {found}; name a folder on a larger disk"


def _size(results: Path) -> int:
    """Bytes of a study's results, without those of other studies below them, known by their own `config.yaml`."""
    total = 0
    for folder, below, names in os.walk(results):
        below[:] = [name for name in below if not Path(folder, name, "config.yaml").exists()]
        total += sum(Path(folder, name).lstat().st_size for name in names)
    return total


def _paths(study: Study) -> Iterator[str]:
    paths = {f"models.{name}.path": model.path for name, model in study.models.items()}
    paths |= {"data.sft.path": study.data.sft.path, "data.preferences.path": study.data.preferences.path}
    paths |= {f"eval.sources.{name}.path": source.path for name, source in study.eval.sources.items()}
    paths |= {f"report.published.{name}.file": table.file for name, table in study.report.published.items()}
    paths |= {"generate.given": study.generate.given, "weigh.given": study.weigh.given}
    for place, path in paths.items():
        if path and not Path(path).exists():
            yield f"{place}: expected a file or folder at {path}, found none"


def _engines(study: Study) -> Iterator[str]:
    engines = {"generate.engine": study.generate.engine}
    if isinstance(study.eval.engine, dict):
        engines |= {f"eval.engine.{suite}": engine for suite, engine in study.eval.engine.items()}
    else:
        engines["eval.engine"] = study.eval.engine
    places = [place for place, engine in engines.items() if engine == "vllm"]
    if places and not _has_vllm():
        yield f"{', '.join(places)}: vllm is not installed beside the study: run `make setup-vllm`"


def _has_vllm() -> bool:
    return Path(".venv-vllm/bin/python").exists() or importlib.util.find_spec("vllm") is not None


def _trackers(paths: StudyPaths) -> Iterator[str]:
    trackers = {paths.train_settings(model).report_to for model in (*paths.trained_models, *paths.iteration_models())}
    yield from filter(None, map(missing_tracker, sorted(trackers)))


def check_access(study: Study) -> tuple[str, list[str]]:
    """(summary, problems) of access to the repositories that a study fetches; no problems if the hub is unreachable."""
    entries = [("model", model) for model in study.models.values()]
    sources = (study.data.sft, study.data.preferences, *study.eval.sources.values())
    entries += [("dataset", source) for source in sources if not source.path]
    repositories = [hub.Repository(entry.hub, kind, entry.revision) for kind, entry in entries if entry.hub]
    problems = []
    for repository in repositories:
        try:
            hub.check_access(repository)
        except hub.Unreachable as error:
            return f"Revisions and access are not checked: {error}", problems
        except StudyError as error:
            problems += error.args
    accessible = len(repositories) - len(problems)
    return f"Hub: {accessible} of {len(repositories)} repositories exist and may be read.", problems
