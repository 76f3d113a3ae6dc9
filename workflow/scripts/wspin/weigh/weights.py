"""Turns log-probabilities into token weights: how much a teacher prefers each token over the student.

The log-ratio r = log teacher - log student of a token given all before it, in nats, becomes w = k exp(mu clamp(r)). The
order of operations is fixed: log-ratios, shape with the side's mu, control, normalisation, weight of EOS. Weights are
constants of the training: they multiply the policy's and the reference's log-probabilities alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wspin.config.stages import Weigh
from wspin.errors import StudyError
from wspin.rng import row_generator
from wspin.storage.tables import WEIGHT_COUNTS

from .alignment import Alignment
from .inputs import AlignedAnswer

RANDOM = (-0.5, 1.5)  # SWIFT's table 3: random weights
NOISE = 0.2  # SWIFT's table 9: largest distance from the true weight

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weighed:
    """Weights of an answer's N tokens before any control, and for each the share of its log-ratios at a bound."""

    weights: Floats
    at_lower: Floats
    at_upper: Floats


def shape(ratios: Floats, mu: float, settings: Weigh) -> Floats:
    """k exp(mu clamp(r, lower, upper)), for log-ratios of any shape.

    SWIFT, appendix B.2, after TIS-DPO (arXiv 2410.04350). The clamp acts before mu, so the bounds are those of r.
    """
    return settings.k * np.exp(mu * np.clip(ratios, settings.lower, settings.upper))


def log_ratios(
    alignment: Alignment, student: Floats, teacher: Floats, segment_agg: str
) -> tuple[NDArray[np.int64], Floats]:
    """(token, r), (P,) each: the log-ratios of every student token in a used segment, to be shaped and averaged.

    student (N,), teacher (M,): log-probabilities, nats. With T and S the teacher's and the student's tokens of a
    segment, a and b their log-probabilities (SWIFT, Algorithm 2 and eq. 22):

    * paper_mean: a_t - b_i for every t in T, so that a weight is the mean of |T| shaped ratios;
    * log_mean: mean(a) - b_i, as the method's first code;
    * sum_spread: (sum(a) - sum(b)) / |S|, the segment's true log-ratio, spread evenly.

    Where every token is a segment the three are one.
    """
    segments = len(alignment.ends)
    of_teacher, of_student = (np.bincount(side, minlength=segments) for side in (alignment.teacher, alignment.student))
    tokens = np.flatnonzero(alignment.used[alignment.student])
    segment = alignment.student[tokens]
    if segment_agg == "paper_mean":
        many = of_teacher[segment]
        first = np.cumsum(of_teacher) - of_teacher  # where a segment's teacher tokens begin
        place = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        tokens = np.repeat(tokens, many)
        return tokens, teacher[np.repeat(first[segment], many) + place] - student[tokens]
    told = np.bincount(alignment.teacher, weights=teacher, minlength=segments)[segment]
    if segment_agg == "log_mean":
        return tokens, told / of_teacher[segment] - student[tokens]
    own = np.bincount(alignment.student, weights=student, minlength=segments)[segment]
    return tokens, (told - own) / of_student[segment]


def teacher_weights(alignment: Alignment, student: Floats, teacher: Floats, mu: float, settings: Weigh) -> Weighed:
    """Weights (N,) from log-probabilities; a token without a log-ratio has r = 0, hence weight k."""
    tokens, ratios = log_ratios(alignment, student, teacher, settings.segment_agg)
    count = len(student)
    share = 1.0 / np.bincount(tokens, minlength=count).clip(min=1)[tokens]

    def mean(values: Floats) -> Floats:
        return np.bincount(tokens, weights=values * share, minlength=count)

    weights = np.full(count, settings.k)
    weights[tokens] = mean(shape(ratios, mu, settings))[tokens]
    return Weighed(weights, mean(ratios <= settings.lower), mean(ratios >= settings.upper))


def equal_weights(count: int) -> Weighed:
    """Weight 1 for every token: the weighted loss is then the plain one, bit for bit."""
    return Weighed(np.ones(count), np.zeros(count), np.zeros(count))


