"""Forms: how the log-ratios of an answer's tokens become weights.

The log-ratio r of a token given all before it, in nats, is how much more one scorer prefers it than the other does.
`exp_clamp` and `linear` (SWIFT) turn every log-ratio into a weight; a token with several has their mean. The six forms
of TIS-DPO's released code act on an answer's scores, one a token: r in chosen answers, -r in rejected ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wspin.config.weigh import Weigh

from .alignment import Alignment
from .long_segments import LongSegment, clamped_means, is_long, long_segments

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
    """(token, r), (P,) each: the log-ratios of the student tokens in used segments, to be shaped and averaged.

    own (N,), foreign (M,): signed log-probabilities, nats, of scorers in the student's tokenizer and in another, as in
    `AlignedAnswer`. With S and T the own and the foreign tokens of a segment, b and a their values (SWIFT, Algorithm 2
    and eq. 22, where a are the teacher's and -b the student's):

    * paper_mean: a_t + b_i for every t in T, so that a weight is the mean of |T| shaped ratios; without the tokens of
      `long_segments`, whose means need no list;
    * log_mean: mean(a) + b_i, as in the method's first code;
    * sum_spread: (sum(a) + sum(b)) / |S|, the segment's true log-ratio, spread evenly.

    The three are equal where every token is a segment.
    """
    segments = len(alignment.ends)
    foreign_counts = np.bincount(alignment.teacher, minlength=segments)
    tokens = np.flatnonzero(alignment.used[alignment.student])
    segment = alignment.student[tokens]
    if segment_agg == "paper_mean":
        tokens = tokens[~is_long(alignment)[segment]]
        segment = alignment.student[tokens]
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


@dataclass(frozen=True)
class ListedRatios:
    """The log-ratios (P,) of an answer's N tokens that are listed, as from `log_ratios`."""

    tokens: NDArray[np.int64]
    ratios: Floats
    count: int

    def mean(self, values: Floats) -> Floats:
        """The mean (N,) of a token's values, one for each of its log-ratios (P,); 0 if it has none."""
        means = np.bincount(self.tokens, weights=values * self._share, minlength=self.count)
        return means.astype(np.float64, copy=False)  # of no values at all numpy makes integers

    @cached_property
    def _share(self) -> Floats:
        return 1.0 / np.bincount(self.tokens, minlength=self.count).clip(min=1)[self.tokens]


def scored_weights(
    alignment: Alignment, own: Floats, foreign: Floats, side: str, settings: Weigh, generator: np.random.Generator
) -> TokenWeights:
    """Weights of the N tokens of an answer of a side from signed log-probabilities, own (N,), foreign (M,).

    A token without a log-ratio has r = 0, hence k or what the form makes of a score of 0. `generator` belongs to the
    answer.
    """
    aggregate = settings.segment_agg or "log_mean"
    listed = ListedRatios(*log_ratios(alignment, own, foreign, aggregate), len(own))
    unlisted = list(long_segments(alignment, own, foreign)) if aggregate == "paper_mean" else []
    if form_of(settings) in BY_RATIO:
        return _weights_by_ratio(listed, unlisted, side, settings)
    return _weights_by_answer(listed, unlisted, side, settings, generator)


def _weights_by_ratio(
    listed: ListedRatios, unlisted: Sequence[LongSegment], side: str, settings: Weigh
) -> TokenWeights:
    """A form that turns every log-ratio into a weight; a token has the mean of its own."""
    form, mu, (lower, upper) = form_of(settings), factor(side, settings), bounds(settings)
    tokens, ratios, mean = listed.tokens, listed.ratios, listed.mean
    exponential = form == "exp_clamp"  # whose bounds act before mu, those of linear after it
    scores, scale = (ratios, mu) if exponential else (mu * ratios, 1.0)
    neutral = settings.k if exponential else linear(0.0, mu, settings)
    weights = np.full(listed.count, neutral)
    weights[tokens] = mean(BY_RATIO[form](ratios, mu, settings))[tokens]
    within = mean(np.clip(scores, lower, upper)) * scale
    of_tokens = TokenWeights(weights, mean(scores <= lower), mean(scores >= upper), within)
    for segment in unlisted:
        values = (segment.own, segment.foreign) if exponential else (mu * segment.own, mu * segment.foreign)
        means = clamped_means(*values, lower, upper, scale)
        of_segment = settings.k * means.exponential if exponential else means.clamped
        parts = TokenWeights(of_segment, means.at_lower, means.at_upper, scale * means.clamped)
        for whole, part in zip(of_tokens, parts, strict=True):
            whole[segment.tokens] = part
    return of_tokens


def _weights_by_answer(
    listed: ListedRatios,
    unlisted: Sequence[LongSegment],
    side: str,
    settings: Weigh,
    generator: np.random.Generator,
) -> TokenWeights:
    """A form that acts on an answer's scores: the means of its tokens' log-ratios, signed."""
    mu, (lower, upper) = factor(side, settings), bounds(settings)
    scores = listed.mean(mu * listed.ratios)
    for segment in unlisted:
        scores[segment.tokens] = mu * (segment.own + segment.foreign.mean())
    at = scores[listed.tokens]
    at_lower, at_upper = listed.mean(at <= lower), listed.mean(at >= upper)
    for segment in unlisted:
        at_lower[segment.tokens] = scores[segment.tokens] <= lower
        at_upper[segment.tokens] = scores[segment.tokens] >= upper
    weights = BY_ANSWER[form_of(settings)](scores, settings, generator)
    return TokenWeights(weights, at_lower, at_upper, np.clip(scores, lower, upper))
