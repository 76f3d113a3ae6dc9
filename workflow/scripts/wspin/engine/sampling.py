"""The next token of each sequence, from its logits and a random number of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the likeliest token. `uniforms(i)`: random numbers of prompt i in [0, 1), one per token."""

    temperature: float = 0.0
    top_p: float = 1.0
    uniforms: Callable[[int], np.ndarray] = lambda prompt: np.empty(0)

    def tokens(self, logits: Tensor, uniforms: list[float]) -> list[int]:
        """A token per row of `logits` (rows, vocabulary); greedy sampling needs no `uniforms`, a number per row."""
        if self.temperature == 0:
            return logits.argmax(-1).tolist()
        numbers = torch.tensor(uniforms, dtype=torch.float64).to(logits.device, non_blocking=True)
        return sample_by_inversion(logits, numbers, self.temperature, self.top_p).tolist()


def sample_by_inversion(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """The token at which each row's cumulative probability passes its uniform number.

    logits (rows, vocabulary); uniforms (rows,) in [0, 1); returns (rows,) int64. In float64, so that the sum over a
    large vocabulary is exact enough to be the same on every machine.
    """
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the nucleus is the smallest set that reaches top_p
        probabilities = probabilities.masked_fill(outside.scatter(1, order, outside), 0.0)
    cumulative = probabilities.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
