"""Checks of settings of token weights: keys that are missing or not used, and values that make no sense."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from .explain import Complaint
from .reader import Place
from .weigh import OFF, Weigh, preset_mistake

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
    yield from _varied(weigh, at)
    yield from _float32(weigh, at)
    yield from _control(weigh, at)


def _chosen(weigh: Weigh) -> str:
    form = f", form {weigh.form}" if weigh.form not in (None, "exp_clamp") and "form" in weigh.required_keys else ""
    return f"source {weigh.source}{form} with normalise {weigh.normalise}"


def _varied(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    """Bounds in the wrong order, and settings by which all weights are equal."""
    remedy = "that makes all weights equal, as source equal does without a teacher"
    for lower, upper in (("lower", "upper"), ("scale_lower", "scale_upper")):
        least, most = getattr(weigh, lower), getattr(weigh, upper)
        if None in (least, most):
            continue
        if least > most:
            yield at(lower), f"expected at most {upper} {most}, found {least}"
        elif least == most:
            yield at(lower), f"expected less than {upper} {most}, found {least}: {remedy}"
    if weigh.top_percent == 100.0:
        yield at("top_percent"), f"expected less than 100, found 100.0: {remedy}"
    if weigh.source == "pair" and weigh.positive == weigh.negative is not None and not weigh.uniform:
        yield at("positive"), f"expected another scorer than negative, found {weigh.positive!a} for both: {remedy}"
    if weigh.mu_chosen == weigh.mu_rejected == 0.0:
        yield at("mu_chosen"), f"expected mu_chosen or mu_rejected other than 0, found both 0: {remedy}"


def _float32(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    for key in ("mu_chosen", "mu_rejected") if weigh.form == "exp_clamp" else ():
        bounds = (weigh.lower, weigh.upper)
        if None in bounds:
            continue
        mu = getattr(weigh, key) or 0.0
        exponent = math.log(weigh.k or 1.0) + max(mu * bound for bound in bounds)
        if exponent > math.log(LARGEST_WEIGHT):
            bounds = f"k {weigh.k}, lower {weigh.lower}, upper {weigh.upper} and {key} {mu}"
            yield at(key), f"expected weights that float32 holds, found up to exp({exponent:.3g}) by {bounds}"


def _control(weigh: Weigh, at: Callable[[str], Place]) -> Iterator[Complaint]:
    """Controls whose weights would be undefined, all equal, or independent of a teacher that has scored every text."""
    least = _least(weigh)
    signed = weigh.control if weigh.control in SIGNED_CONTROLS else f"form {weigh.form}" if least < 0.0 else ""
    if signed and weigh.normalise != "none":
        yield at("normalise"), f"{signed} gives weights of both signs: their mean may be zero; expected none"
    elif least == 0.0 and weigh.normalise != "none" and not weigh.normalise_over:
        zero = f"form {weigh.form} may give an answer weights of zero alone, which have no mean"
        yield at("normalise"), f"{zero}; expected none, or mean_one with normalise_over"
    if weigh.control == "inverse" and least <= 0.0:
        yield at("control"), f"inverse takes positive weights, form {weigh.form} may give others; expected none"
    if weigh.control == "random_matched" and least < 0.0:
        yield at("control"), f"random_matched takes a positive mean, form {weigh.form} may have another; expected none"
    if weigh.source == "equal" and weigh.form is None and weigh.control not in ("none", "random", "noise"):
        yield at("control"), f"{weigh.control} keeps equal weights equal; expected none, random or noise"
    for key in ("control", "form"):
        if weigh.source != "equal" and getattr(weigh, key) == "random":
            yield at("source"), f"{key} random uses no teacher; expected equal"


def _least(weigh: Weigh) -> float:
    """The least weight that a form may give, before any control."""
    if weigh.form in ("linear", "threshold"):
        return -math.inf if weigh.lower is None else weigh.lower
    if weigh.form in ("threshold_and_scale", "random", "rank_based"):
        return -math.inf if weigh.scale_lower is None else weigh.scale_lower
    return {"origin": -math.inf, "binary": 0.0}.get(weigh.form, 1.0)
