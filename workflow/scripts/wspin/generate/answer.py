"""What an engine returns for a prompt, and what it is given: the contract of all engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RandomSource = Callable[[int], np.random.Generator]  # number of a prompt: where its random numbers come from


@dataclass(frozen=True)
class Answer:
    """Ids as the engine made them, with the closing EOS if and only if the finish reason is `stop`."""

    ids: list[int]
    finish_reason: str  # stop: the model ended it; length: cut at max_new_tokens


OnAnswer = Callable[[int, Answer], None]  # number of a prompt, and its answer
