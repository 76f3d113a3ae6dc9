"""Final weights: normalised, with the weight of EOS."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import files, tables

Floats = NDArray[np.float64]


def finalize(weights: Floats, has_eos: bool, settings: Weigh, scale: float = 1.0) -> NDArray[np.float32]:
    """Final weights of an answer: normalised over its N tokens, then EOS if it has one: (N,) or (N + 1,).

    `scale`: the factor of weights that are normalised over the data set. Raises `StudyError` if a sum to normalise by
    is not positive, or if a weight is not finite.
    """
    count, factor, mean = len(weights), scale, 1.0
    if settings.normalise != "none" and not settings.normalise_over and count:
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


def dataset_scales(paths: Sequence[str], settings: Weigh) -> dict[str, float]:
    """{side: N / sum(w)}: what makes the mean weight of all tokens one, EOS left out, over a side or over both.

    `paths`: the sums of all shards, in their order, empty without `normalise_over`. Raises `StudyError` if one is of
    other settings or another shard, or if a sum is not positive.
    """
    if bool(paths) != bool(settings.normalise_over):
        wanted = "the sums of all shards" if settings.normalise_over else "no sums"
        raise StudyError(f"weigh: --sums: expected {wanted} by weigh.normalise_over, found {len(paths)} files")
    totals = {side: np.zeros(2) for side in tables.SIDES}  # tokens, sum of weights
    for shard, path in enumerate(paths):
        found = files.read_json(path, "sums of weights", "remove it, and run again")
        if (found.get("shard"), found.get("settings")) != (shard, settings.stored()):
            raise StudyError(f"{path}: expected shard {shard} with these settings, found others; remove it")
        for side in tables.SIDES:
            totals[side] += found[side]["tokens"], found[side]["sum"]
    if settings.normalise_over == "dataset":
        totals = dict.fromkeys(tables.SIDES, sum(totals.values()))
    return {side: _scale(side, *total) for side, total in totals.items()}


def _scale(side: str, tokens: float, total: float) -> float:
    if tokens and not total > 0.0:
        found = f"found {total:.3g} for the {side} answers"
        raise StudyError(f"weigh: expected weights with a positive sum, {found}; set weigh.normalise to none")
    return tokens / total if tokens else 1.0
