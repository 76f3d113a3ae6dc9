"""Cross-field checks of the configuration: what must hold between the sections of a study."""

import math
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from wspin.errors import StudyError
from wspin.iteration import Iteration

from .arms import check_arms, check_weights, loss_of, repeated, unknown_arm, unknown_model
from .explain import Complaint, nearest
from .published import PublishedTable, table_rows
from .reader import Place
from .registry import check_dtypes, check_registry, check_templates
from .scorers import NO_MODEL
from .study import OWN_WEIGHT_KEYS, RESERVED, Study

MOST_FILES = 10_000  # of answers: Snakemake would plan their jobs for many minutes
OWN_FOLDERS = ("bench", "config", "docs", "envs", "local", "rules", "slurm", "tests", "workflow")  # the repository's
COLDEST = 0.01  # vLLM silently raises any lower temperature but 0 to this one


def complaints(study: Study) -> Iterator[Complaint]:
    """Every violated rule between sections, once, in the order of the file."""
    before_arms = (_names, check_registry, check_templates, check_dtypes, _data, _sizes, _lengths, _generation)
    checks = (*before_arms, check_arms, check_weights, _given, _evaluation, _engines)
    yield from dict.fromkeys(complaint for check in checks for complaint in check(study))


def _names(study: Study) -> Iterator[Complaint]:
    """One spelling of the results' folder, and in it one folder for each name."""
    if study.results != posixpath.normpath(study.results):
        expected = posixpath.normpath(study.results)
        spelling = "one spelling, so that Snakemake knows its files"
        yield ("results",), f"found {study.results!r}, expected {expected!r}: {spelling}"
    if re.fullmatch(r"[./]*", study.results) or study.results.split("/")[0] in OWN_FOLDERS:
        yield ("results",), f"found {study.results!r}, expected a folder of its own, such as results/mine"
    for section, names in (("models", study.models), ("arms", study.arms)):
        for name in names:
            if name in RESERVED:
                yield (section, name), f"{name!r} is the name of a folder of the results; choose another"
            if name in NO_MODEL:
                yield (section, name), f"{name!r} is a word in place of a scorer (weigh.positive); choose another name"
            if re.fullmatch(r"ite\d+", name):
                yield (section, name), f"{name!r} is the name of an iteration; choose another"
    for name in study.arms:
        if name in study.models:
            yield ("arms", name), f"{name!r} is a model of the registry too; arms and models share one set of names"


def _data(study: Study) -> Iterator[Complaint]:
    if study.data.heldout.split == study.data.sft.split:
        yield ("data", "heldout", "split"), f"{study.data.sft.split!r} is the training split; name another one"
    if study.data.preferences.from_ and study.data.heldout.split == study.data.preferences.split:
        yield ("data", "preferences", "split"), f"{study.data.heldout.split!r} is held out; name another one"
    yield from repeated(("data", "fits"), study.data.fits)
    for name in study.data.fits:
        yield from unknown_model(study, ("data", "fits"), name)
        if name in study.models and study.models[name].trained:
            yield ("data", "fits"), f"{name!r} is trained on the rows that it would select; name fetched models only"
    for start in dict.fromkeys(arm.start or study.start for arm in study.arms.values()):
        if (root := _root(study, start)) in study.models and root not in study.data.fits:
            role = f"from which {start!r} is trained" if root != start else "from which arms start"
            yield ("data", "fits"), f"{root!r} is missing, {role}: rows have to fit its context; add it"


def _root(study: Study, name: str) -> str:
    """The model without a training that a model descends from."""
    seen = set()
    while name in study.models and name not in seen and study.models[name].from_:
        seen.add(name)
        name = study.models[name].from_
    return name


def _sizes(study: Study) -> Iterator[Complaint]:
    """As many files as Snakemake can plan."""
    rounds = sum(arm.iterations or study.iterations for arm in study.arms.values())
    for name, rows, runs in (("sft", study.data.sft.prompts, rounds), ("preferences", study.data.preferences.pairs, 1)):
        shard = getattr(study.data, name).shard
        if (files := math.ceil(rows / shard) * runs) > MOST_FILES:
            message = f"expected at most {MOST_FILES} files of answers, found {files}"
            message += f": {rows} rows by {shard}, {runs} times; give a larger shard, or fewer iterations"
            yield ("data", name, "shard"), message


def _lengths(study: Study) -> Iterator[Complaint]:
    dialogue, longest = study.dialogue, study.generate.max_new_tokens
    if longest > (most := dialogue.max_tokens - dialogue.max_prompt_tokens):
        rest = f"dialogue.max_tokens {dialogue.max_tokens} less max_prompt_tokens {dialogue.max_prompt_tokens}"
        yield ("generate", "max_new_tokens"), f"expected at most {most} ({rest}), found {longest}"


def _generation(study: Study) -> Iterator[Complaint]:
    settings = study.generate
    for key in settings.missing_keys():
        yield ("generate", key), f"missing key; engine {settings.engine} needs it"
    if settings.engine == "vllm" and 0 < settings.temperature < COLDEST:
        message = f"vllm raises temperatures between 0 and {COLDEST} to {COLDEST}; give 0 or at least {COLDEST}"
        yield ("generate", "temperature"), message


