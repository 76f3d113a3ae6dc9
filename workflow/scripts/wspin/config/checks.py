"""What must hold between the sections of a study: the cross-field checks of the configuration."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from wspin.templates import CHAT, TEMPLATES, known_templates

from .base import ALIASES
from .explain import Complaint, Place, mistakes
from .stages import LOSS_KEYS, Train, Weigh, required_keys
from .study import OWN_WEIGHTS, RESERVED, Study

COLDEST = 0.01  # temperature that vLLM silently puts in place of any lower one but 0


def complaints(study: Study) -> Iterator[Complaint]:
    """Every violated rule between sections, once, in the order of the file."""
    yield from dict.fromkeys(_all(study))


def _all(study: Study) -> Iterator[Complaint]:
    yield from _names(study)
    yield from _registry(study)
    yield from _templates(study)
    yield from _lengths(study)
    yield from _generation(study)
    yield from _arms(study)
    yield from _weights(study)
    yield from _given(study)
    yield from _evaluation(study)


def _names(study: Study) -> Iterator[Complaint]:
    if study.results != posixpath.normpath(study.results):
        expected = posixpath.normpath(study.results)
        yield (
            ("results",),
            f"found {study.results!r}, expected {expected!r}: one spelling, so that Snakemake knows its files",
        )
    for section, names in (("models", study.models), ("arms", study.arms)):
        for name in names:
            if name in RESERVED:
                yield (section, name), f"{name!r} is the name of a folder of the results; choose another"
    for name in study.arms:
        if name in study.models:
            yield ("arms", name), f"{name!r} is a model of the registry too; arms and models share one set of names"


def _registry(study: Study) -> Iterator[Complaint]:
    def known(place: Place, name: str) -> Iterator[Complaint]:
        if name not in study.models:
            yield place, f"no model {name!r} in the registry; it holds {', '.join(study.models)}"

    yield from known(("start",), study.start)
    for name, model in study.models.items():
        if model.trained:
            yield from known(("models", name, "from"), model.from_)
            yield from _training(study, ("models", name, "train"), lambda name=name: study.model_train(name), 0)
            if model.train.get("loss", model.loss) != model.loss:
                yield ("models", name, "train", "loss"), f"the model's loss is {model.loss!r}, given beside `from`"
            if _in_cycle(study, name):
                yield ("models", name, "from"), f"{name!r} is trained from itself"
        if model.scratch and model.scratch.text != "sft":
            yield ("models", name, "scratch", "text"), f"found {model.scratch.text!r}, expected the data set 'sft'"
        if model.scratch and model.scratch.context < study.dialogue.max_tokens:
            yield (
                ("models", name, "scratch", "context"),
                f"shorter than dialogue.max_tokens {study.dialogue.max_tokens}",
            )
    if study.data.heldout.split == study.data.sft.split:
        yield ("data", "heldout", "split"), f"{study.data.sft.split!r} is what is trained on; name another split"
    for loss in ("sft", "dpo"):
        if "loss" in getattr(study.train, loss):
            yield (
                ("train", loss, "loss"),
                f"these are the settings of loss {loss}; a model's loss is given beside `from`",
            )
    for name in study.data.fits:
        yield from known(("data", "fits"), name)
        if name in study.models and study.models[name].trained:
            yield (
                ("data", "fits"),
                f"{name!r} is trained on the data that it would measure; name models that are fetched",
            )


def _templates(study: Study) -> Iterator[Complaint]:
    """Models that are trained here, and those they are trained from, see prompts in the study's template."""
    given = {("dialogue", "template"): study.dialogue.template}
    given |= {("models", name, "template"): model.template for name, model in study.models.items() if model.template}
    for place, template in given.items():
        if template not in (*TEMPLATES, CHAT) and template.count("{prompt}") != 1:
            yield place, f"found {template!r}; expected {known_templates()}"
    starts = {study.start, *(arm.start for arm in study.arms.values())}
    parents = {model.from_ for model in study.models.values()}
    for name, model in study.models.items():
        if model.template and (model.trained or name in starts or name in parents):
            yield ("models", name, "template"), "the model takes part in training; it has `dialogue.template`"


def _in_cycle(study: Study, name: str) -> bool:
    seen, parent = {name}, study.models[name].from_
    while parent in study.models:
        if parent in seen:
            return parent == name
        seen.add(parent)
        parent = study.models[parent].from_
    return False


def _lengths(study: Study) -> Iterator[Complaint]:
    longest = study.dialogue.max_prompt_tokens + study.generate.max_new_tokens
    if longest > study.dialogue.max_tokens:
        yield (
            ("generate", "max_new_tokens"),
            f"with dialogue.max_prompt_tokens it makes {longest} tokens, over dialogue.max_tokens",
        )


