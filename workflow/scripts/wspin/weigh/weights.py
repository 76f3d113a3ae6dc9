"""The weights of the tokens of a shard's answers, side by side.

The order of operations is fixed: log-ratios, form with the side's sign or mu, control, normalisation, weight of EOS.
Weights are constants of the training: they multiply the policy's and the reference's log-probabilities alike.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.rng import row_generator
from wspin.storage.tables import WEIGHT_COUNTS

from .alignment import Alignment
from .controls import apply_control
from .finalisation import finalize
from .forms import RELEASED_CLIP, TokenWeights, factor, form_of, random, scored_weights
from .inputs import AlignedAnswer

ROUNDING = 1e-3  # nat; log-ratios of equal models differ by less, in batches of their own
FEW_ANSWERS, FEW_TOKENS = 4, 32  # of both sides; fewer can be alike by chance: beyond a context, or all at a bound

Floats = NDArray[np.float64]


class AnswerWeights(NamedTuple):
    """Final weights of an answer, EOS included, and what they are made from.

    tokens: None without scores; total: the sum before normalisation, EOS left out.
    """

    final: NDArray[np.float32]
    tokens: TokenWeights | None
    total: float


class SideWeights(NamedTuple):
    """Final weights of each answer of a side, `WEIGHT_COUNTS`, the sum before normalisation, the scores' range."""

    weights: list[NDArray[np.float32]]
    counts: dict[str, float]
    total: float
    lowest: float
    highest: float


def weight_side(
    side: str, answers: Iterable[AlignedAnswer], settings: Weigh, seed: Sequence[int], scale: float = 1.0
) -> SideWeights:
    """The weights of one side, `chosen` or `rejected`; `scale`: their factor, if normalised over the data set.

    Counts, without EOS: tokens; at_lower, at_upper (tokens with log-ratios at a bound, as shares added up); unread,
    unclear (neutral tokens); segments with a log-ratio; mismatched (those with unequal numbers of tokens). Raises
    `StudyError` with the prompt's id.
    """
    weights, counts = [], Counter(dict.fromkeys(WEIGHT_COUNTS, 0))
    lowest, highest, total = np.inf, -np.inf, 0.0
    for answer in answers:
        weighted = weight_answer(side, answer, settings, seed, scale)
        weights.append(weighted.final)
        total += weighted.total
        counts["tokens"] += len(answer.own)
        if tokens := weighted.tokens:
            lowest, highest = tokens.scores.min(initial=lowest), tokens.scores.max(initial=highest)
            counts.update(_counts(tokens, answer.alignment))
    return SideWeights(weights, dict(counts), total, float(lowest), float(highest))


def weight_answer(
    side: str, answer: AlignedAnswer, settings: Weigh, seed: Sequence[int], scale: float = 1.0
) -> AnswerWeights:
    """The weights of one answer, whose random numbers are its own. Arguments and errors as of `weight_side`."""
    generator, tokens = row_generator(*seed, "weigh", side, answer.prompt_id), None
    if settings.source == "equal":
        unfinished = _without_scores(answer, settings, generator)
    else:
        tokens = scored_weights(answer.alignment, answer.own, answer.foreign, side, settings, generator)
        unfinished = tokens.weights
    controlled = apply_control(unfinished, settings.control, generator)
    try:
        return AnswerWeights(finalize(controlled, answer.has_eos, settings, scale), tokens, float(controlled.sum()))
    except StudyError as error:
        raise StudyError(f"{answer.prompt_id}, {side}: {error}") from None


def _without_scores(answer: AlignedAnswer, settings: Weigh, generator: np.random.Generator) -> Floats:
    """Weights (N,) of source equal: of one, the weighted loss is the unweighted one, bit for bit; or random ones."""
    return random(answer.own, settings, generator) if settings.form == "random" else np.ones(len(answer.own))


def check_varied(sides: dict[str, SideWeights], settings: Weigh, teacher: str) -> None:
    """Raise `StudyError` if the log-ratios are one number on each side: weights made from them tell no tokens apart.

    Within the form's bounds, and whatever it makes of them: ranks differ even where all log-ratios are equal. Not where
    the settings allow it, nor for few answers. `teacher`: the file to name.
    """
    counts: Counter[str] = Counter()
    for side in sides.values():
        counts.update(side.counts)
    few = min(len(side.weights) for side in sides.values()) < FEW_ANSWERS or counts["tokens"] < FEW_TOKENS
    if settings.uniform == "allow" or few:
        return
    if all(side.highest - side.lowest <= ROUNDING * abs(factor(name, settings)) for name, side in sides.items()):
        expected = "expected log-ratios that differ from token to token"
        found = f"found one for all {counts['tokens']} tokens of this shard, {_uniform_cause(counts, settings)}"
        raise StudyError(f"{teacher}: {expected}, {found}; or set weigh.uniform to allow")


def _uniform_cause(counts: dict[str, float], settings: Weigh) -> str:
    """What the log-ratios of all tokens have in common, and the remedy."""
    tokens, unread, unclear = counts["tokens"], counts["unread"], counts["unclear"]
    if unread + unclear == tokens:
        return f"all neutral: {unread} unread, {unclear} unclear; take a teacher with a context for the study's prompts"
    low, high = round(counts["at_lower"]), round(counts["at_upper"])
    if form_of(settings) == "swift_as_released" and low + high + unread + unclear == tokens:
        (lower, upper), neutral = RELEASED_CLIP, unread + unclear
        ends = f"{low} at a surprisal of {lower:g} nat or less, {high} at {upper:g} or more, {neutral} neutral"
        return f"{ends}; {'take another source' if settings.shifted else 'its bounds go with shifted: true'}"
    if low + high == tokens:
        ends = f"{low} at weigh.lower, {high} at weigh.upper"
        return f"{ends}; take a teacher that is trained on such text, in its own template"
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
