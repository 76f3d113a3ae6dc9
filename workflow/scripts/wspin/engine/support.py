"""Which models the shared-prefix engine can read; all others are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wspin.errors import StudyError

from .logprobs import token_logprobs
from .packing import Item, lay_out

# What Gemma 2, Cohere, Granite and Falcon-H1 do to their logits.
HEAD_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
ATTENTION_TYPES = {"full_attention", "sliding_attention"}
BATCH_ROTARY = {"dynamic", "longrope"}  # scaled by the longest text of a batch: company would change an answer


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
