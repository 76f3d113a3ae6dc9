"""Forms: how the log-ratios of an answer's tokens become weights.

The log-ratio r of a token given all before it, in nats, is how much more one scorer prefers it than the other does.
`exp_clamp` and `linear` (SWIFT) turn every log-ratio into a weight; a token with several has their mean. The six forms
of TIS-DPO's released code act on an answer's scores, one a token: r in chosen answers, -r in rejected ones.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wspin.config.weigh import Weigh

from .alignment import Alignment

# The constants of SWIFT's released code
RELEASED_CLIP = (7.0, 15.0)  # of a segment's mean surprisal, nat
RELEASED_SPAN = 15.0  # divides what lies above the lower bound, though the bounds are 8 apart
RELEASED_SLOPE, RELEASED_OFFSET = 2.0, -0.5

Floats = NDArray[np.float64]


class TokenWeights(NamedTuple):
    """Weights of an answer's N tokens before any control, and what they are made from, (N,) each.

    at_lower, at_upper: each token's share of log-ratios at a bound; scores: its log-ratio within the bounds, signed and
    scaled as the form takes it, nats.
    """

    weights: Floats
    at_lower: Floats
    at_upper: Floats
    scores: Floats


def exp_clamp(ratios: Floats, mu: float, settings: Weigh) -> Floats:
    """k exp(mu clamp(r, lower, upper)), for log-ratios of any shape.

    SWIFT, appendix B.2, after TIS-DPO (arXiv 2410.04350). The clamp acts before mu, so the bounds are those of r.
    """
    return settings.k * np.exp(mu * np.clip(ratios, settings.lower, settings.upper))


def linear(ratios: Floats, mu: float, settings: Weigh) -> Floats:
    """clamp(mu r, lower, upper): the range in which SWIFT's own ablations (random, 1 - w) make sense."""
    return np.clip(mu * ratios, settings.lower, settings.upper)


def binary(scores: Floats, settings: Weigh, _: np.random.Generator) -> Floats:
    """1 for the floor(N top_percent / 100) highest scores, the earlier first among equal ones; 0 for the others."""
    ones = int(Fraction(str(settings.top_percent)) * len(scores) / 100)
    weights = np.zeros(len(scores))
    weights[np.argsort(-scores, kind="stable")[:ones]] = 1.0
    return weights


def threshold(scores: Floats, settings: Weigh, _: np.random.Generator) -> Floats:
    """clamp(s, lower, upper), which may be negative."""
    return np.clip(scores, settings.lower, settings.upper)


def threshold_and_scale(scores: Floats, settings: Weigh, _: np.random.Generator) -> Floats:
    """clamp(s, lower, upper), then [lower, upper] mapped onto [scale_lower, scale_upper] by a straight line."""
    above = np.clip(scores, settings.lower, settings.upper) - settings.lower
    slope = (settings.scale_upper - settings.scale_lower) / (settings.upper - settings.lower)
    return settings.scale_lower + above * slope


def random(scores: Floats, settings: Weigh, generator: np.random.Generator) -> Floats:
    """Uniform in [scale_lower, scale_upper], whatever the scores."""
    return generator.uniform(settings.scale_lower, settings.scale_upper, len(scores))


def rank_based(scores: Floats, settings: Weigh, _: np.random.Generator) -> Floats:
    """From scale_lower for the lowest score to scale_upper for the highest, by rank; 1 for an only token.

    Among equal scores the later token ranks higher.
    """
    count = len(scores)
    if count < 2:
        return np.ones(count)
    weights = np.empty(count)
    weights[np.argsort(scores, kind="stable")] = np.linspace(settings.scale_lower, settings.scale_upper, count)
    return weights


def swift_as_released(surprisals: Floats, *_: object) -> Floats:
    """2 q - 0.5 with q = 1 - (clip(v, 7, 15) - 7) / 15, of a segment's mean surprisals v, nats: in [0.43, 1.5].

    SWIFT's released code (its default `type_`), which leaves the student out and treats both sides alike.
    """
    lower, upper = RELEASED_CLIP
    q = 1.0 - (np.clip(surprisals, lower, upper) - lower) / RELEASED_SPAN
    return RELEASED_SLOPE * q + RELEASED_OFFSET


Transform = Callable[[Floats, Weigh, np.random.Generator], Floats]
BY_RATIO = {"exp_clamp": exp_clamp, "linear": linear}
BY_ANSWER: dict[str, Transform] = {
    "origin": lambda scores, *_: scores,
    "binary": binary,
    "threshold": threshold,
    "threshold_and_scale": threshold_and_scale,
    "random": random,
    "rank_based": rank_based,
    "swift_as_released": swift_as_released,
}


