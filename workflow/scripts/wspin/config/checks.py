"""Cross-field checks of the configuration: what must hold between the sections of a study."""

import posixpath
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from wspin.templates import CHAT, TEMPLATES, known_templates

from .base import ALIASES
from .explain import Complaint, Place, complaints_of
from .stages import Train, Weigh, loss_keys
from .study import OWN_WEIGHT_KEYS, RESERVED, Fork, Study

COLDEST = 0.01  # vLLM silently raises any lower temperature but 0 to this one


def complaints(study: Study) -> Iterator[Complaint]:
    """Every violated rule between sections, once, in the order of the file."""
    checks = (_names, _registry, _templates, _data, _lengths, _generation, _arms, _weights, _given, _evaluation)
    yield from dict.fromkeys(complaint for check in checks for complaint in check(study))


def _unknown_model(study: Study, place: Place, name: str | None) -> Iterator[Complaint]:
    if name is not None and name not in study.models:
        yield place, f"no model {name!r} in the registry; it holds {', '.join(study.models)}"


def _unknown_arm(study: Study, place: Place, name: str) -> Iterator[Complaint]:
    if name not in study.arms:
        yield place, f"no arm {name!r}; there are {', '.join(study.arms)}"


def _names(study: Study) -> Iterator[Complaint]:
    """One spelling of the results' folder, and in it one folder for each name."""
    if study.results != posixpath.normpath(study.results):
        expected = posixpath.normpath(study.results)
        spelling = "one spelling, so that Snakemake knows its files"
        yield ("results",), f"found {study.results!r}, expected {expected!r}: {spelling}"
    for section, names in (("models", study.models), ("arms", study.arms)):
        for name in names:
            if name in RESERVED:
                yield (section, name), f"{name!r} is the name of a folder of the results; choose another"
    for name in study.arms:
        if name in study.models:
            yield ("arms", name), f"{name!r} is a model of the registry too; arms and models share one set of names"


def _registry(study: Study) -> Iterator[Complaint]:
    yield from _unknown_model(study, ("start",), study.start)
    for name, model in study.models.items():
        place = ("models", name)
        if model.trained:
            yield from _unknown_model(study, (*place, "from"), model.from_)
            yield from _training(study, (*place, "train"), lambda name=name: study.model_train(name), 0)
            if model.train.get("loss", model.loss) != model.loss:
                yield (*place, "train", "loss"), f"the model's loss is {model.loss!r}, given beside `from`"
            if _in_cycle(study, name):
                yield (*place, "from"), f"{name!r} is trained from itself"
        if model.scratch and model.scratch.text != "sft":
            yield (*place, "scratch", "text"), f"found {model.scratch.text!r}, expected the data set 'sft'"
        if model.scratch and model.scratch.context < study.dialogue.max_tokens:
            yield (*place, "scratch", "context"), f"shorter than dialogue.max_tokens {study.dialogue.max_tokens}"
    for loss in ("sft", "dpo"):
        if "loss" in getattr(study.train, loss):
            message = f"this section holds the settings of loss {loss}; a model's loss is given beside `from`"
            yield ("train", loss, "loss"), message


def _in_cycle(study: Study, name: str) -> bool:
    visited, parent = {name}, study.models[name].from_
    while parent in study.models:
        if parent in visited:
            return parent == name
        visited.add(parent)
        parent = study.models[parent].from_
    return False


def _templates(study: Study) -> Iterator[Complaint]:
    """Models that are trained here, and those they are trained from, see prompts in the study's template."""
    templates = {("dialogue", "template"): study.dialogue.template}
    templates |= {
        ("models", name, "template"): model.template for name, model in study.models.items() if model.template
    }
    for place, template in templates.items():
        if template not in (*TEMPLATES, CHAT) and template.count("{prompt}") != 1:
            yield place, f"found {template!r}; expected {known_templates()}"
    starts = {study.start, *(arm.start for arm in study.arms.values())}
    parents = {model.from_ for model in study.models.values()}
    for name, model in study.models.items():
        if model.template and (model.trained or name in starts or name in parents):
            yield ("models", name, "template"), "the model takes part in training, which uses `dialogue.template`"


def _data(study: Study) -> Iterator[Complaint]:
    if study.data.heldout.split == study.data.sft.split:
        yield ("data", "heldout", "split"), f"{study.data.sft.split!r} is the training split; name another one"
    if study.data.preferences.from_ and study.data.heldout.split == study.data.preferences.split:
        yield ("data", "preferences", "split"), f"{study.data.heldout.split!r} is held out; name another one"
    for name in study.data.fits:
        yield from _unknown_model(study, ("data", "fits"), name)
        if name in study.models and study.models[name].trained:
            yield ("data", "fits"), f"{name!r} is trained on the rows that it would select; name fetched models only"


