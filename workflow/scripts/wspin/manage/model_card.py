"""Model cards: what a model is, from the study, the record of its training, and its scores once there are some.

A card is `README.md` in the model's folder, in the form of the model hub. No manifest holds it, so that a new card
re-runs nothing. Its text is the template `model_card.md.j2`.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from wspin.config.load import read_results
from wspin.config.losses import divergence_read
from wspin.config.scorers import STUDENT, TEACHER_SOURCES
from wspin.config.sources import Model
from wspin.errors import StudyError
from wspin.escaping import block_in_markdown, code_in_markdown, in_markdown, one_line
from wspin.iteration import Contrast, Iteration
from wspin.report.scores import AVERAGE, ScoreFile, Scores, read_scores
from wspin.storage.files import read_json, whole_file
from wspin.storage.provenance import check_entries, read_record, record_path
from wspin.storage.text_tables import markdown_cell
from wspin.study.files import PREFERENCE_SIDES
from wspin.study.paths import StudyPaths
from wspin.templates import CHAT, CHAT_FILE, TEMPLATES

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
QWEN = "tongyi-qianwen-research"
LINKS = {QWEN: "https://huggingface.co/Qwen/Qwen1.5-1.8B/blob/main/LICENSE"}
TERMS = {
    QWEN: "It is for research, not for commercial use, and the model's output may not be used to improve models other "
    "than its own derivatives: read its text before you pass this model on."
}
ON_THE_HUB = ("apache-2.0", "mit", "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "cc-by-4.0", "cc-by-nc-4.0")


def renew_cards(results: str | Path) -> list[str]:
    """Write the card of every finished model where it has changed; returns the paths of these, and their number."""
    paths = StudyPaths(read_results(results))
    names = (*paths.study.models, *paths.iteration_models(), *paths.contrast_models)
    finished = [name for name in names if is_finished(paths, name)]
    written = [f"{paths.model(name)}/README.md" for name in finished if write_card(paths, name)]
    return [*written, f"cards written: {len(written)} of {len(finished)}; the others are up to date"]


def refresh_cards(results: str | Path) -> None:
    """`renew_cards` at the end of a run, which it must not fail: prints how many have changed, or what kept one."""
    try:
        *written, total = renew_cards(results)
    except Exception as error:  # also the template's
        print(f"cards: not all up to date, `snakemake --profile local cards` tries again: {one_line(str(error))}")
    else:
        if written:
            print(total)


def add_card(model: str) -> None:
    """Write the card of a new model, the folder `model`; a failure is printed and no more: it must not cost the model.

    A model outside a study's results has no card.
    """
    folder = Path(model)
    results = next((above for above in folder.parents if (above / "config.yaml").exists()), None)
    try:
        if results is None:
            raise StudyError(f"{model}: expected the config.yaml of a study above it, found none")
        write_card(StudyPaths(read_results(results)), str(folder.parent.relative_to(results)))
    except Exception as error:  # also the template's
        print(f"no card yet, `snakemake --profile local cards` writes it: {one_line(str(error))}", flush=True)


def is_finished(paths: StudyPaths, name: str) -> bool:
    return Path(paths.manifest(name)).exists() and record_path(paths.model(name)).exists()


def write_card(paths: StudyPaths, name: str) -> bool:
    """Write a model's card; False if it is up to date. Raises `KeyError` if the study has no such model."""
    path, text = Path(paths.model(name)) / "README.md", card(paths, name)
    if path.is_file() and path.read_text() == text:
        return False
    with whole_file(path) as temporary:
        temporary.write_text(text)
    return True


