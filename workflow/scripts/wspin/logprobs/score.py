"""Scores packed items with a model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from wspin.engine.batches import micro_batches
from wspin.engine.logprobs import autocast, token_logprobs
from wspin.engine.packing import Item, pack
from wspin.engine.support import check_model


@torch.inference_mode()
def score_items(
    model: Any, items: Sequence[Item], token_budget: int, precision: str, progress: Callable[[int], Any] | None = None
) -> list[list[np.ndarray]]:
    """For every item one float32 array per answer, nats per token. `progress` gets the number of items done."""
    check_model(model)
    model.eval()
    scores = [[np.empty(0, dtype=np.float32) for _ in item.responses] for item in items]
    nonempty = [i for i, item in enumerate(items) if any(map(len, item.responses))]
    done = len(items) - len(nonempty)
    for indices in micro_batches([item.lengths for item in items], nonempty, token_budget):
        batch = pack([items[i] for i in indices]).to(model.device)
        with autocast(model.device, precision):
            logprobs = token_logprobs(model, batch).float().cpu()
        answers = iter(logprobs.split(batch.counts))
        for i in indices:
            scores[i] = [next(answers).numpy().copy() for _ in items[i].responses]
        done += len(indices)
        if progress:
            progress(done)
    return scores