def _lengths(study: Study) -> Iterator[Complaint]:
    longest = study.dialogue.max_prompt_tokens + study.generate.max_new_tokens
    if longest > study.dialogue.max_tokens:
        limit = f"dialogue.max_tokens {study.dialogue.max_tokens}"
        yield ("generate", "max_new_tokens"), f"with dialogue.max_prompt_tokens up to {longest} tokens, over {limit}"


def _generation(study: Study) -> Iterator[Complaint]:
    settings = study.generate
    for key in settings.missing_keys():
        yield ("generate", key), f"missing key; engine {settings.engine} needs it"
    if settings.engine == "vllm" and 0 < settings.temperature < COLDEST:
        message = f"vllm raises temperatures between 0 and {COLDEST} to {COLDEST}; give 0 or at least {COLDEST}"
        yield ("generate", "temperature"), message


def _training(study: Study, place: Place, resolve: Callable[[], Train], iterations: int) -> Iterator[Complaint]:
    """Validate a merged training; `iterations` = 0 means a model outside the arms, which has no iterations."""
    try:
        train: Train = resolve()
    except ValidationError as error:
        yield from (((*place, *below), message) for below, message in complaints_of(error, Train))
        return
    for key in train.missing_keys():
        yield (*place, key), f"missing key; loss {train.loss} needs it, and nothing is defaulted silently"
    gpus = study.resources.train.gpu
    if train.global_batch < gpus:
        yield (*place, "global_batch"), f"{train.global_batch} pairs are too few for resources.train.gpu {gpus}"
    if train.alpha and train.parallel == "fsdp":
        message = f"alpha {train.alpha} keeps a whole reference model on each GPU, which fsdp is to avoid; use ddp"
        yield (*place, "parallel"), message
    for key, value in train:
        if not isinstance(value, list):
            continue
        if not iterations:
            remedy = f"give train.{train.loss}.{key} one value"
            yield place, f"{key} is a list per iteration, and this model has no iterations: {remedy}"
        elif len(value) < iterations:
            yield (*place, key), f"{key} has {len(value)} values for {iterations} iterations"


def _arms(study: Study) -> Iterator[Complaint]:
    for key, value in study.train:
        if isinstance(value, list) and len(value) != study.iterations:
            yield ("train", key), f"{len(value)} values for {study.iterations} iterations"
    for name, arm in study.arms.items():
        place, iterations = ("arms", name), arm.iterations or study.iterations
        yield from _training(study, (*place, "train"), lambda name=name: study.arm_train(name), iterations)
        for key, value in arm.train.items():
            if isinstance(value, list) and len(value) > iterations:
                yield (*place, "train", key), f"{key} has {len(value)} values for {iterations} iterations"
        loss = arm.train.get("loss", study.train.loss)
        for key in sorted(Train.optional_keys() & arm.train.keys() - loss_keys(ALIASES.get(loss, loss))):
            yield (*place, "train", key), f"loss {loss} does not use it; remove the key"
        if loss == "sft":
            yield (*place, "train", "loss"), "loss sft has no opponent; expected a preference loss"
        yield from _unknown_model(study, (*place, "start"), arm.start)
        if arm.fork:
            yield from _fork(study, name, arm.fork)
        yield from _triplets(study, name)


def _fork(study: Study, name: str, fork: Fork) -> Iterator[Complaint]:
    arm, place = study.arms[name], ("arms", name, "fork")
    yield from _unknown_arm(study, (*place, "from"), fork.from_)
    if parent := study.arms.get(fork.from_):
        if parent.fork:
            yield (*place, "from"), f"{fork.from_!r} is a fork itself; fork from {parent.fork.from_!r}"
        elif fork.at >= (parent.iterations or study.iterations):
            yield (*place, "at"), f"{fork.from_!r} has no iteration {fork.at}"
    if fork.at >= (arm.iterations or study.iterations):
        yield (*place, "at"), f"the arm ends before iteration {fork.at}"
    if arm.start:
        yield (*place[:2], "start"), "a fork starts from the iteration before `at`; remove start or fork"


def _triplets(study: Study, name: str) -> Iterator[Complaint]:
    """All pairs of a prompt are in one step, so a step holds a multiple of them."""
    try:
        train = study.arm_train(name)
    except ValidationError:
        return  # reported by `_training`
    arm = study.arms[name]
    largest = min(arm.data_window or study.data_window, arm.iterations or study.iterations)
    for pairs in range(1, largest + 1):
        if train.triplets and train.global_batch % pairs:
            message = f"found {train.global_batch}, expected a multiple of {pairs}"
            place = ("arms", name, "train", "global_batch")
            yield place, f"{message}: triplets keeps the {pairs} pairs of a prompt in one step"