def _generation(study: Study) -> Iterator[Complaint]:
    for key in sorted(study.generate.required_keys):
        if getattr(study.generate, key) is None:
            yield ("generate", key), f"missing key; engine {study.generate.engine} reads it"
    if study.generate.engine == "vllm" and 0 < study.generate.temperature < COLDEST:
        yield ("generate", "temperature"), f"vllm takes {COLDEST} for what lies between; give 0 or at least {COLDEST}"


def _training(study: Study, place: Place, resolve: Callable[[], Train], iterations: int) -> Iterator[Complaint]:
    """Validate a merged training; `iterations` = 0 means a model outside the arms, which has no iterations."""
    try:
        train: Train = resolve()
    except ValidationError as error:
        yield from (((*place, *below), message) for below, message in mistakes(error, Train))
        return
    for key in sorted(required_keys(train.loss)):
        if getattr(train, key) is None:
            yield (*place, key), f"missing key; loss {train.loss} reads it, and nothing is defaulted silently"
    if train.global_batch < study.resources.train.gpu:
        found = f"{train.global_batch} pairs are too few for the {study.resources.train.gpu} GPUs of resources.train"
        yield (*place, "global_batch"), found
    if train.alpha and train.parallel == "fsdp":
        yield (*place, "parallel"), f"with alpha {train.alpha} a second model is kept whole; use ddp"
    for key, value in train:
        if not isinstance(value, list):
            continue
        if not iterations:
            yield (
                place,
                f"{key} is a list per iteration, and this model has none: give train.{train.loss}.{key} one value",
            )
        elif len(value) < iterations:
            yield (*place, key), f"{key} has {len(value)} values for {iterations} iterations"


def _arms(study: Study) -> Iterator[Complaint]:
    for key, value in study.train:
        if isinstance(value, list) and len(value) != study.iterations:
            yield ("train", key), f"{len(value)} values for {study.iterations} iterations"
    for name, arm in study.arms.items():
        iterations = arm.iterations or study.iterations
        yield from _training(study, ("arms", name, "train"), lambda name=name: study.arm_train(name), iterations)
        for key, value in arm.train.items():
            if isinstance(value, list) and len(value) > iterations:
                yield ("arms", name, "train", key), f"{key} has {len(value)} values for {iterations} iterations"
        loss = arm.train.get("loss", study.train.loss)
        for key in sorted(LOSS_KEYS & arm.train.keys() - required_keys(ALIASES.get(loss, loss))):
            yield ("arms", name, "train", key), f"loss {loss} does not read it; remove the key"
        if loss == "sft":
            yield ("arms", name, "train", "loss"), "an arm plays against its opponent: sft is no preference loss"
        if arm.start and arm.start not in study.models:
            yield ("arms", name, "start"), f"no model {arm.start!r} in the registry; it holds {', '.join(study.models)}"
        if arm.fork:
            yield from _fork(study, name)
        yield from _triplets(study, name)


def _triplets(study: Study, name: str) -> Iterator[Complaint]:
    """All pairs of a prompt meet in one step: steps must hold a multiple of them."""
    try:
        train = study.arm_train(name)
    except ValidationError:
        return  # told already
    arm = study.arms[name]
    most = min(arm.data_window or study.data_window, arm.iterations or study.iterations)
    for pairs in range(1, most + 1):
        if train.triplets and train.global_batch % pairs:
            found = f"{train.global_batch} is no multiple of the {pairs} pairs of a prompt that triplets keeps together"
            yield ("arms", name, "train", "global_batch"), found


def _weights(study: Study) -> Iterator[Complaint]:
    """Teachers are models of the registry, and whoever weighs tokens has all that its weights are made from."""
    if study.teacher and study.teacher not in study.models:
        yield ("teacher",), f"no model {study.teacher!r} in the registry; it holds {', '.join(study.models)}"
    for name, arm in study.arms.items():
        if arm.teacher and arm.teacher not in study.models:
            place = ("arms", name, "teacher")
            yield place, f"no model {arm.teacher!r} in the registry; it holds {', '.join(study.models)}"
        yield from _weigh(study, name)


