"""Checks of the trainings and token weights that arms and registry models are given."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from wspin.iteration import Iteration

from .base import Section
from .explain import Complaint, complaints_of, nearest
from .losses import LOSSES, divergence_read, loss_keys, usable_keys
from .reader import Place
from .scorers import NO_MODEL, NONE, TEACHER_SOURCES, Scorer
from .stages import Train
from .study import Fork, Study
from .weigh import Weigh
from .weigh_checks import check_settings


def unknown_model(study: Study, place: Place, name: str | None) -> Iterator[Complaint]:
    if name is not None and name not in study.models:
        known = ", ".join(study.models)
        yield place, f"no model {name!a} in the registry; it holds {known}{nearest(name, study.models)}"


def unknown_trained(study: Study, place: Place, name: str | None) -> Iterator[Complaint]:
    """`name` may also be an iteration's."""
    iteration = Iteration.parse(name) if name else None
    if iteration is None:
        yield from unknown_model(study, place, name)
    elif iteration.arm not in study.arms:
        yield from unknown_arm(study, place, iteration.arm)
    else:
        arm = study.arms[iteration.arm]
        first, stop = arm.fork.at if arm.fork else 0, arm.iterations or study.iterations
        if not first <= iteration.k < stop:
            yield place, f"no iteration {name!a}; arm {iteration.arm!r} has ite{first} to ite{stop - 1}"


def unknown_arm(study: Study, place: Place, name: str) -> Iterator[Complaint]:
    if name not in study.arms:
        yield place, f"no arm {name!a}; there are {', '.join(study.arms)}{nearest(name, study.arms)}"


def repeated(place: Place, names: list[str]) -> Iterator[Complaint]:
    for name in names:
        if names.count(name) > 1:
            yield place, f"{name!a} is given {names.count(name)} times; name it once"


def check_overrides(place: Place, settings: dict[str, Any], resolve: Callable[[], Section]) -> Iterator[Complaint]:
    """Wrong values of some settings in the section that they override; `resolve` merges the two."""
    try:
        resolve()
    except ValidationError as error:
        for below, message in complaints_of(error, Train):
            if below[0] in settings:
                yield (*place, *below), message


def check_training(
    study: Study, place: Place, settings: dict[str, Any], resolve: Callable[[], Train], iterations: int
) -> Iterator[Complaint]:
    """Validate a training with its own settings; `iterations` = 0: a model outside the arms, without iterations."""
    yield from check_overrides(place, settings, resolve)
    try:
        train: Train = resolve()
    except ValidationError:
        return
    for key in train.missing_keys():
        losses = ", ".join(loss for loss in LOSSES if key in loss_keys(loss))
        yield ("train", key), f"missing key; needed by loss {losses}, and nothing is defaulted silently"
    gpus = study.resources.train.gpu
    if train.global_batch < gpus:
        key = (*place, "global_batch") if "global_batch" in settings else ("train", "global_batch")
        yield key, f"expected one pair or more for each GPU (resources.train.gpu {gpus}), found {train.global_batch}"
    yield from _reference(train, place, settings)
    for key in sorted(Train.optional_keys() & settings.keys() - usable_keys(train.loss)):
        yield (*place, key), f"loss {train.loss} does not use it; remove the key"
    for key, value in train:
        if not isinstance(value, list):
            continue
        if not iterations:
            remedy = f"give train.{'sft' if train.loss == 'sft' else 'dpo'}.{key} one value"
            yield place, f"{key} is a list per iteration, and this model has no iterations: {remedy}"
        elif len(value) < iterations and (key in settings or len(value) == study.iterations):
            own = "" if key in settings else f" in train.{key}; give {'.'.join(place)} its own"
            yield (*place, key), _values(iterations, value) + own


def _reference(train: Train, place: Place, settings: dict[str, Any]) -> Iterator[Complaint]:
    """The KL term: what it excludes, and that there is one where the loss is named after it."""

    def at(key: str) -> Place:
        return (*place, key) if key in settings else ("train", key)

    kept = divergence_read(train.loss, train.alpha)
    if kept and train.parallel == "fsdp":
        cause = f"alpha {train.alpha}" if train.alpha else f"loss {train.loss}"
        message = f"{cause} keeps a whole reference model on each GPU, which fsdp is to avoid; use ddp"
        yield (*place, "parallel"), message
    if kept and train.reference_free:
        yield at("reference_free"), f"alpha {train.alpha} adds a KL term to the reference; remove one of the two keys"
    if train.loss == "tdpo2" and train.alpha == 0.0:
        yield at("alpha"), "loss tdpo2 without its KL term is dpo: expected above 0 (0.5 in the published code)"


