"""Attention over packed items that read their prompt once, in any causal model that transformers' interface reaches.

A token attends to itself and to what stands before it in its own conversation: the prompt and its own answer, never
another answer or another item. No model code is changed: transformers calls `_bucketed` or `_flex` in place of its own
attention, and hands them the layout. (A cache would make transformers attend across conversations: callers say
use_cache=False.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from wspin.errors import StudyError

from .layout import PackedLayout

BUCKETED, FLEX = "shared-prefix", "shared-prefix-flex"  # as transformers knows them


def _bucketed(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float | None, **more: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, one call per bucket: (1, heads, N, width) each in, (1, N, heads, width) out."""
    layout, window = _layout_and_window(module, attention_mask, **more)
    found = []
    for bucket, mask in zip(layout.buckets, layout.bucket_masks(window), strict=True):
        q, k, v = _gather(query, bucket.queries), _gather(key, bucket.keys), _gather(value, bucket.keys)
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:  # grouped queries share keys and values
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        found.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
    return embedding(layout.order, torch.cat(found)).view(1, len(layout.order), query.shape[1], -1), None


def _gather(states: Tensor, places: Tensor) -> Tensor:
    """(1, heads, N, width) -> (B, heads, L, width). An embedding is the gather whose gradient is quickest."""
    rows = states[0].transpose(0, 1)
    return embedding(places, rows.flatten(1)).unflatten(-1, rows.shape[1:]).transpose(1, 2)


def _flex(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float | None, **more: Any
) -> tuple[Tensor, None]:
    """The same by FlexAttention, compiled, over the row as it is."""
    from transformers.integrations.flex_attention import flex_attention_forward

    layout, window = _layout_and_window(module, attention_mask, **more)
    return flex_attention_forward(module, query, key, value, layout.block_mask(window), scaling=scaling)


def _layout_and_window(
    module: Any,
    attention_mask: None,
    layout: PackedLayout | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[PackedLayout, int | None]:
    """Layout and sliding window of a call. Raises `StudyError` for what a shared prefix does not have."""
    kind = type(module).__name__
    if layout is None:
        raise StudyError(f"{kind}: expected the layout of a packed row, found none; the model does not pass it on")
    config = getattr(module, "config", None)
    types, index = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
    if (
        types is not None
        and index is not None
        and (types[index] == "sliding_attention") != (sliding_window is not None)
    ):
        raise StudyError(f"{kind}: layer {index} is {types[index]}, found sliding window {sliding_window}")
    strange = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if more.get(name) is not None]
    strange += ["dropout"] * (dropout > 0.0) + ["attention_mask"] * (attention_mask is not None)
    if strange:
        raise StudyError(f"{kind}: expected plain causal attention, found {', '.join(strange)}")
    return layout, sliding_window


@contextmanager
def shared_prefix(model: Any) -> Iterator[None]:
    """Within, the model reads packed rows (`layout=` in its call) and nothing else."""
    before = model.config._attn_implementation
    if before in (BUCKETED, FLEX):
        yield
        return
    _register()
    name = FLEX if _flex_works(model.device) else BUCKETED
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        kind = model.config.model_type
        raise StudyError(f"{kind}: expected attention by transformers' interface, found another; not supported")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(BUCKETED, _bucketed)
    AttentionInterface.register(FLEX, _flex)


@cache
def _flex_works(device: torch.device) -> bool:
    """Whether this machine can compile FlexAttention; says so where it has a GPU and cannot."""
    if device.type != "cuda":
        return False  # no backward pass on CPUs
    from torch.nn.attention.flex_attention import flex_attention

    layout = PackedLayout.of([(40, 50, 60)] * 2).to(device)
    states = torch.randn(1, 2, 300, 64, device=device, requires_grad=True)
    try:
        torch.compile(flex_attention)(states, states, states, block_mask=layout.block_mask(None)).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        print(
            f"attention: FlexAttention does not compile here ({type(error).__name__}); using plain kernels", flush=True
        )
        return False
    return True
