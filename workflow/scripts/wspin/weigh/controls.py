"""Controls: weights that show by contrast what the true ones do."""

import numpy as np
from numpy.typing import NDArray

RANDOM = (-0.5, 1.5)  # SWIFT's table 3: random weights
NOISE = 0.2  # SWIFT's table 9: largest deviation from the true weight

Floats = NDArray[np.float64]


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
