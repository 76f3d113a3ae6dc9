"""Engines that sample answers, behind one signature: prompts as ids in, answers as ids with a finish reason out.

No random number depends on a batch, a shard or an order: each prompt brings its own, one per token. Two batch sizes
still differ by rounding, which moves an answer only where a random number falls on the border of two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from .config import Generate


@dataclass(frozen=True)
class Answer:
    """Ids as the engine made them, with the closing EOS if and only if the finish reason is `stop`."""

    ids: list[int]
    finish_reason: str  # stop: the model ended it; length: cut at max_new_tokens


class SeededSampler(LogitsProcessor):
    """Inverts the distribution at each prompt's own uniform number, and leaves the winner to greedy search.

    uniforms: (rows, max_new_tokens) float64 in [0, 1).
    """

    def __init__(self, uniforms: np.ndarray, width: int, settings: Generate):
        self.uniforms, self.width, self.settings = torch.from_numpy(uniforms), width, settings

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.width
        chosen = invert(
            scores, self.uniforms[:, step].to(scores.device), self.settings.temperature, self.settings.top_p
        )
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def invert(scores: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Token at which the cumulative probability passes each row's uniform number.

    scores (rows, vocabulary) logits; uniforms (rows,); returns (rows,) int64. In float64, so that the sum over a large
    vocabulary stays exact enough to be the same everywhere.
    """
    probabilities = torch.softmax(scores.double() / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the nucleus is the smallest set that reaches top_p
        probabilities = probabilities.masked_fill(outside.scatter(1, order, outside), 0.0)
    cumulative = probabilities.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=scores.shape[1] - 1)


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Callable[[int], np.ndarray],
    settings: Generate,
    eos: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Answer]:
    """Sample one answer per prompt with transformers; `uniforms(i)` gives the random numbers of prompt i.

    Prompts of like length are decoded together, padded on the left, the longest first: if memory is short, it shows at
    once. The answers come in the order of the prompts.
    """
    model.eval()
    # The model's own sampling defaults (penalties, top_k) must not enter: only the study's settings do.
    model.generation_config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=eos
    )
    answers: dict[int, Answer] = {}
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for first in range(0, len(order), settings.batch_size):
        chosen = order[first : first + settings.batch_size]
        made = _decode(model, [prompts[i] for i in chosen], [uniforms(i) for i in chosen], settings, eos)
        answers.update(zip(chosen, made, strict=True))
        progress(len(answers))
    return [answers[i] for i in range(len(prompts))]


def _decode(
    model: Any, prompts: list[Sequence[int]], uniforms: list[np.ndarray], settings: Generate, eos: int
) -> list[Answer]:
    width = max(map(len, prompts))
    padded = torch.tensor([[eos] * (width - len(ids)) + list(ids) for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    sampler = [SeededSampler(np.stack(uniforms), width, settings)] if settings.temperature > 0 else []
    made = model.generate(
        input_ids=padded.to(model.device),
        attention_mask=mask.to(model.device),
        logits_processor=LogitsProcessorList(sampler),
    )
    return [_answer(ids, eos) for ids in made[:, width:].tolist()]


def _answer(ids: list[int], eos: int) -> Answer:
    if eos in ids:
        return Answer(ids[: ids.index(eos) + 1], "stop")
    return Answer(ids, "length")
