"""Model cards: what a model is, from the study, the record of its making, and its scores once there are some.

A card is `README.md` in the model's folder, in the form of the model hub. No manifest holds it, so that renewing it
makes nothing else again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.iteration import Iteration
from wspin.report.scores import ScoreFile, chosen_scores, read_scores
from wspin.report.tables import average_score, in_points
from wspin.storage.files import whole_file
from wspin.storage.provenance import record_path
from wspin.study.paths import StudyPaths
from wspin.templates import CHAT, TEMPLATES

Lines = list[str]

SPIN = "[SPIN](https://arxiv.org/abs/2401.01335), eq. 4.7"
METHODS = {
    "sft": "Supervised fine-tuning: the cross-entropy of the tokens of real answers, prompts left out.",
    "dpo": "Direct preference optimisation of chosen against rejected answers "
    "([DPO](https://arxiv.org/abs/2305.18290), eq. 7): the mean of log(1 + exp(-β h)), where h is the log-ratio of "
    "policy to reference of the chosen answer, minus that of the rejected one.",
    "spin": f"Self-play fine-tuning ({SPIN}): the mean of log(1 + exp(-β h)), where h is the log-ratio of the policy "
    "to its opponent of the real answer, minus that of the opponent's own. The opponent is the model it started from.",
    "wspin": f"Weighted self-play fine-tuning ({SPIN}, with a weight on every token as in "
    "[TIS-DPO](https://arxiv.org/abs/2410.04350), brought to self-play as SWIFT): the mean of log(1 + exp(-β h)), "
    "where h is the weighted sum over tokens of the log-ratios of the policy to its opponent on the real answer, minus "
    "that on the opponent's own.",
}
QWEN = "tongyi-qianwen-research"
LINKS = {QWEN: "https://huggingface.co/Qwen/Qwen1.5-1.8B/blob/main/LICENSE"}
IMPLIED = {
    QWEN: "It is for research, not for commercial use, and what the model says may not serve to improve other models "
    "than its own derivatives: read its text before you pass this model on."
}
ON_THE_HUB = ("apache-2.0", "mit", "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "cc-by-4.0", "cc-by-nc-4.0")
CITED = """\
- SPIN: Chen et al., Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models, ICML 2024,
  arXiv 2401.01335
- Liu et al., TIS-DPO: Token-level Importance Sampling for Direct Preference Optimization, ICLR 2025, arXiv 2410.04350
- SWIFT, NeurIPS 2025, OpenReview 3VvdoCcVPU: token weights in self-play"""


def renew_cards(results: str | Path) -> Lines:
    """Write the card of every finished model where it has changed; returns the paths of these, and their number."""
    layout = StudyPaths(read_results(results))
    finished = [name for name in (*layout.study.models, *layout.iteration_models()) if made(layout, name)]
    written = [f"{layout.model(name)}/README.md" for name in finished if write(layout, name)]
    return [*written, f"cards written: {len(written)} of {len(finished)}; the others are up to date"]


def leave(model: str) -> None:
    """Write the card of a model that has just been made; a model that no study can tell about has none.

    A card that fails is told and no more: it must not cost the model.
    """
    folder = Path(model)
    results = next((above for above in folder.parents if (above / "config.yaml").exists()), None)
    try:
        if results is None:
            raise StudyError(f"{model}: expected the config.yaml of a study above it, found none")
        write(StudyPaths(read_results(results)), str(folder.parent.relative_to(results)))
    except (StudyError, KeyError, OSError) as error:
        print(f"no card yet, `snakemake cards` writes it: {error}", flush=True)


def made(layout: StudyPaths, name: str) -> bool:
    return Path(layout.manifest(name)).exists() and record_path(layout.model(name)).exists()


def write(layout: StudyPaths, name: str) -> bool:
    """Write a model's card; False if it says so already. Raises `KeyError` if the study has no such model."""
    path, text = Path(layout.model(name)) / "README.md", card(layout, name)
    if path.exists() and path.read_text() == text:
        return False
    with whole_file(path) as temporary:
        temporary.write_text(text)
    return True


