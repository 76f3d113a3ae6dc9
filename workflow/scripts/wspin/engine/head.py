"""Log-probabilities from hidden states, a chunk of rows at a time: the whole matrix of logits never exists."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 2**20  # logits of a chunk, which fit into a CPU's cache,
MIN_ROWS = {"cpu": 128, "cuda": 1024}  # but at least this many rows: each chunk loads the whole weight of the head
MAX_KEPT = 2**26  # probabilities kept for the backward pass; beyond that they are recomputed


def head_logprobs(model: Any, states: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities (A,) of `targets` (A,) from hidden states (A, width), in float32 or wider."""
    head, dtype = model.get_output_embeddings(), product_dtype(states)
    keep = torch.is_grad_enabled() and len(states) * len(head.weight) <= MAX_KEPT
    return ChunkedTokenLogprobs.apply(states.to(dtype), head.weight, head.bias, targets, dtype, keep)


def head_scores(model: Any, states: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probability, whether it is the greedy choice) of each of `targets` (A,) after the state `rows` (A,) names.

    states (S, width), rows (A,) indices into them. In float32 or wider, without gradients.
    """
    head, dtype = model.get_output_embeddings(), product_dtype(states)
    weight, size = head.weight.to(dtype), _chunk_rows(head.weight)
    logprobs = torch.empty(len(targets), dtype=torch.promote_types(dtype, torch.float32), device=states.device)
    likeliest = torch.empty(len(targets), dtype=torch.bool, device=states.device)
    for first in range(0, len(states), size):
        logits = _product(states[first : first + size].to(dtype), weight, head.bias)
        within = ((rows >= first) & (rows < first + size)).nonzero()[:, 0]
        row, target = rows[within] - first, targets[within]
        logprobs[within] = logits[row, target] - logits.logsumexp(1)[row]
        likeliest[within] = logits.argmax(1)[row] == target
    return logprobs, likeliest


def token_divergences(
    divergence: Callable[[Tensor, Tensor], Tensor], model: Any, states: Tensor, other: Any, other_states: Tensor
) -> Tensor:
    """`divergence` (rows,) between the logits (rows, V) of two models, from their hidden states (A, width): (A,)."""
    heads = model.get_output_embeddings(), other.get_output_embeddings()
    dtype, rows = product_dtype(states), _chunk_rows(heads[0].weight)

    def of_chunk(*chunks: Tensor) -> Tensor:
        weights = [(head.weight.to(dtype), head.bias) for head in heads]
        logits = (_product(chunk.to(dtype), *weight) for chunk, weight in zip(chunks, weights, strict=True))
        return divergence(*logits)

    with torch.autocast(states.device.type, enabled=False):
        chunks = zip(states.split(rows), other_states.split(rows), strict=True)
        options = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(of_chunk, *chunk, **options) for chunk in chunks])


class ChunkedTokenLogprobs(torch.autograd.Function):
    """log softmax(states @ weight.T + bias)[target] per row, without ever holding all logits.

    The gradient with respect to a row's logits is (one-hot - softmax) times the row's incoming gradient, computed chunk
    by chunk from kept probabilities or from recomputed logits. Products have the type `dtype`, as under autocast;
    everything after them is float32 or wider, and the head's gradient accumulates in the type of its weight, float32
    throughout the study.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype, keep: bool
    ) -> Tensor:
        cast, logprobs, kept = weight.to(dtype), [], []
        rows = _chunk_rows(weight)
        for chunk, chunk_targets in zip(states.split(rows), targets.split(rows), strict=True):
            logits = _product(chunk, cast, bias)
            logits -= logits.amax(1, keepdim=True)
            target_logits = logits.gather(1, chunk_targets[:, None])
            sums = logits.exp_().sum(1, keepdim=True)
            logprobs.append((target_logits - sums.log())[:, 0])
            if keep:
                kept.append(logits.div_(sums))
        ctx.kept, ctx.dtype = kept, dtype
        ctx.save_for_backward(states, weight, bias, targets)
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets = ctx.saved_tensors
        cast, grad_states = weight.to(ctx.dtype), torch.empty_like(states)
        kept, ctx.kept = iter(ctx.kept), []  # overwritten below: a second backward pass recomputes them
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        size = _chunk_rows(weight)
        for rows in (slice(first, first + size) for first in range(0, len(states), size)):
            scale, grad_logits = gradient[rows, None], next(kept, None)
            if grad_logits is None:
                grad_logits = _product(states[rows], cast, bias)
                grad_logits -= grad_logits.amax(1, keepdim=True)
                grad_logits.exp_().div_(grad_logits.sum(1, keepdim=True))
            grad_logits.mul_(-scale).scatter_add_(1, targets[rows, None], scale)  # in place of the probabilities
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(ctx.dtype)
            grad_states[rows] = grad_logits @ cast
            if grad_weight is not None and grad_weight.dtype == ctx.dtype:
                grad_weight.addmm_(grad_logits.T, states[rows])
            elif grad_weight is not None:
                grad_weight += grad_logits.T @ states[rows]
        return grad_states, grad_weight, grad_bias, None, None, None


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits (rows, V) of states and weight of one type, in float32 or wider."""
    logits = linear(states, weight, None if bias is None else bias.to(weight.dtype))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def product_dtype(states: Tensor) -> torch.dtype:
    """Type of matrix products: autocast's where it is on, or else that of the states."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _chunk_rows(weight: Tensor) -> int:
    return max(MIN_ROWS["cpu" if weight.device.type == "cpu" else "cuda"], CHUNK_LOGITS // len(weight))
