"""Generation as the code of SPIN and WSPIN does it (uclaml/SPIN at a12ba80, tue09/WSPIN at def8222), rewritten:
transformers' `generate` on batches of prompts in their order, each of which runs until its longest answer ends.

Tokens are drawn by the same uniform numbers as ours, so both generate the same answers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from wspin.config.stages import Generate
from wspin.engine.sampling import sample_by_inversion


class InverseSampling(LogitsProcessor):
    """Masks all tokens of a row but the one that its uniform number draws."""

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
    """Answers with their EOS, and the slot-steps: rows times decoding steps, summed over batches."""
    answers, slot_steps = [], 0
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        width = max(map(len, batch))
        ids = torch.tensor([[eos] * (width - len(prompt)) + list(prompt) for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        sampling = InverseSampling(np.stack([uniforms(i) for i in range(first, first + len(batch))]), settings)
        generated = model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([sampling]),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos,
        )[:, width:].tolist()
        answers += [_through_eos(row, eos) for row in generated]
        slot_steps += len(batch) * (len(generated[0]) - 1)  # the prompt pass gives the first tokens
    return answers, slot_steps


def _through_eos(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row
