"""Model cards: what a model is, from the study, the record of its training, and its scores once there are some.

A card is `README.md` in the model's folder, in the form of the model hub. No manifest holds it, so that a new card
re-runs nothing. Its text is the template `model_card.md.j2`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.iteration import Iteration
from wspin.report.scores import chosen_scores, read_scores
from wspin.report.tables import average_score, in_points
from wspin.storage.files import whole_file
from wspin.storage.provenance import record_path
from wspin.study.paths import StudyPaths
from wspin.templates import CHAT, TEMPLATES

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
    finished = [name for name in (*paths.study.models, *paths.iteration_models()) if is_finished(paths, name)]
    written = [f"{paths.model(name)}/README.md" for name in finished if write_card(paths, name)]
    return [*written, f"cards written: {len(written)} of {len(finished)}; the others are up to date"]


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
    except (StudyError, KeyError, OSError) as error:
        print(f"no card yet, `snakemake cards` writes it: {error}", flush=True)


def is_finished(paths: StudyPaths, name: str) -> bool:
    return Path(paths.manifest(name)).exists() and record_path(paths.model(name)).exists()


def write_card(paths: StudyPaths, name: str) -> bool:
    """Write a model's card; False if it is up to date. Raises `KeyError` if the study has no such model."""
    path, text = Path(paths.model(name)) / "README.md", card(paths, name)
    if path.exists() and path.read_text() == text:
        return False
    with whole_file(path) as temporary:
        temporary.write_text(text)
    return True


def card(paths: StudyPaths, name: str, note: str = "") -> str:
    """The card of a finished model; `note` stands under its title."""
    import jinja2

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    record = json.loads(record_path(paths.model(name)).read_text())
    models = paths.study.models
    base, teacher, stated = _base(paths, name), _teacher(paths, name), licence(paths, name)
    return environment.from_string(TEMPLATE.read_text()).render(
        name=name,
        note=note,
        header=yaml.safe_dump(_header(paths, name), sort_keys=False, allow_unicode=True),
        base=base,
        origin=_source_text(models[base]),
        scratch=models[base].scratch,
        training=_training(paths, name, record) if _loss(paths, name) else None,
        teacher=teacher,
        teacher_origin=_registry_text(paths, teacher) if teacher else None,
        evaluation=_evaluation(paths, name),
        usage=_usage(paths, name),
        licence=stated,
        licence_terms=TERMS.get(stated),
        settings=_settings(paths, name, record),
    )


def _base(paths: StudyPaths, name: str) -> str:
    """The model that was not trained in this study and that a model descends from, maybe itself."""
    return [name, *paths.ancestors(name)][-1]


def _teacher(paths: StudyPaths, name: str) -> str | None:
    iteration = Iteration.parse(name)
    return paths.teacher(iteration.arm) if iteration else None


def _loss(paths: StudyPaths, name: str) -> str | None:
    """The loss that a model was trained with; None if it was not trained in this study."""
    return paths.train_settings(name).loss if paths.ancestors(name) else None


def licence(paths: StudyPaths, name: str) -> str | None:
    """The licence that the config states for a model, or for the nearest model that it was trained from."""
    models = paths.study.models
    stated = (models[model].license for model in (name, *paths.ancestors(name)) if model in models)
    return next(filter(None, stated), None)


def _header(paths: StudyPaths, name: str) -> dict[str, Any]:
    """The card's metadata, which the model hub reads."""
    base, loss, stated = paths.study.models[_base(paths, name)], _loss(paths, name), licence(paths, name)
    terms = {"license": stated} if stated in ON_THE_HUB else {"license": "other", "license_name": stated}
    link = {"license_link": LINKS[stated]} if stated in LINKS else {}
    dataset = getattr(_dataset(paths, name), "hub", None) if loss else None
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base.hub} if base.hub else {}),
        **({"datasets": [dataset]} if dataset else {}),
        **({**terms, **link} if stated else {}),
        "tags": [*(["self-play"] if Iteration.parse(name) else []), *([loss] if loss else [])],
    }


def _on_preferences(paths: StudyPaths, name: str) -> bool:
    return paths.training_rows(name).endswith("preferences.parquet")


