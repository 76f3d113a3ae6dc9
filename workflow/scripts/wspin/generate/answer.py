"""The contract of all engines: where a prompt's random numbers come from, and what comes back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Prompts = Sequence[Sequence[int]]  # token ids of each prompt
RandomSource = Callable[[int], np.random.Generator]  # index of a prompt -> its own generator


@dataclass(frozen=True)
class Answer:
    """Token ids as sampled, with a final EOS if and only if the finish reason is `stop`."""

    ids: list[int]
    finish_reason: str  # stop: ended with EOS; length: truncated at max_new_tokens


OnAnswer = Callable[[int, Answer], None]  # called with the index of a prompt and its answer, in any order