def _weigh(study: Study, name: str) -> Iterator[Complaint]:
    arm, place = study.arms[name], ("arms", name)
    loss = arm.train.get("loss", study.train.loss)
    if loss not in ("wspin", *ALIASES):
        for key in ("weigh", "teacher"):
            if getattr(arm, key):
                yield (*place, key), f"loss {loss} weighs no token; remove the key, or give the arm loss wspin"
        return
    try:
        weigh = study.arm_weigh(name)
    except ValidationError as error:
        yield from (((*place, "weigh", *below), message) for below, message in mistakes(error, Weigh))
        return

    def at(key: str) -> Place:
        """Where the study says it: in the arm, or for all arms."""
        return (*place, "weigh", key) if key in arm.weigh else ("weigh", key)

    for key in weigh.required_keys:
        if getattr(weigh, key) is None:
            yield at(key), f"missing key; source {weigh.source}, normalise {weigh.normalise} read it"
    for key in sorted(Weigh.optional() & arm.weigh.keys() - set(weigh.required_keys)):
        yield at(key), f"source {weigh.source}, normalise {weigh.normalise} do not read it; remove the key"
    if weigh.lower is not None and weigh.upper is not None and not weigh.lower <= weigh.upper:
        yield at("lower"), f"found {weigh.lower}, above upper {weigh.upper}"
    yield from _control(weigh, at)
    if weigh.source == "equal" and arm.teacher:
        yield (*place, "teacher"), "source equal asks no teacher; remove the key"
    if weigh.source == "teacher" and not (arm.teacher or study.teacher):
        yield ("teacher",), f"missing key; arm {name!r} weighs its tokens by a teacher"


def _control(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    """Controls that would train nothing, or ask a teacher for nothing."""
    if weigh.control in ("one_minus", "random") and weigh.normalise != "none":
        yield at("normalise"), f"{weigh.control} makes weights of either sign, whose mean is nothing to go by"
    if weigh.source == "equal" and weigh.control not in ("none", "random", "noise"):
        yield at("control"), f"{weigh.control} of equal weights tells nothing; expected none, random or noise"
    if weigh.source == "teacher" and weigh.control == "random":
        yield at("source"), "control random asks no teacher; give source equal"


def _given(study: Study) -> Iterator[Complaint]:
    """Ready-made files stand for what some arm would make otherwise."""
    shared = [arm for arm in study.arms.values() if arm.start in (None, study.start) and arm.seed in (None, study.seed)]
    if study.generate.given and not shared:
        yield ("generate", "given"), f"no arm starts from {study.start!r} with the study's seed; remove the key"
    if study.weigh.given and not study.generate.given:
        yield ("weigh", "given"), "weights belong to the answers that they were made of; give generate.given too"
    if study.weigh.given and not study.given_weights():
        found = f"no arm weighs as the study does, each sets one of {', '.join(sorted(OWN_WEIGHTS))}; remove the key"
        yield ("weigh", "given"), found


def _fork(study: Study, name: str) -> Iterator[Complaint]:
    arm, place = study.arms[name], ("arms", name, "fork")
    parent = study.arms.get(arm.fork.from_)
    if parent is None:
        yield (*place, "from"), f"no arm {arm.fork.from_!r}; there are {', '.join(study.arms)}"
    elif parent.fork:
        yield (*place, "from"), f"{arm.fork.from_!r} is a fork itself; fork from {parent.fork.from_!r}"
    elif arm.fork.at >= (parent.iterations or study.iterations):
        yield (*place, "at"), f"{arm.fork.from_!r} has no iteration {arm.fork.at}"
    if arm.fork.at >= (arm.iterations or study.iterations):
        yield (*place, "at"), f"the arm ends before iteration {arm.fork.at}"
    if arm.start:
        yield (*place[:2], "start"), "a fork starts from the iteration before `at`; remove start or fork"


def _evaluation(study: Study) -> Iterator[Complaint]:
    for name in study.eval.models:
        if name not in study.models:
            yield ("eval", "models"), f"no model {name!r} in the registry; it holds {', '.join(study.models)}"
    if any(source.heldout for source in study.eval.sources.values()):
        if study.eval.engine == "vllm":
            yield ("eval", "engine"), "vllm cannot tokenise held-out rows as training does; use transformers"
        for name in study.eval.models:
            own = study.models[name].template if name in study.models else None
            if own and own != study.dialogue.template:
                told = f"{name!r} has template {own!r}; tasks on held-out rows compare models in dialogue.template"
                yield ("eval", "models"), f"{told} alone: leave the model out"
    if study.report.baseline not in study.arms:
        yield ("report", "baseline"), f"no arm {study.report.baseline!r}; there are {', '.join(study.arms)}"
    tasks = [task for suite in study.eval.suites.values() for task in suite]
    for suite in study.eval.suites:
        if suite not in study.eval.sources:
            yield ("eval", "sources"), f"suite {suite!r} has no source"
    for suite in study.eval.sources:
        if suite not in study.eval.suites:
            yield ("eval", "sources", suite), f"no suite {suite!r}; there are {', '.join(study.eval.suites)}"
    for task in tasks:
        if tasks.count(task) > 1:
            yield ("eval", "suites"), f"task {task!r} stands in two suites"
        if task not in study.report.metrics:
            yield ("report", "metrics"), f"task {task!r} has no metric"
    for task in study.report.metrics:
        if task not in tasks:
            yield ("report", "metrics", task), f"no task {task!r} in eval.suites"
