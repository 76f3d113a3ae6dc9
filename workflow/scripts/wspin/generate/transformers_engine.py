"""Continuous batching with transformers: a sequence leaves with its last token, and a waiting prompt takes its slot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from wspin.config.stages import Generate
from wspin.models import folders

from .answer import Answer, OnAnswer, RandomSource
from .decoding import RunningBatch, RunningSequence

# Share of the slots that must be free before waiting prompts take them: prompts are read faster together.
REFILL = 1 / 8


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
    finished: OnAnswer = lambda number, answer: None,
) -> tuple[list[Answer], Work]:
    """Sample one answer per prompt with transformers; `uniforms(i)` gives the random numbers of prompt i.

    A row leaves with its last token, and waiting prompts take the free slots, the longest first: if memory is short, it
    shows at once. The answers come in the order of the prompts; `finished` hears of each as it ends. The model's own
    sampling defaults (penalties, top_k) do not enter: only the study's settings do.
    """
    model.eval()
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
    slots = min(settings.batch_size, len(prompts))
    batch = RunningBatch(
        model, settings, eos, slots, columns=max(map(len, prompts), default=0) + settings.max_new_tokens - 1
    )
    answers: dict[int, Answer] = {}
    while len(answers) < len(prompts):
        free = slots - len(batch.rows)
        if waiting and free >= max(1, slots * REFILL):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            batch.admit([RunningSequence(i, prompts[i], uniforms(i)) for i in chosen])
        else:
            batch.step()
        for row in batch.release():
            answers[row.number] = Answer(row.ids, "stop" if row.ids[-1] == eos else "length")
            finished(row.number, answers[row.number])
    useful = sum(len(answer.ids) - 1 for answer in answers.values())  # reading the prompt gives the first token
    work = Work(batch.slot_steps, useful, sum(map(len, prompts)), batch.prompt_tokens)
    return [answers[i] for i in range(len(prompts))], work


class Transformers:
    """transformers in this process, in float32."""

    def __init__(self, folder: str, settings: Generate, eos: int):
        self.settings, self.eos = settings, eos
        self.model = folders.load_model(folder, folders.best_device())
        folders.check_eos(self.model, eos, folder)
        self.made_with = {
            "dtype": "float32",
            "autocast": "float32",
            "attention": self.model.config._attn_implementation,
        }

    def generate(self, prompts: Sequence[Sequence[int]], draws: RandomSource, finished: OnAnswer) -> dict[str, Any]:
        """Answer the prompts; returns the work that it took."""
        longest = self.settings.max_new_tokens
        _, work = generate(self.model, prompts, lambda i: draws(i).random(longest), self.settings, self.eos, finished)
        return {**asdict(work), "useful": work.useful}
