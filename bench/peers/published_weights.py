"""Token weights as the code of TIS-DPO makes them (exlaw/TIS-DPO at cbad7c1, and tue09/WSPIN at def8222 after it),
derived again: four pairs at a time, two models read chosen and rejected in one padded rectangle each, every position
gets log-probabilities over the whole vocabulary, and a loop over the tokens takes them out one by one.

Theirs loads both models in eight bits, rounds weights to two decimals and weighs the last token zero; none of that is
done here, so that the weights can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wspin.config.stages import Weigh
from wspin.engine.packing import Item

from .padded import IGNORED, collate

BATCH = 4


@torch.inference_mode()
def weights(
    teacher: Any, student: Any, items: Sequence[Item], pad: int, settings: Weigh
) -> tuple[list[list[float]], list[list[float]]]:
    """Weights of the chosen and of the rejected answers, one per token but for EOS."""
    made: tuple[list[list[float]], list[list[float]]] = [], []
    for first in range(0, len(items), BATCH):
        batch = collate(items[first : first + BATCH], pad)
        scores = [_logprobs(model, batch) for model in (teacher, student)]
        rows = [_row(*row, settings, index) for index, row in enumerate(_rows(scores, batch))]
        made[0].extend(rows[: len(rows) // 2])
        made[1].extend(rows[len(rows) // 2 :])
    return made


def _logprobs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """(rows, L - 1) of every token but the first, of the whole rectangle."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    found = logits[:, :-1].float().log_softmax(-1)
    return found.gather(2, batch["input_ids"][:, 1:, None])[:, :, 0]


def _rows(scores: list[Tensor], batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor, int]]:
    told = batch["labels"][:, 1:] != IGNORED
    return [(*row, len(told) // 2) for row in zip(scores[0], scores[1], told, strict=True)]


def _row(teacher: Tensor, student: Tensor, told: Tensor, pairs: int, settings: Weigh, index: int) -> list[float]:
    mu = settings.mu_chosen if index < pairs else settings.mu_rejected
    places = told.nonzero()[:-1, 0]  # without EOS
    made = []
    for place in places:
        ratio = teacher[place].item() - student[place].item()
        made.append(settings.k * math.exp(mu * min(max(ratio, settings.lower), settings.upper)))
    return made