def _weights(study: Study) -> Iterator[Complaint]:
    """Teachers are models of the registry, and arms with token weights have all settings of these weights."""
    yield from _unknown_model(study, ("teacher",), study.teacher)
    for name, arm in study.arms.items():
        yield from _unknown_model(study, ("arms", name, "teacher"), arm.teacher)
        yield from _weigh(study, name)


def _weigh(study: Study, name: str) -> Iterator[Complaint]:
    arm, place = study.arms[name], ("arms", name)
    loss = arm.train.get("loss", study.train.loss)
    if loss not in ("wspin", *ALIASES):
        for key in ("weigh", "teacher"):
            if getattr(arm, key):
                yield (*place, key), f"loss {loss} has no token weights; remove the key, or give the arm loss wspin"
        return
    try:
        weigh = study.arm_weigh(name)
    except ValidationError as error:
        yield from (((*place, "weigh", *below), message) for below, message in complaints_of(error, Weigh))
        return

    def at(key: str) -> Place:
        """Where the key stands: in the arm, or in the study for all arms."""
        return (*place, "weigh", key) if key in arm.weigh else ("weigh", key)

    chosen = f"source {weigh.source} with normalise {weigh.normalise}"
    for key in weigh.missing_keys():
        yield at(key), f"missing key; {chosen} needs it"
    for key in sorted(Weigh.optional_keys() & arm.weigh.keys() - weigh.required_keys):
        yield at(key), f"{chosen} does not use it; remove the key"
    if weigh.lower is not None and weigh.upper is not None and not weigh.lower <= weigh.upper:
        yield at("lower"), f"found {weigh.lower}, above upper {weigh.upper}"
    yield from _control(weigh, at)
    if weigh.source == "equal" and arm.teacher:
        yield (*place, "teacher"), "source equal uses no teacher; remove the key"
    if weigh.source == "teacher" and not (arm.teacher or study.teacher):
        yield ("teacher",), f"missing key; the token weights of arm {name!r} come from a teacher"


def _control(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    """Controls whose weights would be undefined, all equal, or independent of a teacher that has scored every text."""
    if weigh.control in ("one_minus", "random") and weigh.normalise != "none":
        yield at("normalise"), f"{weigh.control} gives weights of both signs: their mean may be zero; expected none"
    if weigh.source == "equal" and weigh.control not in ("none", "random", "noise"):
        yield at("control"), f"{weigh.control} keeps equal weights equal; expected none, random or noise"
    if weigh.source == "teacher" and weigh.control == "random":
        yield at("source"), "control random uses no teacher; expected equal"


def _given(study: Study) -> Iterator[Complaint]:
    """Ready-made files replace what some arm would generate or weigh otherwise."""
    shared = [arm for arm in study.arms.values() if arm.start in (None, study.start) and arm.seed in (None, study.seed)]
    if study.generate.given and not shared:
        yield ("generate", "given"), f"no arm starts from {study.start!r} with the study's seed; remove the key"
    if study.weigh.given and not study.generate.given:
        yield ("weigh", "given"), "weights belong to the tokens of their answers; give generate.given too"
    if study.weigh.given and not study.given_weights():
        message = f"no arm weighs as the study does, each sets one of {', '.join(sorted(OWN_WEIGHT_KEYS))}"
        yield ("weigh", "given"), f"{message}; remove the key"


def _evaluation(study: Study) -> Iterator[Complaint]:
    for name in study.eval.models:
        yield from _unknown_model(study, ("eval", "models"), name)
    yield from _heldout_tasks(study)
    yield from _unknown_arm(study, ("report", "baseline"), study.report.baseline)
    for suite in study.eval.suites:
        if suite not in study.eval.sources:
            yield ("eval", "sources"), f"suite {suite!r} has no source"
    for suite in study.eval.sources:
        if suite not in study.eval.suites:
            yield ("eval", "sources", suite), f"no suite {suite!r}; there are {', '.join(study.eval.suites)}"
    tasks = [task for suite in study.eval.suites.values() for task in suite]
    for task in tasks:
        if tasks.count(task) > 1:
            yield ("eval", "suites"), f"task {task!r} is in two suites"
        if task not in study.report.metrics:
            yield ("report", "metrics"), f"task {task!r} has no metric"
    for task in study.report.metrics:
        if task not in tasks:
            yield ("report", "metrics", task), f"no task {task!r} in eval.suites"


def _heldout_tasks(study: Study) -> Iterator[Complaint]:
    """Tasks on held-out rows tokenise as training does, in one template for all models."""
    if not any(source.heldout for source in study.eval.sources.values()):
        return
    if study.eval.engine == "vllm":
        yield ("eval", "engine"), "vllm cannot tokenise held-out rows as training does; use transformers"
    for name in study.eval.models:
        template = study.models[name].template if name in study.models else None
        if template and template != study.dialogue.template:
            reason = "tasks on held-out rows compare models in dialogue.template only"
            yield ("eval", "models"), f"{name!r} has template {template!r}; {reason}: leave the model out"