def card(layout: StudyPaths, name: str, note: str = "") -> str:
    """The card of a model that is there; `note` is said under its title."""
    record = json.loads(record_path(layout.model(name)).read_text())
    scored = _scores(layout, name)
    header = yaml.safe_dump(_header(layout, name), sort_keys=False, allow_unicode=True)
    parts = [
        [f"---\n{header}---", "", f"# {name}", "", *([note, ""] if note else []), *_method(layout, name), ""],
        _section("Trained on", _data(layout, name, record)),
        _section("Scores", _score_lines(layout, scored)),
        _section("Use", _use(layout, name)),
        _section("Limits", _limits()),
        _section("Licence", _licence(layout, name)),
        _section("Settings", _settings(layout, name, record)),
        _section("Cite", CITED.splitlines()),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _section(title: str, lines: Lines) -> Lines:
    return [f"## {title}", "", *lines, ""] if lines else []


def licence(layout: StudyPaths, name: str) -> str | None:
    """The licence that the config states for a model, or for the nearest model that it was trained from."""
    stated = (layout.study.models[one].license for one in (name, *layout.ancestors(name)) if one in layout.study.models)
    return next(filter(None, stated), None)


def _header(layout: StudyPaths, name: str) -> dict[str, Any]:
    base = layout.study.models[[name, *layout.ancestors(name)][-1]]
    stated = licence(layout, name)
    known = {"license": stated} if stated in ON_THE_HUB else {"license": "other", "license_name": stated}
    link = {"license_link": LINKS[stated]} if stated in LINKS else {}
    data = _source(layout, name)
    method = _loss(layout, name)
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base.hub} if base.hub else {}),
        **({"datasets": [data.hub]} if data is not None and getattr(data, "hub", None) else {}),
        **({**known, **link} if stated else {}),
        "tags": [*(["self-play"] if Iteration.parse(name) else []), *([method] if method else [])],
    }


def _loss(layout: StudyPaths, name: str) -> str | None:
    trained = Iteration.parse(name) or layout.study.models[name].trained
    return layout.train_settings(name).loss if trained else None


def _source(layout: StudyPaths, name: str) -> Any:
    """The data set that a model was trained on; none if not here."""
    if not _loss(layout, name):
        return None
    data = layout.study.data
    on_pairs = layout.training_rows(name).endswith("preferences.parquet")
    return data.preferences if on_pairs and not data.preferences.from_ else data.sft


def _from(source: Any) -> str:
    """Where something comes from, in words."""
    if source.hub:
        return f"[{source.hub}](https://huggingface.co/{source.hub}) at commit `{source.revision}`"
    for kind in ("package", "scratch", "reasoning_gym"):
        if given := getattr(source, kind, None):
            told = "random weights" if kind == "scratch" else kind.replace("_", "-")
            return f"{told}: `{json.dumps(given.model_dump(exclude_none=True), sort_keys=True)}`"
    return "a local folder"


def _origin(layout: StudyPaths, name: str) -> str:
    """Where a model of the registry comes from."""
    entry = layout.study.models[name]
    return f"trained in this study from `{entry.from_}`" if entry.trained else _from(entry)


def _method(layout: StudyPaths, name: str) -> Lines:
    arm, k = Iteration.parse(name) or (None, 0)
    if not _loss(layout, name):
        return [f"Not trained in this study: {_from(layout.study.models[name])}."]
    place = f"iteration {k} of the arm `{arm}`" if arm else f"model `{name}` of the registry"
    *between, base = layout.ancestors(name)
    line = " → ".join(f"`{one}`" for one in reversed([name, *between, base]))
    teacher = arm and layout.teacher(arm)
    return [
        f"A model of a SPIN-versus-WSPIN study: {place}.",
        "",
        METHODS[_loss(layout, name)],
        "",
        f"Trained in this order: {line}. `{base}`: {_from(layout.study.models[base])}.",
        *([f"The tokens were weighed by the teacher `{teacher}`: {_origin(layout, teacher)}."] if teacher else []),
    ]


def _data(layout: StudyPaths, name: str, record: dict[str, Any]) -> Lines:
    source = _source(layout, name)
    if source is None:
        return []
    iteration = Iteration.parse(name)
    study = layout.study
    pairs = layout.training_rows(name).endswith("preferences.parquet")
    rows = f"{study.data.preferences.pairs} pairs" if pairs else f"{study.data.sft.prompts} prompts with real answers"
    split = study.data.preferences.split if pairs else study.data.sft.split
    told = [f"- {rows} of the split `{split}`, from {_from(source)}"]
    if iteration:
        sets = 1 + len(layout.replayed_sets(iteration))
        told.append(f"- the opponent's own answers to them, of {sets} iteration{'s' * (sets > 1)}")
    seed, k = record.get("settings", {}).get("seed", (study.seed, 0))
    return [*told, f"- seed {seed}, iteration {k}"]


