"""Stage logprobs: per-token log-probabilities of answers, by the opponent, a teacher or a baseline's start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .attention import shared_prefix
from .head import head_logprobs, token_divergences
from .packing import Batch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The one precision of matrix products, `logprobs.autocast`, for scoring and training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each answer token given all before it: (A,) float32, in nats."""
    return head_logprobs(model, answer_states(model, batch), batch.targets)


@contextmanager
def patched_forward(model: Any) -> Iterator[None]:
    """Within, a call of the model on a batch is a pass of training, see `_answers`.

    What makes several processes train one model (DDP, FSDP2) is wound around a module's call and sees nothing else.
    """
    model.forward = partial(_answer_logprobs, model)
    try:
        yield
    finally:
        del model.forward


def _answer_logprobs(
    model: Any, batch: Batch, divergence: Callable[[Tensor, Tensor], Tensor], other: Any = None
) -> tuple[Tensor, Tensor | None]:
    """`token_logprobs`, and the answers' divergence (A,) from the logits of another model, if there is one."""
    states = answer_states(model, batch)
    logprobs = head_logprobs(model, states, batch.targets)
    if other is None:
        return logprobs, None
    with torch.no_grad():
        theirs = answer_states(other, batch)
    return logprobs, token_divergences(divergence, model, states, other, theirs)


def answer_states(model: Any, batch: Batch) -> Tensor:
    """Hidden states that predict the answers' tokens: (A, width)."""
    with shared_prefix(model):
        read = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "layout": batch.layout}
        return model.base_model(**read, use_cache=False).last_hidden_state[0, batch.states]
