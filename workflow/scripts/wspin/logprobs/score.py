"""Scores packed items with a model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wspin.engine.batches import micro_batches
from wspin.engine.logprobs import autocast, token_logprobs
from wspin.engine.packing import Item, pack
from wspin.engine.support import check_model
from wspin.errors import StudyError


@torch.inference_mode()
def score_items(
    model: Any,
    items: Sequence[Item],
    token_budget: int,
    precision: str,
    progress: Callable[[int], Any] | None = None,
    ids: Sequence[str] = (),
    shifted: bool = False,
) -> list[list[np.ndarray]]:
    """For every item one float32 array per answer, nats per token. `progress` gets the number of items done.

    `shifted` gives, for every token, the log-probability of the token before it in its place, as SWIFT's released code
    does by its index error: log p(y_{i+1} = y_i | x, y_<=i) for token i + 1.

    Raises `StudyError` for a model that the engine does not support, and if a log-probability is not finite: with the
    first item of a batch, by its prompt's id in `ids` if they are given.
    """
    check_model(model)
    model.eval()
    scores = [[np.empty(0, dtype=np.float32) for _ in item.responses] for item in items]
    nonempty = [i for i, item in enumerate(items) if any(map(len, item.responses))]
    done = len(items) - len(nonempty)
    for indices in micro_batches([item.lengths for item in items], nonempty, token_budget):
        batch = pack([items[i] for i in indices]).to(model.device)
        if shifted:
            batch = replace(batch, targets=batch.input_ids[0, batch.predictors])
        with autocast(model.device, precision):
            logprobs = token_logprobs(model, batch).float().cpu()
        answers = iter(logprobs.split(batch.counts))
        for i in indices:
            scores[i] = [next(answers).numpy().copy() for _ in items[i].responses]
            _check_finite(model, scores[i], ids[i] if len(ids) else f"item {i}", precision)
        done += len(indices)
        if progress:
            progress(done)
    return scores


def _check_finite(model: Any, answers: Sequence[np.ndarray], prompt_id: str, precision: str) -> None:
    logprobs = np.concatenate(answers)
    if not np.isfinite(logprobs).all():
        found = f"expected finite log-probabilities, found {logprobs[~np.isfinite(logprobs)][0]}"
        remedy = f"look for NaN among the model's weights, or for an overflow in {precision} (logprobs.autocast)"
        raise StudyError(f"{model.name_or_path}: {prompt_id}: {found}; {remedy}")
