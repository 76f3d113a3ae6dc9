"""Final weights: normalised, with the weight of EOS."""

import numpy as np
from numpy.typing import NDArray

from wspin.config.weigh import Weigh
from wspin.errors import StudyError

Floats = NDArray[np.float64]


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
