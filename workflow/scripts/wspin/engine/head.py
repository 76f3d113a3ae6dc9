"""Log-probabilities from hidden states, a chunk of rows at a time: all logits never exist together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK = 2**20  # logits at a time, that a processor's cache holds them;
ROWS = {"cpu": 128, "cuda": 1024}  # but at least so many rows, for whose sake the whole head is read
KEPT = 2**26  # probabilities that wait for the backward pass; more than these are computed again


def head_logprobs(model: Any, states: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities (A,) of `targets` (A,) from hidden states (A, width), in float32 or wider."""
    head, dtype = model.get_output_embeddings(), _product_dtype(states)
    keep = torch.is_grad_enabled() and len(states) * len(head.weight) <= KEPT
    return ChunkedTokenLogprobs.apply(states.to(dtype), head.weight, head.bias, targets, dtype, keep)


def token_divergences(
    divergence: Callable[[Tensor, Tensor], Tensor], model: Any, states: Tensor, other: Any, other_states: Tensor
) -> Tensor:
    """`divergence` (rows,) of the logits (rows, V) of two models for each of their hidden states: (A,).

    A chunk of rows at a time, computed again in the backward pass.
    """
    heads = model.get_output_embeddings(), other.get_output_embeddings()

    def chunk(*parts: Tensor) -> Tensor:
        weights = [(part.to(dtype), head.weight.to(dtype), head.bias) for part, head in zip(parts, heads, strict=True)]
        return divergence(*(_product(*one) for one in weights))

    dtype, rows = _product_dtype(states), _rows(heads[0].weight)
    with torch.autocast(states.device.type, enabled=False):
        parts = zip(states.split(rows), other_states.split(rows), strict=True)
        found = [checkpoint(chunk, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(found)


class ChunkedTokenLogprobs(torch.autograd.Function):
    """log softmax(states @ weight.T + bias)[target] per row, without ever holding all logits.

    Its gradient with respect to the logits is (one-hot - softmax) times the row's own: a chunk at a time, from kept
    probabilities or from logits that are computed again. Products have the type `dtype`, as under autocast; what
    follows them is in float32 or wider, and chunks of the head's gradient add up in the type of its weight, which the
    study keeps in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype, keep: bool
    ) -> Tensor:
        cast, found, sums, kept = weight.to(dtype), [], [], []
        for rows in _chunks(states, weight):
            logits = _product(states[rows], cast, bias)
            logits -= logits.amax(1, keepdim=True)
            chosen = logits.gather(1, targets[rows, None])
            sums.append(logits.exp_().sum(1, keepdim=True))
            found.append((chosen - sums[-1].log())[:, 0])
            if keep:
                kept.append(logits.div_(sums[-1]))
        ctx.kept, ctx.dtype = kept, dtype
        ctx.save_for_backward(states, weight, bias, targets)
        return torch.cat(found) if found else _wide(states.new_zeros(0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets = ctx.saved_tensors
        cast, of_states = weight.to(ctx.dtype), torch.empty_like(states)
        kept, ctx.kept = iter(ctx.kept), []  # used up below: a second backward pass computes them again
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for rows in _chunks(states, weight):
            own, found = gradient[rows, None], next(kept, None)
            found = _softmax(_product(states[rows], cast, bias)) if found is None else found
            found.mul_(-own).scatter_add_(1, targets[rows, None], own)  # now the gradient of the logits
            if of_bias is not None:
                of_bias += found.sum(0)
            found = found.to(ctx.dtype)
            of_states[rows] = found @ cast
            if of_weight is not None:
                _add_product(of_weight, found.T, states[rows])
        return of_states, of_weight, of_bias, None, None, None


def _softmax(logits: Tensor) -> Tensor:
    """In place."""
    logits -= logits.amax(1, keepdim=True)
    return logits.exp_().div_(logits.sum(1, keepdim=True))


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits (rows, V) of states and weight of one type, in float32 or wider."""
    return _wide(linear(states, weight, None if bias is None else bias.to(weight.dtype)))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in the type of the total."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _product_dtype(states: Tensor) -> torch.dtype:
    """Type of matrix products where these states are: autocast's, or their own."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _rows(weight: Tensor) -> int:
    return max(ROWS["cpu" if weight.device.type == "cpu" else "cuda"], CHUNK // len(weight))


def _chunks(states: Tensor, weight: Tensor) -> Iterator[slice]:
    rows = _rows(weight)
    return (slice(first, first + rows) for first in range(0, len(states), rows))