def card(paths: StudyPaths, name: str, note: str = "") -> str:
    """The card of a finished model; `note` stands under its title."""
    import jinja2

    record = read_record(record_path(paths.model(name)))
    models, iteration, ancestry = paths.study.models, Iteration.parse(name), [name, *paths.ancestors(name)]
    base = ancestry[-1]  # not trained in this study; may be the model itself
    weighted = paths.weighted(name) and paths.weigh_settings(name).source in TEACHER_SOURCES
    teacher = (paths.teacher(iteration.arm) if iteration else paths.study.teacher) if weighted else None
    loss = paths.train_settings(name).loss if base != name else None
    licence = next((models[model].license for model in ancestry if model in models and models[model].license), None)
    header = {
        **_header(models[base], _dataset(paths, name) if loss else None, licence),
        "tags": [*(["self-play"] if iteration else []), *([loss] if loss else [])],
    }
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True, "finalize": _in_card}
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, **options)
    return template.render(
        name=name,
        note=Markup(note),
        header=Markup(yaml.safe_dump(header, sort_keys=False, allow_unicode=True)),
        base=base,
        origin=_source_text(models[base]),
        scratch=models[base].scratch,
        loss=loss,
        iteration=iteration,
        contrast=Contrast.parse(name),
        training=_training(paths, name, record) if loss else None,
        teacher=teacher,
        teacher_origin=_source_text(models[teacher]) if teacher else None,
        evaluation=_evaluation(paths, name),
        **_use(paths, name, trained=loss is not None),
        licence=licence,
        licence_terms=TERMS.get(licence),
        settings=_settings(paths, name, record),
    )


def _use(paths: StudyPaths, name: str, trained: bool) -> dict[str, Any]:
    """What the template shows of the ways to use a model."""
    prompt = paths.template(name)
    return {
        "as_is": trained and (Path(paths.model(name)) / CHAT_FILE).exists(),
        "prompt_template": _code(json.dumps(prompt)),
        "chat": prompt == CHAT,
        "text": Markup(repr(TEMPLATES.get(prompt, prompt))),
        "eos": Markup(repr(paths.study.dialogue.eos)),
        "max_new_tokens": paths.study.generate.max_new_tokens,
    }


def _in_card(value: Any) -> Any:
    """A value as a card shows it: foreign text as text, and as it is what is Markdown already."""
    return in_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _code(text: str) -> Markup:
    return Markup(code_in_markdown(text))


def _header(base: Model, dataset: Any, licence: str | None) -> dict[str, Any]:
    """The card's metadata, which the model hub reads: what it is and what it was made of."""
    on_the_hub = licence in ON_THE_HUB
    repository = getattr(dataset, "hub", None)
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base.hub,
        "datasets": [repository] if repository else None,
        "license": licence if on_the_hub or not licence else "other",
        "license_name": None if on_the_hub else licence,
        "license_link": LINKS.get(licence),
    }
    return {key: value for key, value in header.items() if value}


def _on_preferences(paths: StudyPaths, name: str) -> bool:
    return paths.training_rows(name).endswith("preferences.parquet")


def _dataset(paths: StudyPaths, name: str) -> Any:
    """The config section of the data set that a model was trained on."""
    data = paths.study.data
    return data.preferences if _on_preferences(paths, name) and not data.preferences.from_ else data.sft


def _source_text(source: Any) -> Markup:
    """Where a model or data set of the config comes from."""
    if getattr(source, "trained", False):
        return Markup(f"trained in this study from `{source.from_}`")
    if source.hub:
        return Markup(f"[{source.hub}](https://huggingface.co/{source.hub}) at commit `{source.revision}`")
    for kind in ("package", "scratch", "reasoning_gym"):
        if section := getattr(source, kind, None):
            title = "random weights" if kind == "scratch" else kind.replace("_", "-")
            return title + ": " + _code(json.dumps(section.model_dump(exclude_none=True), sort_keys=True))
    return Markup("a local folder")


