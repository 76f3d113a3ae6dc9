"""The jobs of a study: the output files of each, its log, its states. Pure strings, no file is touched."""

from pathlib import PurePath
from typing import NamedTuple

from wspin.iteration import Iteration

from .paths import GOLD, StudyPaths

COLUMNS = ("generations", "reference", "teacher logprobs", "weights", "model", "scores")


class Job(NamedTuple):
    """One job of Snakemake's. The record of how its outputs were computed belongs to the first of them."""

    outputs: tuple[str, ...]
    log: str
    states: str | None = None  # folder of what a training, generation or evaluation resumes from


def rows(paths: StudyPaths) -> dict[str, dict[str, list[Job]]]:
    """Model -> column -> jobs, in running order: the registry, parents first, then arm by arm.

    What arms share stands in the row of each of them, what an iteration replays in the row of its own iteration.
    """
    models = paths.study.models

    def depth(name: str) -> int:
        return 1 + depth(models[name].from_) if models[name].trained else 0

    names = [*sorted(models, key=depth), *paths.iteration_models()]
    return {name: dict(zip(COLUMNS, _row(paths, name), strict=True)) for name in names}


def other_jobs(paths: StudyPaths) -> dict[str, list[Job]]:
    """The jobs that belong to no model: data, tables and figures."""
    rows = {"sft": "prompts"}
    if any(paths.heldout(suite) for suite in paths.study.eval.suites):
        rows["heldout"] = "heldout"
    if paths.preference_references:
        rows["preferences"] = "preferences"
    files = {name: (paths.data(name), paths.rows_digest(name)) for name in rows.values()}
    prepared = [Job(outputs, paths.log("data", name)) for name, outputs in files.items()]
    logs = {name: ("fetch/data", name) for name in rows}
    logs |= {f"tasks/{name}": ("fetch/tasks", name) for name in paths.study.eval.suites}
    fetched = [Job((paths.fetched(name), paths.fetched_manifest(name)), paths.log(*log)) for name, log in logs.items()]
    return {"data": [*fetched, *prepared], "tables and figures": _report(paths)}


def _report(paths: StudyPaths) -> list[Job]:
    outputs = {"scores": [], "differences": [], "weights": [], "examples": []}
    for path in paths.tables():
        outputs[PurePath(path).stem].append(path)
    outputs["figure"] = paths.figures()
    return [Job(tuple(files), paths.log("report", name)) for name, files in outputs.items()]


def _row(paths: StudyPaths, model: str) -> list[list[Job]]:
    """The jobs of one model, column by column; none where it has no such stage."""
    iteration = Iteration.parse(model)
    training, scores = [_model(paths, model)], _scores(paths, model)
    if iteration is None:
        entry, kind = paths.study.models[model], ("preferences", "logprobs/preferences", "pairs")
        reference = _shards(paths, entry.from_, *kind) if entry.data == "preferences" else []
        return [[], reference, [], [], training, scores]
    weighted = _weighted(paths, iteration)
    return [
        _shards(paths, paths.response_set(iteration), "generations", "generate"),
        _shards(paths, paths.reference_folder(iteration), "reference", "logprobs/reference"),
        [job for source in weighted for job in _teacher(paths, source)],
        [job for source in weighted for job in _shards(paths, paths.weights_folder(source), "weights", "weigh")],
        training,
        scores,
    ]


def _model(paths: StudyPaths, model: str) -> Job:
    files = (paths.model(model), paths.manifest(model))
    if model in paths.fetched_models:
        return Job(files, paths.log("fetch", model))
    return Job((*files, paths.metrics(model)), paths.log("train", model), paths.state("train", model))


def _scores(paths: StudyPaths, model: str) -> list[Job]:
    if model not in paths.table_models():
        return []
    suites = zip(paths.study.eval.suites, paths.scores(model), strict=True)
    places = [(path, ("eval", model, suite)) for suite, path in suites]
    return [Job((path, paths.samples(path)), paths.log(*place), paths.state(*place)) for path, place in places]


def _weighted(paths: StudyPaths, iteration: Iteration) -> list[Iteration]:
    """The iterations whose weights are computed for this one: its own; where it forks, also those that it replays."""
    arm, k = iteration
    if not paths.study.weighted(arm):
        return []
    replayed = [Iteration(arm, j) for j in range(max(0, k + 1 - paths.window(arm)), paths.first(arm))]
    return [*(source for source in replayed if paths.weights_folder(source) == source.name), iteration]


def _teacher(paths: StudyPaths, iteration: Iteration) -> list[Job]:
    """Scoring of an iteration's real and generated answers by the teacher."""
    arm, k = iteration
    teacher = paths.teacher(arm)
    if not teacher or (k == 0 and arm in paths.study.given_weights()):
        return []
    texts = [(responses, shard) for responses in (GOLD, paths.response_set(iteration)) for shard in paths.shards()]
    folder, log = f"logprobs/{teacher}", f"logprobs/teacher/{teacher}"
    return [Job((paths.file(folder, *text),), paths.log(log, *text)) for text in texts]


def _shards(paths: StudyPaths, folder: str, kind: str, stage: str, rows: str = "prompts") -> list[Job]:
    return [
        Job(
            (paths.file(folder, kind, shard),),
            paths.log(stage, folder, shard),
            paths.state(stage, folder, shard) if stage == "generate" else None,
        )
        for shard in paths.shards(rows)
    ]
