"""Attention over packed items, in any causal model that supports transformers' attention interface.

A token attends to itself and to what stands before it in its own conversation: the prompt and its own answer, never
another answer or another item. No model code changes: transformers dispatches to `_bucketed_attention` or
`_flex_attention` instead of its own, and passes the layout on. (Callers set use_cache=False: with a cache transformers
would build a mask that joins the conversations.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward

from wspin.errors import StudyError

from .layout import PackedLayout

BUCKETED, FLEX = "shared-prefix", "shared-prefix-flex"  # names registered with transformers


class Unsupported(StudyError):
    """The engine cannot compute this model's log-probabilities; the model itself may be sound."""


def _bucketed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float | None, **more: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, one call per bucket: (1, heads, N, width) each in, (1, N, heads, width) out."""
    layout, window = _layout_and_window(module, attention_mask, **more)
    outputs = []
    for bucket, mask in zip(layout.buckets, layout.bucket_masks(window), strict=True):
        q, k, v = _gather(query, bucket.queries), _gather(key, bucket.keys), _gather(value, bucket.keys)
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:  # grouped queries share keys and values
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
    output = embedding(layout.output_index, torch.cat(outputs))
    return output.view(1, len(output), query.shape[1], -1), None


def _gather(states: Tensor, places: Tensor) -> Tensor:
    """(1, heads, N, width) -> (B, heads, L, width). Of all gathers, an embedding has the fastest backward pass."""
    rows = states[0].transpose(0, 1)
    return embedding(places, rows.flatten(1)).unflatten(-1, rows.shape[1:]).transpose(1, 2)


def _flex_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float | None, **more: Any
) -> tuple[Tensor, None]:
    """The same by compiled FlexAttention, over the whole row."""
    layout, window = _layout_and_window(module, attention_mask, **more)
    return flex_attention_forward(module, query, key, value, layout.block_mask(window), scaling=scaling)


def _layout_and_window(
    module: Any, attention_mask: Any, layout: PackedLayout | None = None, sliding_window: int | None = None, **more: Any
) -> tuple[PackedLayout, int | None]:
    """Layout and sliding window of a call. Raises `Unsupported` for any attention the engine does not implement."""
    kind = type(module).__name__
    if layout is None:
        raise Unsupported(f"{kind}: expected the layout of a packed row, found none; the model does not pass it on")
    config = getattr(module, "config", None)
    types, index = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
    layer_type = None if types is None or index is None else types[index]
    if layer_type and (layer_type == "sliding_attention") != (sliding_window is not None):
        expected = f"expected {layer_type} as in layer_types"
        raise Unsupported(f"{kind}: layer {index}: {expected}, found sliding window {sliding_window}")
    unsupported = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if more.get(name) is not None]
    unsupported += ["dropout"] * (more.get("dropout", 0.0) > 0.0) + ["attention_mask"] * (attention_mask is not None)
    if unsupported:
        raise Unsupported(f"{kind}: expected plain causal attention, found {', '.join(unsupported)}")
    return layout, sliding_window


AttentionInterface.register(BUCKETED, _bucketed_attention)
AttentionInterface.register(FLEX, _flex_attention)


@contextmanager
def shared_prefix(model: Any) -> Iterator[None]:
    """Within, the model expects packed rows (`layout=` in its call). Raises `Unsupported` for other attention code."""
    previous = model.config._attn_implementation
    if previous in (BUCKETED, FLEX):
        yield
        return
    name = FLEX if _flex_compiles(model.device) else BUCKETED
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        kind, found = model.config.model_type, "found the model's own; not supported"
        raise Unsupported(f"{kind}: expected attention by transformers' interface, {found}")
    try:
        yield
    finally:
        model.set_attn_implementation(previous)


@cache
def _flex_compiles(device: torch.device) -> bool:
    """Whether FlexAttention compiles on this device; prints a line where it should and does not."""
    if device.type != "cuda":
        return False  # FlexAttention has no backward pass on CPUs
    layout = PackedLayout.of([(40, 50, 60)] * 2).to(device)
    states = torch.randn(1, 2, 300, 64, device=device, requires_grad=True)
    try:
        torch.compile(flex_attention)(states, states, states, block_mask=layout.block_mask(None)).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = type(error).__name__
        print(f"attention: FlexAttention does not compile here ({reason}); using plain kernels", flush=True)
        return False
    return True