def _given(study: Study) -> Iterator[Complaint]:
    """Ready-made files replace what some arm would generate or weigh otherwise."""
    shared = [arm for arm in study.arms.values() if arm.start in (None, study.start) and arm.seed in (None, study.seed)]
    if study.generate.given and not shared:
        yield ("generate", "given"), f"no arm starts from {study.start!r} with the study's seed; remove the key"
    if study.weigh.given and not study.generate.given:
        yield ("weigh", "given"), "weights belong to the tokens of their answers; give generate.given too"
    valid = all(loss_of(study, name) for name in study.arms)
    if study.weigh.given and valid and not study.given_weights():
        message = f"no arm weighs as the study does, each sets one of {', '.join(sorted(OWN_WEIGHT_KEYS))}"
        yield ("weigh", "given"), f"{message}; remove the key"


def _evaluation(study: Study) -> Iterator[Complaint]:
    yield from repeated(("eval", "models"), study.eval.models)
    for name in study.eval.models:
        yield from unknown_model(study, ("eval", "models"), name)
    if any(source.heldout for source in study.eval.sources.values()):
        yield from _heldout_templates(study)
    yield from unknown_arm(study, ("report", "baseline"), study.report.baseline)
    for suite in study.eval.suites:
        if suite not in study.eval.sources:
            message = f"no source; add one to eval.sources, such as `{suite}: {{path: config/tasks/{suite}}}`"
            yield ("eval", "suites", suite), message
    for suite in study.eval.sources:
        if suite not in study.eval.suites:
            yield ("eval", "sources", suite), f"no suite {suite!r}; there are {', '.join(study.eval.suites)}"
    tasks = [task for suite in study.eval.suites.values() for task in suite]
    for suite, task in ((suite, task) for suite, names in study.eval.suites.items() for task in names):
        if tasks.count(task) > 1:
            yield ("eval", "suites", suite, task), f"task {task!r} is in two suites; remove it from one"
        if task not in study.report.metrics:
            message = f"no metric; add one to report.metrics, such as `{task}: 'acc,none'`"
            yield ("eval", "suites", suite, task), message
    for task in study.report.metrics:
        if task not in tasks:
            yield ("report", "metrics", task), f"no task {task!r} in eval.suites"
    yield from _groups(study)
    for name, table in study.report.published.items():
        yield from _published(study, ("report", "published", name), table)


def _published(study: Study, place: Place, table: PublishedTable) -> Iterator[Complaint]:
    """Rows beside models and arms, whose iterations may be fewer than a paper's.

    A file that is missing stops Snakemake; results elsewhere need none.
    """
    names, unknown = (*study.models, *study.arms), False
    for name in table.rows:
        iteration = Iteration.parse(name)
        if name not in names and not (iteration and iteration.arm in study.arms):
            unknown = True
            yield (
                (*place, "rows", name),
                f"no model or arm {name!a}; there are {', '.join(names)}; remove the row, or set it to null",
            )
    if not unknown and Path(table.file).exists():
        try:
            table_rows(table, study.arms)
        except StudyError as error:
            yield from ((place, line) for line in error.args)


def _groups(study: Study) -> Iterator[Complaint]:
    """Means of tasks of the tables, each with a name that no task has."""
    for group, tasks in study.report.groups.items():
        place = ("report", "groups", group)
        yield from repeated(place, tasks)
        if group in study.report.metrics:
            yield place, f"{group!r} is a task; choose another name for the mean"
        for task in tasks:
            if task not in study.report.metrics:
                known, guess = ", ".join(study.report.metrics), nearest(task, study.report.metrics)
                yield place, f"no task {task!r} in report.metrics; there are {known}{guess}"


def _engines(study: Study) -> Iterator[Complaint]:
    """Every suite has an engine that can run it."""
    place, settings = ("eval", "engine"), study.eval
    by_suite = isinstance(settings.engine, dict)
    engines = settings.engine if by_suite else dict.fromkeys(settings.suites, settings.engine)
    if missing := [suite for suite in settings.suites if suite not in engines]:
        names = f"suite{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}"
        yield place, f"no engine for {names}; add one, such as `{missing[0]}: transformers`"
    for suite in settings.suites:
        if engines.get(suite) == "vllm" and suite in settings.sources and settings.sources[suite].heldout:
            message = f"vllm cannot tokenise the held-out rows of suite {suite!r} as training does; use transformers"
            yield (*place, suite) if by_suite else place, message
    for suite in engines:
        if suite not in settings.suites:
            known = ", ".join(settings.suites)
            yield (*place, suite), f"no suite {suite!r}; there are {known}{nearest(suite, settings.suites)}"


def _heldout_templates(study: Study) -> Iterator[Complaint]:
    """Tasks on held-out rows show all models their prompts in one template."""
    for name in study.eval.models:
        template = study.models[name].template if name in study.models else None
        if template and template != study.dialogue.template:
            reason = "tasks on held-out rows compare models in dialogue.template only"
            yield ("eval", "models"), f"{name!r} has template {template!r}; {reason}: leave the model out"