def check_arms(study: Study) -> Iterator[Complaint]:
    for key, value in study.train:
        if isinstance(value, list) and len(value) != study.iterations:
            yield ("train", key), _values(study.iterations, value)
    for name, arm in study.arms.items():
        place, iterations = ("arms", name), arm.iterations or study.iterations
        yield from check_training(
            study, (*place, "train"), arm.train, lambda name=name: study.arm_train(name), iterations
        )
        for key, value in arm.train.items():
            if isinstance(value, list) and len(value) > iterations:
                yield (*place, "train", key), _values(iterations, value)
        loss = loss_of(study, name)
        if loss == "sft":
            yield (*place, "train", "loss"), "loss sft has no opponent; expected a preference loss"
        yield from unknown_model(study, (*place, "start"), arm.start)
        if arm.fork:
            yield from _fork(study, name, arm.fork)
        yield from _triplets(study, name)


def _values(iterations: int, values: list[Any]) -> str:
    return f"expected one value or a list of {iterations}, one for each iteration, found a list of {len(values)}"


def loss_of(study: Study, arm: str) -> str | None:
    """The loss of an arm; None if its settings are invalid, which `_training` reports."""
    try:
        return study.arm_train(arm).loss
    except ValidationError:
        return None


def _fork(study: Study, name: str, fork: Fork) -> Iterator[Complaint]:
    arm, place = study.arms[name], ("arms", name, "fork")
    yield from unknown_arm(study, (*place, "from"), fork.from_)
    if parent := study.arms.get(fork.from_):
        if fork.from_ == name:
            yield (*place, "from"), f"expected another arm, found {name!r} itself"
        elif parent.fork:
            yield (*place, "from"), f"{fork.from_!r} is a fork itself; fork from {parent.fork.from_!r}"
        elif fork.at >= (parent.iterations or study.iterations):
            last = (parent.iterations or study.iterations) - 1
            yield (*place, "at"), f"{fork.from_!r} has no iteration {fork.at}; its last is {last}"
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


def check_weights(study: Study) -> Iterator[Complaint]:
    """Teachers are models of the registry, and arms with token weights have all settings of these weights."""
    yield from unknown_model(study, ("teacher",), study.teacher)
    for name, arm in study.arms.items():
        yield from unknown_model(study, ("arms", name, "teacher"), arm.teacher)
        yield from _weigh(study, name)


def _weigh(study: Study, name: str) -> Iterator[Complaint]:
    arm, place = study.arms[name], ("arms", name)
    loss = loss_of(study, name)
    if loss != "wspin":
        for key in ("weigh", "teacher") if loss else ():
            if getattr(arm, key):
                yield (*place, key), f"loss {loss} has no token weights; remove the key, or give the arm loss wspin"
        return
    yield from check_token_weights(study, place, arm.weigh, lambda: study.arm_weigh(name), arm.teacher)


def check_token_weights(
    study: Study, place: Place, overrides: dict[str, Any], resolve: Callable[[], Weigh], teacher: str | None = None
) -> Iterator[Complaint]:
    """Validate how the tokens of an arm or a model are weighed; `overrides` and `teacher` are its own."""
    try:
        weigh = resolve()
    except ValidationError as error:
        yield from (((*place, "weigh", *below), message) for below, message in complaints_of(error, Weigh))
        return

    def at(key: str) -> Place:
        """Where the key stands: in the arm or model, or in the study for all of them."""
        return (*place, "weigh", key) if key in overrides else ("weigh", key)

    yield from check_settings(weigh, overrides, at)
    for key in ("positive", "negative"):
        yield from _unknown_scorer(study, at(key), getattr(weigh, key))
    if weigh.positive == weigh.negative == NONE:
        yield at("positive"), "none and none have no log-probabilities; expected a scorer, or source equal"
    if weigh.retrain and place[0] == "models":
        yield at("retrain"), "only arms have iterations to train a pair in; give positive and negative instead"
    elif weigh.retrain:
        yield from check_training(study, ("train", "dpo"), {}, lambda: study.loss_train("dpo"), 0)
    if weigh.source not in TEACHER_SOURCES and teacher:
        yield (*place, "teacher"), f"source {weigh.source} uses no teacher; remove the key"
    if weigh.source in TEACHER_SOURCES and not (teacher or study.teacher):
        yield ("teacher",), f"missing key; the token weights of {place[0][:-1]} {place[1]!r} come from a teacher"


def _unknown_scorer(study: Study, place: Place, name: str | None) -> Iterator[Complaint]:
    """A scorer is a model of the registry, one of its views, an iteration, or one of the words in their place."""
    if name is None or name in NO_MODEL:
        return
    model, view = Scorer.parse(name)
    yield from unknown_trained(study, place, model)
    views = study.models[model].views if model in study.models else {}
    if view is not None and view not in views:
        known = f"its views are {', '.join(views)}" if views else f"give it one, `models.{model}.views`"
        yield place, f"no view {view!a} of {model!a}; {known}"
