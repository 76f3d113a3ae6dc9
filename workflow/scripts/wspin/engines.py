"""Engines that sample answers, behind one signature: prompts as ids in, answers as ids with a finish reason out.

No random number depends on a batch, a shard or an order: each prompt brings its own, one per token. Two batch sizes
still differ by rounding, which moves an answer only where a random number falls on the border of two tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .config import Generate
from .decoding import Batch, Row

# Share of the slots that must be free before waiting prompts take them: prompts are read faster together.
REFILL = 1 / 8


@dataclass(frozen=True)
class Answer:
    """Ids as the engine made them, with the closing EOS if and only if the finish reason is `stop`."""

    ids: list[int]
    finish_reason: str  # stop: the model ended it; length: cut at max_new_tokens


@dataclass(frozen=True)
class Work:
    """What the answers took. A slot-step is one row's part in one decoding step; the others count tokens."""

    slot_steps: int
    useful_slot_steps: int  # those that gave a token of an answer
    prompt_tokens: int
    computed_prompt_tokens: int  # with padding

    @property
    def useful(self) -> float:
        """Useful share of the slot-steps; one if there were none."""
        return self.useful_slot_steps / self.slot_steps if self.slot_steps else 1.0


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Callable[[int], np.ndarray],
    settings: Generate,
    eos: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Answer], Work]:
    """Sample one answer per prompt with transformers; `uniforms(i)` gives the random numbers of prompt i.

    A row leaves with its last token, and waiting prompts take the free slots, the longest first: if memory is short, it
    shows at once. The answers come in the order of the prompts. The model's own sampling defaults (penalties, top_k) do
    not enter: only the study's settings do.
    """
    model.eval()
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
    slots = min(settings.batch_size, len(prompts))
    batch = Batch(model, settings, eos, slots, columns=max(map(len, prompts), default=0) + settings.max_new_tokens - 1)
    answers: dict[int, Answer] = {}
    while len(answers) < len(prompts):
        free = slots - len(batch.rows)
        if waiting and free >= max(1, slots * REFILL):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            batch.admit([Row(i, prompts[i], uniforms(i)) for i in chosen])
        else:
            batch.step()
        if ended := batch.release():
            answers.update((row.number, Answer(row.ids, "stop" if row.ids[-1] == eos else "length")) for row in ended)
            progress(len(answers))
    useful = sum(len(answer.ids) - 1 for answer in answers.values())  # reading the prompt gives the first token
    work = Work(batch.slot_steps, useful, sum(map(len, prompts)), batch.prompt_tokens)
    return [answers[i] for i in range(len(prompts))], work
