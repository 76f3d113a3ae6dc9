"""Token weights from log-probabilities: how much more a teacher prefers each token than the student does.

The log-ratio r = log teacher - log student of a token given all before it, in nats, becomes w = k exp(mu clamp(r)). The
order of operations is fixed: log-ratios, shape with the side's mu, control, normalisation, weight of EOS. Weights are
constants of the training: they multiply the policy's and the reference's log-probabilities alike.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wspin.config.weigh import SCORE_SOURCES, Weigh
from wspin.errors import StudyError
from wspin.rng import row_generator
from wspin.storage.tables import WEIGHT_COUNTS

from .alignment import Alignment
from .inputs import AlignedAnswer

RANDOM = (-0.5, 1.5)  # SWIFT's table 3: random weights
NOISE = 0.2  # SWIFT's table 9: largest deviation from the true weight
ROUNDING = 1e-3  # nat; log-ratios of equal models differ by less, in batches of their own
FEW_ANSWERS, FEW_TOKENS = 4, 32  # of both sides; fewer can be alike by chance: beyond a context, or all at a bound

Floats = NDArray[np.float64]


class TokenWeights(NamedTuple):
    """Weights of an answer's N tokens before any control, and each token's share of log-ratios at a bound."""

    weights: Floats
    at_lower: Floats
    at_upper: Floats


class SideWeights(NamedTuple):
    """Final weights of each answer of a side, `WEIGHT_COUNTS`, and the range of its weights before any control."""

    weights: list[NDArray[np.float32]]
    counts: dict[str, float]
    lowest: float
    highest: float


def shape(ratios: Floats, mu: float, settings: Weigh) -> Floats:
    """k exp(mu clamp(r, lower, upper)), for log-ratios of any shape.

    SWIFT, appendix B.2, after TIS-DPO (arXiv 2410.04350). The clamp acts before mu, so the bounds are those of r.
    """
    return settings.k * np.exp(mu * np.clip(ratios, settings.lower, settings.upper))


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


def scored_weights(alignment: Alignment, own: Floats, foreign: Floats, mu: float, settings: Weigh) -> TokenWeights:
    """Weights of N tokens from signed log-probabilities, own (N,), foreign (M,); without a log-ratio r = 0, hence k."""
    tokens, ratios = log_ratios(alignment, own, foreign, settings.segment_agg)
    count = len(own)
    share = 1.0 / np.bincount(tokens, minlength=count).clip(min=1)[tokens]

    def mean(values: Floats) -> Floats:
        return np.bincount(tokens, weights=values * share, minlength=count)

    weights = np.full(count, settings.k)
    weights[tokens] = mean(shape(ratios, mu, settings))[tokens]
    return TokenWeights(weights, mean(ratios <= settings.lower), mean(ratios >= settings.upper))


def apply_control(weights: Floats, control: str, generator: np.random.Generator) -> Floats:
    """Weights (N,) of a control condition, which shows by contrast what the true ones do.

    one_minus, inverse: SWIFT's reversal 1 - w, and 1 / w, which keeps the sign; permuted: the answer's weights in
    random order; random: uniform in `RANDOM`; random_matched: gamma-distributed with the answer's mean and deviation;
    noise: within `NOISE` of the true weight. `generator` belongs to the answer.
    """
    count = len(weights)
    if control == "one_minus":
        return 1.0 - weights
    if control == "inverse":
        return 1.0 / weights
    if control == "permuted":
        return generator.permutation(weights)
    if control == "random":
        return generator.uniform(*RANDOM, count)
    if control == "noise":
        return weights + generator.uniform(-NOISE, NOISE, count)
    if control == "random_matched" and count:
        mean, variance = weights.mean(), weights.var()
        if variance > 1e-12 * mean**2:
            return generator.gamma(mean**2 / variance, variance / mean, count)
    return weights


def finalize(weights: Floats, has_eos: bool, settings: Weigh) -> NDArray[np.float32]:
    """Final weights of an answer: normalised over its N tokens, then EOS if it has one: (N,) or (N + 1,).

    Raises `StudyError` if a sum to normalise by is not positive, or if a weight is not finite.
    """
    count, factor, mean = len(weights), 1.0, 1.0
    if settings.normalise != "none" and count:
        total = float(weights.sum())
        if not total > 0.0:
            raise StudyError(f"expected weights with a positive sum, found {total:.3g}; set weigh.normalise to none")
        factor = (count if settings.normalise == "mean_one" else settings.normalise_to) / total
    if settings.normalise == "sum_to":
        mean = settings.normalise_to / max(count, 1)  # eos_weight is relative to the mean of the others
    with np.errstate(over="ignore"):  # refused below
        final = np.append(weights * factor, [settings.eos_weight * mean] * has_eos).astype(np.float32)
    if not np.isfinite(final).all():
        wrong = final[~np.isfinite(final)][0]
        raise StudyError(f"expected finite weights, found {wrong}; narrow weigh.lower and weigh.upper")
    return final


def weight_side(side: str, answers: Iterable[AlignedAnswer], settings: Weigh, seed: Sequence[int]) -> SideWeights:
    """The weights of one side, `chosen` or `rejected`.

    Counts, without EOS: tokens; at_lower, at_upper (tokens with log-ratios at a bound, as shares added up); unread,
    unclear (neutral tokens); segments with a log-ratio; mismatched (those with unequal numbers of tokens). Raises
    `StudyError` with the prompt's id.
    """
    mu = settings.mu_chosen if side == "chosen" else settings.mu_rejected
    weights, counts = [], Counter(dict.fromkeys(WEIGHT_COUNTS, 0))
    lowest, highest = np.inf, -np.inf
    for answer in answers:
        unfinished = np.ones(len(answer.own))  # source equal: the weighted loss is the unweighted one, bit for bit
        counts["tokens"] += len(unfinished)
        if settings.source in SCORE_SOURCES:
            tokens = scored_weights(answer.alignment, answer.own, answer.foreign, mu, settings)
            unfinished = tokens.weights
            counts.update(_counts(tokens, answer.alignment))
        lowest, highest = unfinished.min(initial=lowest), unfinished.max(initial=highest)
        controlled = apply_control(unfinished, settings.control, row_generator(*seed, "weigh", side, answer.prompt_id))
        try:
            weights.append(finalize(controlled, answer.has_eos, settings))
        except StudyError as error:
            raise StudyError(f"{answer.prompt_id}, {side}: {error}") from None
    return SideWeights(weights, dict(counts), float(lowest), float(highest))


def check_varied(sides: dict[str, SideWeights], settings: Weigh, teacher: str) -> None:
    """Raise `StudyError` if the teacher's log-ratios are one number on each side: its weights tell no tokens apart.

    Not where the settings allow or cause it, nor for few answers. `teacher`: the file to name.
    """
    mus = {"chosen": settings.mu_chosen, "rejected": settings.mu_rejected}
    caused = settings.lower == settings.upper or not any(mus.values())
    counts: Counter[str] = Counter()
    for side in sides.values():
        counts.update(side.counts)
    few = min(len(side.weights) for side in sides.values()) < FEW_ANSWERS or counts["tokens"] < FEW_TOKENS
    if settings.uniform == "allow" or caused or few:
        return
    if all(side.highest <= side.lowest * np.exp(ROUNDING * abs(mus[name])) for name, side in sides.items()):
        expected = "expected log-ratios that differ from token to token"
        found = f"found one for all {counts['tokens']} tokens of this shard, {_uniform_cause(counts)}"
        raise StudyError(f"{teacher}: {expected}, {found}; or set weigh.uniform to allow")


def _uniform_cause(counts: dict[str, float]) -> str:
    """What the log-ratios of all tokens have in common, and the remedy."""
    tokens, unread, unclear = counts["tokens"], counts["unread"], counts["unclear"]
    if unread + unclear == tokens:
        return f"all neutral: {unread} unread, {unclear} unclear; take a teacher with a context for the study's prompts"
    low, high = round(counts["at_lower"]), round(counts["at_upper"])
    if low + high == tokens:
        bounds = f"{low} at weigh.lower, {high} at weigh.upper"
        return f"{bounds}; take a teacher that is trained on such text, in its own template"
    return "as from a copy of the student or an untrained model; take another teacher"


def _counts(tokens: TokenWeights, alignment: Alignment) -> dict[str, float]:
    segments = len(alignment.ends)
    student, teacher = (np.bincount(side, minlength=segments) for side in (alignment.student, alignment.teacher))
    used = alignment.used & (student > 0)
    return {
        "at_lower": float(tokens.at_lower.sum()),
        "at_upper": float(tokens.at_upper.sum()),
        "unread": int(student[~alignment.read].sum()),
        "unclear": int(student[alignment.read & ~alignment.clear].sum()),
        "segments": int(used.sum()),
        "mismatched": int((used & (student != teacher)).sum()),
    }