def form_of(settings: Weigh) -> str:
    return "swift_as_released" if settings.source == "swift_as_released" else settings.form


def factor(side: str, settings: Weigh) -> float:
    """What multiplies a log-ratio of a side, `chosen` or `rejected`: mu, or the sign."""
    form = form_of(settings)
    if form in BY_RATIO:
        return settings.mu_chosen if side == "chosen" else settings.mu_rejected
    return 1.0 if side == "chosen" and form != "swift_as_released" else -1.0


def bounds(settings: Weigh) -> tuple[float, float]:
    """Lower and upper bound of a form's scores, nats; infinite where it has none."""
    form = form_of(settings)
    if form == "swift_as_released":
        return RELEASED_CLIP
    clamped = (*BY_RATIO, "threshold", "threshold_and_scale")
    return (settings.lower, settings.upper) if form in clamped else (-np.inf, np.inf)


def log_ratios(
    alignment: Alignment, own: Floats, foreign: Floats, segment_agg: str
) -> tuple[NDArray[np.int64], Floats]:
    """(token, r), (P,) each: the log-ratios of all student tokens in used segments, to be shaped and averaged.

    own (N,), foreign (M,): signed log-probabilities, nats, of scorers in the student's tokenizer and in another, as in
    `AlignedAnswer`. With S and T the own and the foreign tokens of a segment, b and a their values (SWIFT, Algorithm 2
    and eq. 22, where a are the teacher's and -b the student's):

    * paper_mean: a_t + b_i for every t in T, so that a weight is the mean of |T| shaped ratios;
    * log_mean: mean(a) + b_i, as in the method's first code;
    * sum_spread: (sum(a) + sum(b)) / |S|, the segment's true log-ratio, spread evenly.

    The three are equal where every token is a segment.
    """
    segments = len(alignment.ends)
    foreign_counts = np.bincount(alignment.teacher, minlength=segments)
    tokens = np.flatnonzero(alignment.used[alignment.student])
    segment = alignment.student[tokens]
    if segment_agg == "paper_mean":
        repeats = foreign_counts[segment]
        first = np.cumsum(foreign_counts) - foreign_counts  # index of each segment's first foreign token
        offset = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        tokens = np.repeat(tokens, repeats)
        return tokens, foreign[np.repeat(first[segment], repeats) + offset] + own[tokens]
    foreign_sum = np.bincount(alignment.teacher, weights=foreign, minlength=segments)[segment]
    if segment_agg == "log_mean":
        return tokens, foreign_sum / foreign_counts[segment] + own[tokens]
    own_sum = np.bincount(alignment.student, weights=own, minlength=segments)[segment]
    return tokens, (foreign_sum + own_sum) / np.bincount(alignment.student, minlength=segments)[segment]


def scored_weights(
    alignment: Alignment, own: Floats, foreign: Floats, side: str, settings: Weigh, generator: np.random.Generator
) -> TokenWeights:
    """Weights of the N tokens of an answer of a side from signed log-probabilities, own (N,), foreign (M,).

    A token without a log-ratio has r = 0, hence k or what the form makes of a score of 0. `generator` belongs to the
    answer.
    """
    form, mu, (lower, upper) = form_of(settings), factor(side, settings), bounds(settings)
    tokens, ratios = log_ratios(alignment, own, foreign, settings.segment_agg or "log_mean")
    count = len(own)
    share = 1.0 / np.bincount(tokens, minlength=count).clip(min=1)[tokens]

    def mean(values: Floats) -> Floats:
        return np.bincount(tokens, weights=values * share, minlength=count)

    if shape := BY_RATIO.get(form):
        scores = ratios if form == "exp_clamp" else mu * ratios  # the bounds act before mu, or after it
        neutral = settings.k if form == "exp_clamp" else linear(0.0, mu, settings)
        weights = np.full(count, neutral)
        weights[tokens] = mean(shape(ratios, mu, settings))[tokens]
        within = mean(np.clip(scores, lower, upper)) * (mu if form == "exp_clamp" else 1.0)
        return TokenWeights(weights, mean(scores <= lower), mean(scores >= upper), within)
    scores = mean(mu * ratios)
    weights, at = BY_ANSWER[form](scores, settings, generator), scores[tokens]
    return TokenWeights(weights, mean(at <= lower), mean(at >= upper), np.clip(scores, lower, upper))