def apply_control(weights: Floats, control: str, draw: np.random.Generator) -> Floats:
    """Weights (N,) that show by contrast what the true ones do; `draw` belongs to the answer.

    one_minus, inverse: SWIFT's reversal 1 - w, and 1 / w, which keeps the sign; permuted: the answer's weights in
    random places; random: uniform in `RANDOM`; random_matched: gamma-distributed with the answer's own mean and
    deviation; noise: within `NOISE` of the true weight.
    """
    count = len(weights)
    if control == "one_minus":
        return 1.0 - weights
    if control == "inverse":
        return 1.0 / weights
    if control == "permuted":
        return draw.permutation(weights)
    if control == "random":
        return draw.uniform(*RANDOM, count)
    if control == "random_matched":
        return _gamma(weights, draw)
    return weights + draw.uniform(-NOISE, NOISE, count) if control == "noise" else weights


def _gamma(weights: Floats, draw: np.random.Generator) -> Floats:
    mean, variance = (weights.mean(), weights.var()) if len(weights) else (0.0, 0.0)
    if variance <= 1e-12 * mean**2:
        return weights.copy()
    return draw.gamma(mean**2 / variance, variance / mean, len(weights))


def finalize(weights: Floats, closed: bool, settings: Weigh) -> NDArray[np.float32]:
    """Final weights of an answer: normalised over its N tokens, then EOS if it has one: (N,) or (N + 1,).

    Raises `StudyError` if there is a sum to divide by and it is not positive, or if a weight is not finite.
    """
    count, factor, unit = len(weights), 1.0, 1.0
    if settings.normalise != "none" and count:
        total = float(weights.sum())
        if not total > 0.0:
            raise StudyError(f"expected weights with a positive sum, found {total:.3g}; normalise none takes any")
        factor = (count if settings.normalise == "mean_one" else settings.normalise_to) / total
    if settings.normalise == "sum_to":
        unit = settings.normalise_to / max(count, 1)  # EOS keeps its place beside the mean of the others
    made = np.append(weights * factor, [settings.eos_weight * unit] * closed).astype(np.float32)
    if not np.isfinite(made).all():
        raise StudyError(f"expected finite weights, found {made[~np.isfinite(made)][0]}; narrow weigh.lower and upper")
    return made


def weight_side(
    side: str, answers: Iterable[AlignedAnswer], settings: Weigh, seed: Sequence[int]
) -> tuple[list[NDArray[np.float32]], dict[str, float]]:
    """(final weights of each answer, counts) of one side, `chosen` or `rejected`.

    Counts, EOS left out: tokens; at_lower, at_upper (tokens whose log-ratios are at a bound, shares added up); unread,
    unclear (tokens made neutral); segments with a log-ratio; mismatched (those with unequal numbers of tokens). Raises
    `StudyError` with the prompt's id.
    """
    mu = settings.mu_chosen if side == "chosen" else settings.mu_rejected
    made, counts = [], Counter(dict.fromkeys(WEIGHT_COUNTS, 0))
    for answer in answers:
        draw = row_generator(*seed, "weigh", side, answer.prompt_id)
        if settings.source == "equal":
            weighed = equal_weights(len(answer.student))
        else:
            weighed = teacher_weights(answer.alignment, answer.student, answer.teacher, mu, settings)
        counts.update(_counted(weighed, answer.alignment))
        try:
            made.append(finalize(apply_control(weighed.weights, settings.control, draw), answer.closed, settings))
        except StudyError as error:
            raise StudyError(f"{answer.prompt_id}, {side}: {error}") from None
    return made, dict(counts)


def _counted(weighed: Weighed, alignment: Alignment | None) -> dict[str, float]:
    told = {"tokens": len(weighed.weights)}
    if alignment is None:
        return told
    ours, theirs = (np.bincount(side, minlength=len(alignment.ends)) for side in (alignment.student, alignment.teacher))
    used = alignment.used & (ours > 0)
    told |= {"at_lower": float(weighed.at_lower.sum()), "at_upper": float(weighed.at_upper.sum())}
    told |= {"unread": int(ours[~alignment.read].sum()), "unclear": int(ours[alignment.read & ~alignment.clear].sum())}
    return told | {"segments": int(used.sum()), "mismatched": int((used & (ours != theirs)).sum())}
