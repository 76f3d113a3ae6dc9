"""Generation as the code of SPIN and WSPIN does it (uclaml/SPIN at a12ba80, tue09/WSPIN at def8222), derived again:
transformers' `generate`, some prompts at a time as they come, each batch until its longest answer ends.

Tokens are drawn by the same uniform numbers as ours, so that both make the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from wspin.config.stages import Generate
from wspin.generate.decoding import sample_by_inversion


class Drawn(LogitsProcessor):
    """Leaves to every row the one token that its uniform number draws."""

    def __init__(self, uniforms: np.ndarray, settings: Generate):
        self.uniforms, self.settings, self.step = torch.from_numpy(uniforms), settings, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = sample_by_inversion(
            scores, self.uniforms[:, self.step], self.settings.temperature, self.settings.top_p
        )
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Callable[[int], np.ndarray],
    settings: Generate,
    eos: int,
    batch_size: int,
) -> tuple[list[list[int]], int]:
    """Answers with their EOS, and the slot-steps they took: rows times decoding steps, of every batch."""
    answers, slot_steps = [], 0
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        width = max(map(len, batch))
        ids = torch.tensor([[eos] * (width - len(prompt)) + list(prompt) for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        drawn = Drawn(np.stack([uniforms(i) for i in range(first, first + len(batch))]), settings)
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([drawn]),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos,
        )[:, width:].tolist()
        answers += [_ended(row, eos) for row in made]
        slot_steps += len(batch) * (len(made[0]) - 1)  # reading the prompts gives the first tokens
    return answers, slot_steps


def _ended(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row
