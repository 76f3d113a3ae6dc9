"""Checks of settings of token weights: keys that are missing or not used, and values that make no sense."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from .explain import Complaint
from .reader import Place
from .weigh import OFF, SCORE_SOURCES, Weigh, preset_mistake

LARGEST_WEIGHT = 3.4e38  # float32
SIGNED_CONTROLS = ("one_minus", "random")  # whose weights have both signs


def check_settings(weigh: Weigh, given: dict[str, Any], at: Callable[[str], Place]) -> Iterator[Complaint]:
    """Check how tokens are weighed; `given`: the overrides of one arm or model; `at`: the place of a key."""
    chosen = _chosen(weigh)
    for key in weigh.missing_keys():
        yield at(key), f"missing key; {chosen} needs it"
    off = {key for key, value in given.items() if OFF.get(key, ...) == value}
    for key in sorted(Weigh.optional_keys() & given.keys() - weigh.required_keys - off - {"preset"}):
        yield at(key), f"{chosen} does not use it; remove the key"
    if mistake := preset_mistake(given, weigh.form):
        yield at("preset"), mistake
    yield from _not_yet(weigh, at)
    if weigh.lower is not None and weigh.upper is not None:
        yield from _clamp(weigh, at)
    yield from _control(weigh, at)


def _chosen(weigh: Weigh) -> str:
    form = f", form {weigh.form}" if weigh.form not in (None, "exp_clamp") and "form" in weigh.required_keys else ""
    return f"source {weigh.source}{form} with normalise {weigh.normalise}"


def _not_yet(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    if weigh.source == "swift_as_released":
        yield at("source"), f"{weigh.source} is not supported yet; expected teacher, pair or equal"
    if weigh.form not in (None, "exp_clamp"):
        yield at("form"), f"{weigh.form} is not supported yet; expected exp_clamp"
    for key in ("segments", "normalise_over"):
        if key in weigh.required_keys:
            yield at(key), "not supported yet; remove the key"


def _clamp(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    if not weigh.lower <= weigh.upper:
        yield at("lower"), f"expected at most upper {weigh.upper}, found {weigh.lower}"
    for key in ("mu_chosen", "mu_rejected"):
        mu = getattr(weigh, key) or 0.0
        exponent = math.log(weigh.k or 1.0) + max(mu * weigh.lower, mu * weigh.upper)
        if exponent > math.log(LARGEST_WEIGHT):
            bounds = f"k {weigh.k}, lower {weigh.lower}, upper {weigh.upper} and {key} {mu}"
            yield at(key), f"expected weights that float32 holds, found up to exp({exponent:.3g}) by {bounds}"


def _control(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    """Controls whose weights would be undefined, all equal, or independent of a teacher that has scored every text."""
    if weigh.control in SIGNED_CONTROLS and weigh.normalise != "none":
        yield at("normalise"), f"{weigh.control} gives weights of both signs: their mean may be zero; expected none"
    if weigh.source == "equal" and weigh.control not in ("none", "random", "noise"):
        yield at("control"), f"{weigh.control} keeps equal weights equal; expected none, random or noise"
    if weigh.source in SCORE_SOURCES and weigh.control == "random":
        yield at("source"), "control random uses no teacher; expected equal"