def _training(paths: StudyPaths, name: str, record: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of a model's training."""
    data, iteration, train = paths.study.data, Iteration.parse(name), paths.train_settings(name)
    preferences, entry = _on_preferences(paths, name), paths.study.models.get(name)
    seeds = record.get("settings", {}).get("seed", [paths.study.seed, 0])
    if not isinstance(seeds, list) or len(seeds) != 2:
        found = f"expected seed and iteration, found {seeds!r:.60}"
        raise StudyError(f"{record_path(paths.model(name))}: settings.seed: {found}; make the model again")
    return {
        "order": [*reversed(paths.ancestors(name)), name],
        "divergence": divergence_read(train.loss, train.alpha),
        "reference_free": train.reference_free,
        "count": data.preferences.pairs if preferences else data.sft.prompts,
        "preferences": preferences,
        "reverse": entry.reverse if entry else False,
        "side": entry.data.removeprefix("preferences.") if entry and entry.data in PREFERENCE_SIDES else None,
        "taught_by": entry.of if entry else None,
        "scorers": _scorers(paths, name),
        "split": data.preferences.split if preferences else data.sft.split,
        "source": _source_text(_dataset(paths, name)),
        "sets": 1 + len(paths.replayed_sets(iteration)) if iteration else 1,
        "seed": seeds[0],
        "seed_iteration": seeds[1],
    }


def _scorers(paths: StudyPaths, name: str) -> tuple[str, ...] | None:
    """The pair of scorers that weighs a training's tokens; None without token weights, or with a teacher's."""
    if not paths.weighted(name) or paths.weigh_settings(name).source != "pair":
        return None
    weigh = paths.weigh_settings(name)
    words = [paths.parent(name) if word == STUDENT else word for word in (weigh.positive, weigh.negative)]
    return tuple(scorer or word for scorer, word in zip(paths.scorer_pair(name), words, strict=True))


def _evaluation(paths: StudyPaths, name: str) -> dict[str, Any] | None:
    """What the template shows of the scores of the present model; None if it has none."""
    suites = dict(zip(paths.study.eval.suites, paths.scores(name), strict=True))
    existing = [suite for suite, path in suites.items() if Path(path).exists()]
    model = read_json(paths.manifest(name), "a model's manifest", "make the model again").get("model")
    files = [file for file in read_scores(paths.results, [name], existing) if file.scores.model == model]
    if not files:
        return None
    from wspin.report.tables import score_points  # pandas is slow to import, and a new model has no scores

    results = {task: result for file in files for task, result in file.scores.tasks.items()}
    metrics = {task: key for task, key in sorted(paths.study.report.metrics.items()) if task in results}
    complete = len(files) == len(suites)
    points = score_points(files, metrics, paths.study.report.groups if complete else {}).loc[name]
    return {
        "metrics": {task: Markup(markdown_cell(_code(metric))) for task, metric in metrics.items()},
        "results": results,
        "points": {task: points[task] for task in metrics},
        "average": points[AVERAGE] if complete and len(metrics) > 1 else None,
        "conditions": files[0].scores,
        "engines": _engines(files),
        "precision": _precision(files[0].scores),
        "versions": ", ".join(sorted({" ".join(item) for file in files for item in file.scores.versions.items()})),
    }


def _engines(files: list[ScoreFile]) -> str:
    """The engine of all suites, or each with its suites."""
    suites: dict[str, list[str]] = {}
    for file in files:
        suites.setdefault(file.scores.engine, []).append(file.scores.suite)
    if len(suites) == 1:
        return next(iter(suites))
    return " and ".join(f"{engine} ({', '.join(names)})" for engine, names in suites.items())


def _precision(scores: Scores) -> str:
    """What an evaluation computed in: a model that is loaded in bfloat16 has no other products."""
    rounded = scores.dtype == "bfloat16"
    return "weights and products in bfloat16" if rounded else f"products in {scores.autocast}"


def _settings(paths: StudyPaths, name: str, record: dict[str, Any]) -> str:
    """A training's settings, from its record, and its token weights', from the study, as YAML; empty without any."""
    if "settings" not in record:
        return ""
    check_entries(record_path(paths.model(name)), record, ("versions", "commit"))
    weighted = paths.weighted(name)
    weigh = {"weigh": paths.weigh_settings(name).model_dump(exclude_none=True)} if weighted else {}
    versions = {name: version for name, version in record["versions"].items() if name in ("torch", "transformers")}
    settings = {**record["settings"], **weigh, "versions": versions, "code": record["code"], "commit": record["commit"]}
    return Markup(block_in_markdown(yaml.safe_dump(settings, sort_keys=True, allow_unicode=True), "yaml"))