def _dataset(paths: StudyPaths, name: str) -> Any:
    """The config section of the data set that a model was trained on."""
    data = paths.study.data
    return data.preferences if _on_preferences(paths, name) and not data.preferences.from_ else data.sft


def _source_text(source: Any) -> str:
    """Where a model or data set of the config comes from."""
    if source.hub:
        return f"[{source.hub}](https://huggingface.co/{source.hub}) at commit `{source.revision}`"
    for kind in ("package", "scratch", "reasoning_gym"):
        if section := getattr(source, kind, None):
            title = "random weights" if kind == "scratch" else kind.replace("_", "-")
            return f"{title}: `{json.dumps(section.model_dump(exclude_none=True), sort_keys=True)}`"
    return "a local folder"


def _registry_text(paths: StudyPaths, name: str) -> str:
    """Where a model of the registry comes from."""
    entry = paths.study.models[name]
    return f"trained in this study from `{entry.from_}`" if entry.trained else _source_text(entry)


def _training(paths: StudyPaths, name: str, record: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of a model's training."""
    data, iteration = paths.study.data, Iteration.parse(name)
    preferences = _on_preferences(paths, name)
    seed, seed_iteration = record.get("settings", {}).get("seed", (paths.study.seed, 0))
    return {
        "loss": _loss(paths, name),
        "arm": iteration and iteration.arm,
        "k": iteration and iteration.k,
        "order": [*reversed(paths.ancestors(name)), name],
        "rows": f"{data.preferences.pairs} pairs" if preferences else f"{data.sft.prompts} prompts with real answers",
        "split": data.preferences.split if preferences else data.sft.split,
        "source": _source_text(_dataset(paths, name)),
        "sets": 1 + len(paths.replayed_sets(iteration)) if iteration else 0,
        "seed": seed,
        "seed_iteration": seed_iteration,
    }


def _evaluation(paths: StudyPaths, name: str) -> dict[str, Any] | None:
    """What the template shows of the scores of the present model; None if it has none."""
    suites = list(paths.study.eval.suites)
    existing = [suite for suite, path in zip(suites, paths.scores(name), strict=True) if Path(path).exists()]
    manifest = json.loads(Path(paths.manifest(name)).read_text())
    scored = [
        suite for suite in read_scores(paths.results, [name], existing) if suite.scores.model == manifest["model"]
    ]
    if not scored:
        return None
    results = {task: result for suite in scored for task, result in suite.scores.tasks.items()}
    metrics = {task: paths.study.report.metrics[task] for task in sorted(results)}
    (cells,) = chosen_scores(scored, metrics).values()
    complete = len(scored) == len(suites) and len(cells) > 1
    conditions = scored[0].scores
    return {
        "tasks": [
            {"name": task, "metric": metrics[task], "shots": results[task].shots, "n": results[task].n}
            | {"points": in_points(cell)}
            for task, cell in cells.items()
        ],
        "average": in_points(average_score(list(cells.values()))) if complete else None,
        "engine": conditions.engine,
        "batch_size": conditions.batch_size,
        "versions": ", ".join(f"{package} {version}" for package, version in sorted(conditions.versions.items())),
    }


def _usage(paths: StudyPaths, name: str) -> dict[str, Any]:
    """What the template puts into the Python code that runs the model."""
    template = paths.template(name)
    return {
        "template": json.dumps(template),
        "chat": template == CHAT,
        "text": repr(TEMPLATES.get(template, template)),
        "eos": repr(paths.study.dialogue.eos),
        "max_new_tokens": paths.study.generate.max_new_tokens,
    }


def _settings(paths: StudyPaths, name: str, record: dict[str, Any]) -> str:
    """YAML of a training's settings, from its record, and of its token weights, from the study; empty without any."""
    if "settings" not in record:
        return ""
    iteration = Iteration.parse(name)
    weighted = iteration and paths.study.weighted(iteration.arm)
    weigh = {"weigh": paths.study.arm_weigh(iteration.arm).model_dump(exclude_none=True)} if weighted else {}
    versions = {name: version for name, version in record["versions"].items() if name in ("torch", "transformers")}
    settings = {**record["settings"], **weigh, "versions": versions, "code": record["code"], "commit": record["commit"]}
    return yaml.safe_dump(settings, sort_keys=True, allow_unicode=True)
