"""Per-token log-probabilities of answers: the other half of the seam behind which speed lives.

Scoring and training call `token_logprobs` on the same layouts, with the same weights and under the same precision, so
that a policy and its stored reference differ by rounding only. Logits of a large vocabulary are the largest tensor of
all: they exist for the positions that predict an answer token only, and a chunk of these at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from wspin.attention import shared_prefix
from wspin.errors import StudyError
from wspin.packing import Batch, Item, lay_out, micro_batches

CHUNK = 2**20  # logits at a time, that a processor's cache holds them;
ROWS = {"cpu": 128, "cuda": 1024}  # but at least so many rows, for whose sake the whole head is read
KEPT = 2**26  # probabilities that wait for the backward pass; more than these are computed again

# What Gemma 2, Cohere, Granite and Falcon-H1 do to their logits.
HEAD_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
ATTENTION_TYPES = {"full_attention", "sliding_attention"}
BATCH_ROTARY = {"dynamic", "longrope"}  # scaled by the longest text of a batch: company would change an answer


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The one precision of matrix products, `logprobs.autocast`, for scoring and training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each answer token given all before it: (A,) float32, in nats."""
    return head_logprobs(model, answer_states(model, batch), batch.targets)


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Within, a call of the model on a batch is a pass of training, see `_answers`.

    What makes several processes train one model (DDP, FSDP2) is wound around a module's call and sees nothing else.
    """
    model.forward = partial(_answers, model)
    try:
        yield
    finally:
        del model.forward


def _answers(
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


def head_logprobs(model: Any, states: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities (A,) of `targets` (A,) from hidden states (A, width), in float32 or wider."""
    head, dtype = model.get_output_embeddings(), _product_dtype(states)
    keep = torch.is_grad_enabled() and len(states) * len(head.weight) <= KEPT
    return _Chosen.apply(states.to(dtype), head.weight, head.bias, targets, dtype, keep)


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


class _Chosen(torch.autograd.Function):
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


def check_model(model: Any) -> None:
    """Refuse models whose log-probabilities this layout cannot compute. Raises `StudyError`.

    Logits must be hidden states times head, and attention must be causal and reached by transformers' interface: two
    short answers to one prompt, read together, must have the log-probabilities that the model gives to each alone.
    """
    config = model.config.get_text_config()
    name = config.model_type
    if any(getattr(config, scale, None) not in (None, 1.0) for scale in HEAD_SCALES):
        raise StudyError(f"{name}: expected logits = head(hidden states), found a scaled or capped head")
    strange = set(getattr(config, "layer_types", None) or ()) - ATTENTION_TYPES
    if strange:
        raise StudyError(
            f"{name}: expected attention over a row of tokens, found layers of {', '.join(sorted(strange))}"
        )
    rotary = getattr(config, "rope_parameters", None) or {}  # of all layers, or by their types
    kinds = {one.get("rope_type") for one in (rotary, *rotary.values()) if isinstance(one, dict)} & BATCH_ROTARY
    if kinds:
        raise StudyError(f"{name}: expected rotary positions of their own, found those of type {', '.join(kinds)}")
    item = Item(*_example(config.vocab_size))
    batch = lay_out([item]).to(model.device)
    with torch.no_grad():
        found, alone = token_logprobs(model, batch), _alone(model, item)
    if not torch.allclose(found, alone, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise StudyError(
            f"{name}: expected answers with a shared prompt to read as each alone, found log-probabilities that differ "
            f"by {(found - alone).abs().max():.2g} nat; this architecture is not supported"
        )


def _example(vocabulary: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    ids = (np.arange(12) * 7 + 3) % vocabulary
    return ids[:3], (ids[3:7], ids[7:])


def _alone(model: Any, item: Item) -> Tensor:
    found = []
    for response in item.responses:
        ids = torch.from_numpy(np.concatenate([item.prompt, response])).to(model.device)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, len(item.prompt) - 1 : -1]
        found.append(logits.float().log_softmax(-1).gather(1, ids[len(item.prompt) :, None])[:, 0])
    return torch.cat(found)


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
    check_model(model)
    model.eval()
    scored = [[np.empty(0, dtype=np.float32) for _ in item.responses] for item in items]
    told = [i for i, item in enumerate(items) if any(map(len, item.responses))]
    done = len(items) - len(told)
    for together in micro_batches([item.lengths for item in items], told, token_budget):
        batch = lay_out([items[i] for i in together]).to(model.device)
        with autocast(model.device, precision):
            flat = token_logprobs(model, batch).float().cpu()
        answers = iter(flat.split(batch.counts))
        for i in together:
            scored[i] = [next(answers).numpy().copy() for _ in items[i].responses]
        done += len(together)
        progress(done)
    return scored
