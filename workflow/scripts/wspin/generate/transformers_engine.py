"""Continuous batching with transformers: a finished sequence frees its slot for a waiting prompt."""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from wspin.config.stages import Generate
from wspin.models import folders

from .answer import Answer, OnAnswer, Prompts, RandomSource
from .decoding import RunningBatch, RunningSequence

# Share of the slots that must be free before waiting prompts take them: prefilling several prompts together is faster.
REFILL = 1 / 8


@dataclass(frozen=True)
class Work:
    """The cost of some answers. A slot-step is one sequence's part in one decoding step; the others count tokens."""

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
    prompts: Prompts,
    uniforms: Callable[[int], np.ndarray],
    settings: Generate,
    eos: int,
    on_answer: OnAnswer = lambda index, answer: None,
) -> tuple[list[Answer], Work]:
    """Sample one answer per prompt, in the order of the prompts; `uniforms(i)`: random numbers of prompt i.

    Waiting prompts take free slots, the longest first: if memory is short, the first step shows it. `on_answer` gets
    each answer as it ends. The model's own sampling defaults (penalties, top_k) are ignored.
    """
    model.eval()
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
    slots = min(settings.batch_size, len(prompts))
    columns = max(map(len, prompts), default=0) + settings.max_new_tokens - 1
    batch = RunningBatch(model, settings, eos, slots, columns)
    answers: dict[int, Answer] = {}
    while len(answers) < len(prompts):
        free = slots - len(batch.sequences)
        if waiting and free >= max(1, slots * REFILL):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            batch.admit([RunningSequence(i, prompts[i], uniforms(i)) for i in chosen])
        else:
            batch.step()
        for sequence in batch.release():
            answers[sequence.index] = Answer(sequence.ids, "stop" if sequence.ids[-1] == eos else "length")
            on_answer(sequence.index, answers[sequence.index])
    useful = sum(len(answer.ids) - 1 for answer in answers.values())  # prefilling gives the first token
    work = Work(batch.slot_steps, useful, sum(map(len, prompts)), batch.prompt_tokens)
    return [answers[i] for i in range(len(prompts))], work


class TransformersEngine:
    """transformers in this process, in float32."""

    def __init__(self, folder: str, settings: Generate, eos: int):
        self.settings, self.eos = settings, eos
        self.model = folders.load_model(folder, folders.best_device())
        folders.check_eos(self.model, eos, folder)
        attention = self.model.config._attn_implementation
        self.made_with = {"dtype": "float32", "autocast": "float32", "attention": attention}

    def generate(self, prompts: Prompts, random_source: RandomSource, on_answer: OnAnswer) -> dict[str, Any]:
        """Answer the prompts; returns the work of it."""
        settings, limit = self.settings, self.settings.max_new_tokens
        _, work = generate(self.model, prompts, lambda i: random_source(i).random(limit), settings, self.eos, on_answer)
        return {**asdict(work), "useful": work.useful}
