"""Means over the log-ratios of tokens whose segment has many foreign tokens, without listing the log-ratios.

With `paper_mean` each of a segment's S own tokens has a log-ratio with each of its T foreign ones. In a text without
blanks, which is one segment, S x T numbers would fill the memory. The means of what the forms make of them follow from
the sorted foreign log-probabilities and their sums, in T log T + S log T steps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .alignment import Alignment

LONG = 256  # foreign tokens of a segment; with more of them its log-ratios are not listed

Floats = NDArray[np.float64]


class LongSegment(NamedTuple):
    """Indices (S,) of a segment's own tokens in their answer, their values (S,), and those of its foreign ones (T,)."""

    tokens: NDArray[np.int64]
    own: Floats
    foreign: Floats


class ClampedMeans(NamedTuple):
    """Means over the log-ratios of each own token, (S,): shares at a bound or beyond, clamped values, exponentials."""

    at_lower: Floats
    at_upper: Floats
    clamped: Floats
    exponential: Floats


def is_long(alignment: Alignment) -> NDArray[np.bool_]:
    """Which segments (C,) have more than `LONG` foreign tokens."""
    return np.bincount(alignment.teacher, minlength=len(alignment.ends)) > LONG


def long_segments(alignment: Alignment, own: Floats, foreign: Floats) -> Iterator[LongSegment]:
    """The long ones of the segments that have log-ratios; values own (N,) and foreign (M,)."""
    for segment in np.flatnonzero(is_long(alignment) & alignment.used):
        places = (np.searchsorted(side, (segment, segment + 1)) for side in (alignment.student, alignment.teacher))
        of_own, of_foreign = (slice(*place) for place in places)
        yield LongSegment(np.arange(of_own.start, of_own.stop), own[of_own], foreign[of_foreign])


def clamped_means(own: Floats, foreign: Floats, lower: float, upper: float, mu: float) -> ClampedMeans:
    """Of r = own[i] + foreign[t], own (S,), foreign (T,), for every i over all t; the exponentials of mu clamp(r)."""
    values, count = np.sort(foreign), len(foreign)
    at_lower = np.searchsorted(values, lower - own, side="right")
    below_upper = np.searchsorted(values, upper - own, side="left")
    last = np.maximum(at_lower, below_upper)  # values[at_lower:last] lie between the bounds
    above, sums = count - last, np.append(0.0, np.cumsum(values))
    inside = sums[last] - sums[at_lower] + (last - at_lower) * own
    clamped = lower * at_lower + inside + upper * above
    first_sum, last_sum = (_exponential_sums(values, own, mu, place) for place in (at_lower, last))
    exponential = np.exp(mu * lower) * at_lower + np.abs(last_sum - first_sum) + np.exp(mu * upper) * above
    return ClampedMeans(at_lower / count, 1.0 - below_upper / count, clamped / count, exponential / count)


def _exponential_sums(values: Floats, own: Floats, mu: float, places: NDArray[np.int64]) -> Floats:
    """Sums (S,) of exp(mu (values[t] + own[i])) over t < places[i]; over t >= places[i] if mu is negative.

    Terms grow towards places[i], so none exceeds a clamped one by far, and a difference of two sums is exact enough.
    """
    if mu < 0.0:
        values, places = -values[::-1], len(values) - places
    logarithms = np.append(-np.inf, np.logaddexp.accumulate(abs(mu) * values))
    return np.exp(logarithms[places] + mu * own)
