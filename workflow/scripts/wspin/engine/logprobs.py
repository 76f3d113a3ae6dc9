"""Log-probabilities of a batch's answer tokens, and the forward pass that training differentiates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .attention import shared_prefix
from .head import head_logprobs, head_scores, token_divergences
from .packing import Batch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The one precision of matrix products, `logprobs.autocast`, for scoring and training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each answer token given all tokens before it: (A,) float32, in nats."""
    return head_logprobs(model, answer_states(model, batch), batch.targets)


@torch.inference_mode()
def continuation_logprobs(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """`token_logprobs` (A,), and whether each of these tokens is the most probable one: (A,) bool.

    Tokens that follow one context in several continuations take its logits once.
    """
    places, rows = batch.predictors.unique(return_inverse=True)
    return head_scores(model, answer_states(model, replace(batch, predictors=places)), rows, batch.targets)


@contextmanager
def patched_forward(model: Any) -> Iterator[None]:
    """Within, a call of the model is a `_training_pass`, since DDP and FSDP2 wrap the call of a module."""
    model.forward = partial(_training_pass, model)
    try:
        yield
    finally:
        del model.forward


def _training_pass(
    model: Any, batch: Batch, divergence: Callable[[Tensor, Tensor], Tensor] | None, reference_model: Any = None
) -> tuple[Tensor, Tensor | None]:
    """`token_logprobs` (A,), and each token's divergence (A,) from the reference model if there is one."""
    states = answer_states(model, batch)
    logprobs = head_logprobs(model, states, batch.targets)
    if reference_model is None:
        return logprobs, None
    with torch.no_grad():
        reference_states = answer_states(reference_model, batch)
    return logprobs, token_divergences(divergence, model, states, reference_model, reference_states)


def answer_states(model: Any, batch: Batch) -> Tensor:
    """Hidden states that predict the answer tokens: (A, width)."""
    with shared_prefix(model):
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "layout": batch.layout}
        return model.base_model(**inputs, use_cache=False).last_hidden_state[0, batch.predictors]