def _scores(layout: StudyPaths, name: str) -> list[ScoreFile]:
    """The suites that the model has been scored on, of the model as it is now."""
    suites = [
        suite for suite, path in zip(layout.study.eval.suites, layout.scores(name), strict=True) if Path(path).exists()
    ]
    found = read_scores(layout.results, [name], suites)
    present = json.loads(Path(layout.manifest(name)).read_text())["model"]
    return [one for one in found if one.scores.model == present]


def _score_lines(layout: StudyPaths, scored: list[ScoreFile]) -> Lines:
    if not scored:
        return ["Not scored yet."]
    tasks = {task: result for one in scored for task, result in one.scores.tasks.items()}
    metrics = {task: layout.study.report.metrics[task] for task in sorted(tasks)}
    (cells,) = chosen_scores(scored, metrics).values()
    rows = [
        f"| {task} | `{metrics[task]}` | {tasks[task].shots} | {tasks[task].n} | {in_points(cell)} |"
        for task, cell in cells.items()
    ]
    whole = len(scored) == len(layout.study.eval.suites)
    mean = [f"| average | | | | {in_points(average_score(list(cells.values())))} |"] if whole and len(cells) > 1 else []
    one = scored[0].scores
    versions = ", ".join(f"{package} {version}" for package, version in sorted(one.versions.items()))
    return [
        "| task | metric | shots | n | points |",
        "|---|---|---:|---:|---:|",
        *rows,
        *mean,
        "",
        f"± is one standard error over items, one run of the training. lm-eval through {one.engine}, "
        f"batch size {one.batch_size}; {versions}.",
    ]


def _use(layout: StudyPaths, name: str) -> Lines:
    template = layout.template(name)
    snippet = [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # this folder, or the name of this repository',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        *(
            [
                'turn = [{"role": "user", "content": "Your question"}]',
                "prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)",
            ]
            if template == CHAT
            else [f"prompt = {TEMPLATES.get(template, template)!r}.replace('{{prompt}}', 'Your question')"]
        ),
        'ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)',
        f"eos = tokenizer.convert_tokens_to_ids({layout.study.dialogue.eos!r})",
        f"answer = model.generate(**ids, max_new_tokens={layout.study.generate.max_new_tokens}, eos_token_id=eos)",
        "print(tokenizer.decode(answer[0, ids.input_ids.shape[1]:], skip_special_tokens=True))",
        "```",
    ]
    return [f"One user turn in the template `{json.dumps(template)}`; an answer ends with the EOS token.", "", *snippet]


def _limits() -> Lines:
    return [
        "Made to compare ways of training; not made safe, not checked for facts, and tried on single turns in the",
        "language of its data alone. The numbers above are of one run on one seed.",
    ]


def _licence(layout: StudyPaths, name: str) -> Lines:
    stated = licence(layout, name)
    base = [name, *layout.ancestors(name)][-1]
    source = layout.study.models[base]
    if stated:
        told = [f"That of `{base}`: {stated}. {IMPLIED.get(stated, '')}".rstrip()]
    elif source.scratch:
        told = [f"`{base}` was made in this study from random weights: nobody else's licence binds them."]
    else:
        told = [f"Not stated in the study: see the base model, {_from(source)}."]
    iteration = Iteration.parse(name)
    if iteration and (teacher := layout.teacher(iteration.arm)):
        told.append(f"The teacher weighed the tokens of its training (`{teacher}`): check its card too.")
    return told


def _settings(layout: StudyPaths, name: str, record: dict[str, Any]) -> Lines:
    """What the training was told, as its record has it, and how its tokens were weighed, as the study has it."""
    if "settings" not in record:
        return []
    iteration = Iteration.parse(name)
    weighted = iteration and layout.study.weighted(iteration.arm)
    weigh = {"weigh": layout.study.arm_weigh(iteration.arm).model_dump(exclude_none=True)} if weighted else {}
    versions = {name: version for name, version in record["versions"].items() if name in ("torch", "transformers")}
    told = {**record["settings"], **weigh, "versions": versions, "code": record["code"], "commit": record["commit"]}
    return ["```yaml", *yaml.safe_dump(told, sort_keys=True, allow_unicode=True).splitlines(), "```"]
