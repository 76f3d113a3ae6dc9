"""The jobs of a study: the files that each of them makes, its log, its states. Pure strings, no file is touched."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

from .paths import GOLD, StudyPaths

COLUMNS = ("generations", "reference", "teacher readings", "weights", "model", "scores")


class Job(NamedTuple):
    """One job of Snakemake's. The record of who made its files belongs to the first of them."""

    outputs: tuple[str, ...]
    log: str
    states: str | None = None  # a training's folder of what it resumes from


def rows(layout: StudyPaths) -> dict[str, dict[str, list[Job]]]:
    """Model -> column -> jobs, in running order: the registry, parents first, then arm by arm.

    What arms share stands in the row of each of them. What an iteration replays stands in the row that made it.
    """
    models = layout.study.models

    def depth(name: str) -> int:
        return 1 + depth(models[name].from_) if models[name].trained else 0

    names = [*sorted(models, key=depth), *layout.iteration_models()]
    return {name: dict(zip(COLUMNS, _row(layout, name), strict=True)) for name in names}


def rest(layout: StudyPaths) -> dict[str, list[Job]]:
    """The jobs that belong to no model: data, and what is shown at the end."""
    data, sources = layout.study.data, ["sft"]
    prepared = [Job((layout.data("prompts"), layout.data("heldout")), layout.log("data", "prompts"))]
    if layout.preference_references:
        sources += [] if data.preferences.from_ else ["preferences"]
        prepared.append(Job((layout.data("preferences"),), layout.log("data", "preferences")))
    fetched = [Job((layout.fetched(name),), layout.log("fetch/data", name)) for name in sources]
    suites = layout.study.eval.suites
    fetched += [Job((layout.fetched(f"tasks/{name}"),), layout.log("fetch/tasks", name)) for name in suites]
    return {"data": [*fetched, *prepared], "tables and figures": _shown(layout)}


def _shown(layout: StudyPaths) -> list[Job]:
    shown = {"scores": [], "differences": [], "weights": [], "examples": []}
    for path in layout.tables():
        shown[PurePath(path).stem].append(path)
    return [
        Job(tuple(paths), layout.log("report", name)) for name, paths in {**shown, "figure": layout.figures()}.items()
    ]


def _row(layout: StudyPaths, model: str) -> list[list[Job]]:
    """The jobs of one model, column by column; none where it has no such stage."""
    arm, k = layout.origin(model)
    made, scores = [_model(layout, model)], _scores(layout, model)
    if arm is None:
        entry = layout.study.models[model]
        pairs = entry.data == "preferences"
        kind = ("preferences", "logprobs/preferences", "pairs")
        return [[], _shards(layout, entry.from_, *kind) if pairs else [], [], [], made, scores]
    weighed = _weighed(layout, arm, k)
    return [
        _shards(layout, layout.responses(arm, k), "generations", "generate"),
        _shards(layout, layout.scored(arm, k), "reference", "logprobs/reference"),
        [job for j in weighed for job in _readings(layout, arm, j)],
        [job for j in weighed for job in _shards(layout, layout.weighed(arm, j), "weights", "weigh")],
        made,
        scores,
    ]


def _model(layout: StudyPaths, model: str) -> Job:
    files = (layout.model(model), layout.manifest(model))
    if model in layout.fetched_models:
        return Job(files, layout.log("fetch", model))
    return Job((*files, layout.metrics(model)), layout.log("train", model), layout.state(model))


def _scores(layout: StudyPaths, model: str) -> list[Job]:
    if model not in layout.table_models():
        return []
    suites = zip(layout.study.eval.suites, layout.scores(model), strict=True)
    return [Job((path, layout.samples(path)), layout.log("eval", model, suite)) for suite, path in suites]


def _weighed(layout: StudyPaths, arm: str, k: int) -> list[int]:
    """Whose weights an arm makes for its iteration k: k's; where it forks, also those of what it replays."""
    if not layout.study.weighted(arm):
        return []
    replayed = range(max(0, k + 1 - layout.window(arm)), layout.first(arm))
    return [*(j for j in replayed if layout.weighed(arm, j) == f"{arm}/ite{j}"), k]


def _readings(layout: StudyPaths, arm: str, k: int) -> list[Job]:
    """A teacher's of iteration k's real and generated answers."""
    teacher = None if k == 0 and arm in layout.study.given_weights() else layout.teacher(arm)
    found = []
    for responses in (GOLD, layout.responses(arm, k)) if teacher else ():
        for shard in layout.shards():
            log = layout.log("logprobs/teacher", teacher, responses, shard)
            found.append(Job((layout.file(f"logprobs/{teacher}", responses, shard),), log))
    return found


def _shards(layout: StudyPaths, folder: str, kind: str, stage: str, of: str = "prompts") -> list[Job]:
    return [Job((layout.file(folder, kind, shard),), layout.log(stage, folder, shard)) for shard in layout.shards(of)]
