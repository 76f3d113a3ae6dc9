"""Attention over packed items, in any causal model that supports transformers' attention interface.

A token attends to itself and to what stands before it in its own conversation: the prompt and its own answer, never
another answer or another item. No model code changes: transformers dispatches to `_bucketed_attention` or
`_flex_attention` instead of its own, and passes the layout on. (Callers set use_cache=False: with a cache transformers
would build a mask that joins the conversations.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward

from wspin.errors import StudyError

from .head import product_dtype
from .layout import PackedLayout

BUCKETED, FLEX = "shared-prefix", "shared-prefix-flex"  # names registered with transformers
RECOMPILATIONS = 32  # of FlexAttention in a process: for precisions, with and without gradients, rows of one block


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
    # Rotary positions leave queries and keys in float32 under autocast, which not every version of torch takes then.
    states = [part.to(product_dtype(part)) for part in (query, key, value)]
    return flex_attention_forward(module, *states, layout.block_mask(window), scaling=scaling)


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
    name = FLEX if model.device.type == "cuda" and _flex_compiles(model.device, *_head_shape(model)) else BUCKETED
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        kind, found = model.config.model_type, "found the model's own; not supported"
        raise Unsupported(f"{kind}: expected attention by transformers' interface, {found}")
    try:
        yield
    finally:
        model.set_attn_implementation(previous)


def _head_shape(model: Any) -> tuple[int, int, int]:
    """(query heads, key heads, width of a head)"""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, getattr(config, "num_key_value_heads", None) or heads, width


@cache
def _flex_compiles(device: torch.device, heads: int, key_heads: int, width: int) -> bool:
    """Whether FlexAttention compiles on this device, backward pass included; prints a line where it does not."""
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # torch would compute all scores at once, without a word
    try:
        # The first call of a job is one of `check_model`, without gradients.
        with torch.inference_mode(False), torch.enable_grad():
            layout = PackedLayout.of([(40, 50, 60)] * 2).to(device)
            counts = (heads, key_heads, key_heads)
            states = [torch.randn(1, n, 300, width, device=device, requires_grad=True) for n in counts]
            output, _ = _flex_attention(SimpleNamespace(training=True), *states, None, None, layout=layout)
            output.sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = type(error).__name__
        print(f"attention: FlexAttention does not compile here ({reason}); using plain kernels", flush=True)
        return False
    return True
