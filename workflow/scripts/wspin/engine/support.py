"""Which models the shared-prefix engine supports; all others are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wspin.errors import StudyError

from .attention import Unsupported
from .logprobs import token_logprobs
from .packing import Item, pack

# Scales and caps of logits: Gemma 2, Cohere, Granite, Falcon-H1.
HEAD_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
ATTENTION_TYPES = {"full_attention", "sliding_attention"}
SHORT_WINDOW = 3  # tokens; the answers of the test reach beyond it
BATCH_ROTARY = {"dynamic", "longrope"}  # scaled by a batch's longest text: results would depend on the other texts


def check_model(model: Any) -> None:
    """Raise `Unsupported` for a model whose log-probabilities the engine cannot compute, `StudyError` for NaN in them.

    Logits must be head(hidden states), and attention must be causal and dispatched by transformers' attention
    interface. As a test, two short answers packed after one prompt must have the log-probabilities of each alone, with
    a sliding window shorter than they are if the model has one, and in float32 whatever the weights are stored in.
    """
    config = model.config.get_text_config()
    name = config.model_type
    _check_config(name, config)
    ids = (np.arange(12) * 7 + 3) % config.vocab_size
    item = Item(ids[:3], (ids[3:7], ids[7:]))
    with torch.no_grad(), _float32_calls(model), _short_window(model, config) as window:
        packed, separate = token_logprobs(model, pack([item]).to(model.device)), _separate_logprobs(model, item)
    if packed.isnan().any() or separate.isnan().any():
        remedy = "look for NaN among its weights, or for an overflow"
        raise StudyError(f"{model.name_or_path or name}: expected finite log-probabilities, found nan; {remedy}")
    if not torch.allclose(packed, separate, rtol=1e-3, atol=1e-3):
        difference = f"{(packed - separate).abs().max():.2g} nat{f' with a sliding window of {window}' * bool(window)}"
        found = f"found a difference of {difference}; this architecture is not supported"
        raise Unsupported(f"{name}: expected packed answers to have the log-probabilities of separate ones, {found}")


@contextmanager
def _float32_calls(model: Any) -> Iterator[None]:
    """Within, weights of a shorter type are float32 while their module computes, one module at a time.

    Products in bfloat16 differ by half a nat or more from one kernel to another, as much as wrong ones do.
    """
    short = {weight: weight.dtype for weight in model.parameters() if weight.dtype in (torch.bfloat16, torch.float16)}
    owners = [module for module in model.modules() if any(w in short for w in module.parameters(recurse=False))]

    def lengthen(module: Any, *_: Any) -> None:
        for weight in filter(short.__contains__, module.parameters(recurse=False)):
            weight.data = weight.data.float()

    def shorten(module: Any, *_: Any) -> None:
        for weight in filter(short.__contains__, module.parameters(recurse=False)):
            weight.data = weight.data.to(short[weight])  # the bits it had

    hooks = [module.register_forward_pre_hook(lengthen) for module in owners]
    hooks += [module.register_forward_hook(shorten, always_call=True) for module in owners]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _short_window(model: Any, config: Any) -> Iterator[int | None]:
    """Within, the model's sliding window is short, in its masks and where its attention keeps it; yields the window.

    So the test sees a window that only the masks have, which packed attention does not get. With `layer_types` every
    call of the attention is checked, see `attention`.
    """
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "layer_types", None):
        yield None
        return
    owners = [config, *(part for part in model.modules() if getattr(part, "sliding_window", None) == window)]
    for owner in owners:
        owner.sliding_window = min(window, SHORT_WINDOW)
    try:
        yield config.sliding_window
    finally:
        for owner in owners:
            owner.sliding_window = window


def _check_config(name: str, config: Any) -> None:
    if any(getattr(config, scale, None) not in (None, 1.0) for scale in HEAD_SCALES):
        raise Unsupported(f"{name}: expected logits = head(hidden states), found a scaled or capped head")
    unsupported = set(getattr(config, "layer_types", None) or ()) - ATTENTION_TYPES
    if unsupported:
        raise Unsupported(f"{name}: expected attention layers, found {', '.join(sorted(unsupported))}")
    rotary = getattr(config, "rope_parameters", None) or {}  # one dict for all layers, or one for each type of layer
    settings = [entry for entry in (rotary, *rotary.values()) if isinstance(entry, dict)]
    batch_scaled = {entry.get("rope_type") for entry in settings} & BATCH_ROTARY
    if batch_scaled:
        types = ", ".join(batch_scaled)
        raise Unsupported(f"{name}: expected rotary positions that do not depend on the batch, found type {types}")


def _separate_logprobs(model: Any, item: Item) -> Tensor:
    """The model's own log-probabilities of each answer, in a forward pass of its own: (A,)."""
    logprobs = []
    for response in item.responses:
        ids = torch.from_numpy(np.concatenate([item.prompt, response])).to(model.device)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, len(item.prompt) - 1 : -1]
        logprobs.append(logits.float().log_softmax(-1).gather(1, ids[len(item.prompt) :, None])[:, 0])
    return torch.cat(logprobs)
