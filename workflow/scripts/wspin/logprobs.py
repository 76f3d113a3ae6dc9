"""Per-token log-probabilities of answers: the other half of the seam behind which speed lives.

Scoring and training call `token_logprobs` on the same layouts, with the same weights and under the same autocast, so
that a policy and its stored reference differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import StudyError
from .packing import Batch, Item, lay_out, micro_batches

# What Gemma, Cohere, Granite and Falcon-H1 do to their logits.
HEAD_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The one precision of matrix products, `logprobs.autocast`, for scoring and training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each answer token given all before it: (T,) float32, in nats.

    The head runs on the T positions that predict an answer token and on no other. Logits go to float32 before the
    log-softmax, which is computed as such: finite wherever the logits are.
    """
    return chosen(token_logits(model, batch), batch)


def token_logits(model: Any, batch: Batch) -> Tensor:
    """Logits of the next token before each answer token: (T, V) float32."""
    # Without a cache and with padding on the right, causal attention keeps every row to itself: no mask is needed.
    hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return model.get_output_embeddings()(hidden[batch.rows, batch.positions]).float()


def chosen(logits: Tensor, batch: Batch) -> Tensor:
    """Log-probability of each answer token (T,), nats, from logits (T, V)."""
    return -torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")


def check_head(model: Any) -> None:
    """Refuse models whose logits are more than hidden states times head. Raises `StudyError`."""
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in HEAD_SCALES):
        raise StudyError(
            f"{model.config.model_type}: expected logits = head(hidden states), found a scaled or capped head"
        )


@torch.inference_mode()
def score(
    model: Any,
    items: Sequence[Item],
    token_budget: int,
    precision: str,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[np.ndarray]]:
    """Log-probabilities of every item's answers: for each item one float32 array per answer, nats per token.

    An item whose answers are all empty is not read.
    """
    check_head(model)
    model.eval()
    scored = [[np.empty(0, dtype=np.float32) for _ in item.responses] for item in items]
    told = [i for i, item in enumerate(items) if any(map(len, item.responses))]
    done = len(items) - len(told)
    for together in micro_batches([item.lengths for item in items], told, token_budget):
        batch = lay_out([items[i] for i in together], pad=0).to(model.device)
        with autocast(model.device, precision):
            flat = token_logprobs(model, batch).float().cpu()
        answers = iter(flat.split(batch.counts))
        for i in together:
            scored[i] = [next(answers).numpy().copy() for _ in items[i].responses]
        done += len(together)
        progress(done)
    return scored
