"""Token weights as in the code of TIS-DPO (exlaw/TIS-DPO at cbad7c1, and tue09/WSPIN at def8222 after it), rewritten:
two models score four pairs at a time, chosen and rejected in one padded rectangle; log-probabilities are computed at
every position over the whole vocabulary, and a loop picks those of the tokens one by one.

The published code loads both models in eight bits, rounds weights to two decimals and gives the last token weight zero;
none of that is done here, so that the weights can be compared.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wspin.config.weigh import Weigh
from wspin.engine.packing import Item

from .padded import IGNORED, collate

BATCH = 4


@torch.inference_mode()
def weights(
    teacher: Any, student: Any, items: Sequence[Item], pad: int, settings: Weigh
) -> tuple[list[list[float]], list[list[float]]]:
    """Weights of the chosen and of the rejected answers, one per token but for EOS."""
    sides: tuple[list[list[float]], list[list[float]]] = [], []
    for first in range(0, len(items), BATCH):
        batch = collate(items[first : first + BATCH], pad)
        scores = [_logprobs(model, batch) for model in (teacher, student)]
        in_answer = batch["labels"][:, 1:] != IGNORED
        pairs = len(in_answer) // 2
        for row, (teacher_row, student_row, mask) in enumerate(zip(*scores, in_answer, strict=True)):
            mu = settings.mu_chosen if row < pairs else settings.mu_rejected
            sides[row >= pairs].append(_row_weights(teacher_row, student_row, mask, mu, settings))
    return sides


def _logprobs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """(rows, L - 1): log-probabilities of every token but the first, padding included."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    logprobs = logits[:, :-1].float().log_softmax(-1)
    return logprobs.gather(2, batch["input_ids"][:, 1:, None])[:, :, 0]


def _row_weights(teacher: Tensor, student: Tensor, in_answer: Tensor, mu: float, settings: Weigh) -> list[float]:
    weights = []
    for position in in_answer.nonzero()[:-1, 0]:  # without EOS
        ratio = teacher[position].item() - student[position].item()
        weights.append(settings.k * math.exp(mu * min(max(ratio, settings.lower), settings.upper)))
    return weights
