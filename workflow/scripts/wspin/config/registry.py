"""Checks of the registry: what its models are trained from and on, their templates, views and precision."""

from collections.abc import Iterator
from functools import partial
from graphlib import CycleError, TopologicalSorter

from pydantic import ValidationError

from wspin.iteration import Iteration
from wspin.templates import CHAT, TEMPLATES, known_templates

from .arms import check_overrides, check_token_weights, check_training, loss_of, unknown_model, unknown_trained
from .explain import Complaint
from .reader import Place
from .scorers import NO_MODEL, SHIFTED, TEACHER_SOURCES, Scorer
from .study import Study


def check_registry(study: Study) -> Iterator[Complaint]:
    yield from unknown_model(study, ("start",), study.start)
    for name, model in study.models.items():
        place = ("models", name)
        if model.trained:
            yield from _trained(study, name)
        if model.scratch and model.scratch.text != "sft":
            yield (*place, "scratch", "text"), f"found {model.scratch.text!r}, expected the data set 'sft'"
        if model.scratch and model.scratch.context < study.dialogue.max_tokens:
            yield (*place, "scratch", "context"), f"shorter than dialogue.max_tokens {study.dialogue.max_tokens}"
    for loss in ("sft", "dpo"):
        yield from check_overrides(("train", loss), getattr(study.train, loss), partial(study.loss_train, loss))
        if "loss" in getattr(study.train, loss):
            message = f"this section holds the settings of loss {loss}; a model's loss is given beside `from`"
            yield ("train", loss, "loss"), message
    yield from _answers(study)
    yield from _cycle(study)


def _trained(study: Study, name: str) -> Iterator[Complaint]:
    model, place = study.models[name], ("models", name)
    yield from unknown_trained(study, (*place, "from"), model.from_)
    yield from unknown_trained(study, (*place, "of"), model.of)
    yield from check_training(study, (*place, "train"), model.train, lambda: study.model_train(name), 0)
    if model.train.get("loss", model.loss) != model.loss:
        yield (*place, "train", "loss"), f"the model's loss is {model.loss!r}, given beside `from`"
    if model.loss == "wspin":
        yield from check_token_weights(study, place, model.weigh, lambda: study.model_weigh(name))


def _answers(study: Study) -> Iterator[Complaint]:
    """How models answer whose answers others are trained on."""
    asked = {model.of for model in study.models.values() if model.of}
    if asked and study.generate.answers is None:
        answering = f"the answers of {', '.join(map(repr, sorted(asked)))} are trained on (data answers)"
        yield ("generate", "answers"), f"missing key; {answering}: greedy or sampled"
    for name, model in study.models.items():
        if model.eos and name not in asked:
            yield ("models", name, "eos"), "no model is trained on this one's answers (`of`); remove the key"


def dependencies(study: Study) -> dict[str, set[str]]:
    """Model or arm -> the models and arms without which it cannot be trained."""
    needed: dict[str, set[str | None]] = {}
    for name, model in study.models.items():
        needed[name] = {model.from_, model.of}
        if model.loss == "wspin":
            needed[name] |= _scorers(study, name, study.teacher)
    for name, arm in study.arms.items():
        needed[name] = {arm.start or study.start, *({arm.fork.from_} - {name} if arm.fork else ())}
        if loss_of(study, name) == "wspin":
            needed[name] |= _scorers(study, name, arm.teacher or study.teacher)
    return {name: {_owner(other) for other in others if other} for name, others in needed.items()}


def _scorers(study: Study, name: str, teacher: str | None) -> set[str | None]:
    """Models whose log-probabilities weigh the tokens of an arm or model."""
    try:
        weigh = study.arm_weigh(name) if name in study.arms else study.model_weigh(name)
    except ValidationError:
        return set()  # reported where the settings stand
    if weigh.source in TEACHER_SOURCES:
        return {teacher}
    scorers = {weigh.positive, weigh.negative} - {None, *NO_MODEL} if weigh.source == "pair" else set()
    return {Scorer.parse(scorer).model for scorer in scorers}


def _owner(model: str) -> str:
    """The arm of an iteration, or the model itself."""
    iteration = Iteration.parse(model)
    return iteration.arm if iteration else model


def _cycle(study: Study) -> Iterator[Complaint]:
    if study.models.keys() & study.arms.keys():
        return  # reported with the names
    try:
        TopologicalSorter(dependencies(study)).prepare()
    except CycleError as error:
        circle = error.args[1]
        section = "models" if circle[0] in study.models else "arms"
        chain = " needs ".join(map(repr, reversed(circle)))
        yield (section, circle[0]), f"expected a model that does not need itself, found {chain}; break the circle"


def check_templates(study: Study) -> Iterator[Complaint]:
    """Models that are trained here, and those they are trained from, see prompts in the study's template."""
    templates: dict[Place, str | None] = {("dialogue", "template"): study.dialogue.template}
    for name, model in study.models.items():
        templates |= {("models", name, "template"): model.template}
        templates |= {("models", name, "views", view): template for view, template in model.views.items()}
        if SHIFTED in model.views:
            yield ("models", name, "views", SHIFTED), f"{SHIFTED!r} has a meaning of its own; choose another name"
    for place, template in templates.items():
        if template and template not in (*TEMPLATES, CHAT) and template.count("{prompt}") != 1:
            yield place, f"found {template!r}; expected {known_templates()}"
    for name in _taking_part(study):
        if study.models[name].template:
            yield ("models", name, "template"), "the model takes part in training, which uses `dialogue.template`"


def check_dtypes(study: Study) -> Iterator[Complaint]:
    """Models that are trained here, and those they are trained from, are loaded in float32."""
    for name in _taking_part(study):
        if study.models[name].dtype == "bfloat16":
            message = "expected float32, as the model takes part in training: updates would be lost in bfloat16"
            yield ("models", name, "dtype"), f"{message}; remove the key"


def _taking_part(study: Study) -> list[str]:
    """Models of the registry that are trained, or from which a training starts."""
    starts = {study.start, *(arm.start for arm in study.arms.values())}
    parents = {model.from_ for model in study.models.values()}
    return [name for name, model in study.models.items() if model.trained or name in starts | parents]
