"""The jobs of a study: the output files of each, its log, its states. Pure strings, no file is touched."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

from wspin.iteration import Iteration

from .paths import StudyPaths

COLUMNS = ("generations", "reference", "scorers' logprobs", "weights", "model", "scores")
FIGURES = {"averages": "figure", "weights": "histograms"}  # job of a figure that has not the figure's name


class Job(NamedTuple):
    """One job of Snakemake's. The record of how its outputs were computed belongs to the first of them."""

    outputs: tuple[str, ...]
    log: str
    states: str | None = None  # folder of what a training, generation or evaluation resumes from


def rows(paths: StudyPaths) -> dict[str, dict[str, list[Job]]]:
    """Model -> column -> jobs: the registry, parents first, then arm by arm, in running order.

    What arms share stands in the row of each of them, what an iteration replays in the row of its own iteration.
    """
    registry = sorted(paths.study.models, key=lambda name: len(paths.ancestors(name)))
    names = [*registry, *paths.contrast_models, *paths.iteration_models()]
    return {name: dict(zip(COLUMNS, _row(paths, name), strict=True)) for name in names}


def other_jobs(paths: StudyPaths) -> dict[str, list[Job]]:
    """The jobs that belong to no model: data, tables and figures, pages."""
    rows = {"sft": "prompts"}
    if any(paths.heldout(suite) for suite in paths.study.eval.suites):
        rows["heldout"] = "heldout"
    if any(paths.training_rows(model) == paths.data("preferences") for model in paths.trained_models):
        rows["preferences"] = "preferences"
    files = {name: (paths.data(name), paths.rows_digest(name)) for name in rows.values()}
    prepared = [Job(outputs, paths.log("data", name)) for name, outputs in files.items()]
    logs = {name: ("fetch/data", name) for name in rows}
    logs |= {f"tasks/{name}": ("fetch/tasks", name) for name in paths.study.eval.suites}
    fetched = [Job((paths.fetched(name), paths.fetched_manifest(name)), paths.log(*log)) for name, log in logs.items()]
    return {"data": [*fetched, *prepared], "tables and figures": _report(paths), "pages": list(_pages(paths))}


def _report(paths: StudyPaths) -> list[Job]:
    outputs: dict[str, list[str]] = {}
    for path in paths.tables():
        outputs.setdefault(PurePath(path).stem, []).append(path)
    for path in paths.figures():
        stem = PurePath(path).stem
        outputs.setdefault(FIGURES.get(stem, stem), []).append(path)
    return [Job(tuple(files), f"{paths.report_folder('logs/report')}/{name}.log") for name, files in outputs.items()]


def _pages(paths: StudyPaths) -> Iterator[Job]:
    """The pages of token weights and of answers, and the answers that models give for it alone."""
    for iteration in paths.weighted_iterations():
        yield Job((paths.token_page(iteration),), paths.log("report/tokens", iteration.name))
    for model in paths.silent_models():
        place = ("generate", model, "examples")
        yield Job((paths.shown_answers()[model],), paths.log(*place), paths.state(*place))
    yield Job((paths.answers_page(),), f"{paths.report_folder('logs/report')}/answers.log")


def _row(paths: StudyPaths, model: str) -> list[list[Job]]:
    """The jobs of one model, column by column; none where it has no such stage."""
    iteration = Iteration.parse(model)
    training, scores = [_model(paths, model)], _scores(paths, model)
    if iteration is None:
        return [*_registry(paths, model), training, scores]
    weighted = _weighted(paths, iteration)
    return [
        _shards(paths, paths.response_set(iteration), "generations", "generate"),
        _shards(paths, paths.reference_folder(iteration), "reference", "logprobs/reference"),
        [job for source in weighted for job in _scorers(paths, source.name)],
        [job for source in weighted for job in _shards(paths, paths.weights_folder(source), "weights", "weigh")],
        training,
        scores,
    ]


def _registry(paths: StudyPaths, model: str) -> list[list[Job]]:
    """The jobs before the training of a registry model, or of a pair trained in an iteration, column by column."""
    entry = paths.study.models.get(model)
    answers = _shards(paths, entry.of, "answers", "generate") if entry and entry.of else []
    if not entry or entry.data != "preferences":
        return [answers, [], [], []]
    reference = _shards(paths, entry.from_, "preferences", "logprobs/preferences", "pairs")
    if model not in paths.study.weighted_models():
        return [answers, reference, [], []]
    return [answers, reference, _scorers(paths, model), _shards(paths, model, "weights", "weigh", "pairs")]


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


def _scorers(paths: StudyPaths, model: str) -> list[Job]:
    """Scoring of the chosen and the rejected answers that a weighted iteration or registry model is trained on."""
    iteration = Iteration.parse(model)
    if iteration and iteration.k == 0 and iteration.arm in paths.study.given_weights():
        return []
    shards = paths.shards("prompts" if iteration else "pairs")
    texts = [(responses, shard) for responses in paths.scored_sides(model) for shard in shards]
    places = [(scorer, *text) for scorer in paths.scorer_pair(model) if scorer for text in texts]
    return [
        Job((paths.file(f"logprobs/{scorer}", *text),), paths.log("logprobs/scorer", scorer, *text))
        for scorer, *text in places
    ]


def _shards(paths: StudyPaths, folder: str, kind: str, stage: str, rows: str = "prompts") -> list[Job]:
    place = (stage, folder, kind) if kind == "answers" else (stage, folder)
    return [
        Job(
            (paths.file(folder, kind, shard),),
            paths.log(*place, shard),
            paths.state(*place, shard) if stage == "generate" else None,
        )
        for shard in paths.shards(rows)
    ]
