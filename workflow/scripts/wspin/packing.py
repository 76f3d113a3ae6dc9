"""Plans batches and lays conversations out as tensors: one half of the seam behind which speed lives.

Callers know items (a prompt with its answers), steps and micro-batches; how an item becomes rows of a tensor is decided
here and in `logprobs.token_logprobs`. Per-token values go in and out as one flat vector: all answers' tokens, item by
item, answer by answer. A plan depends on lengths and seed alone, never on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LAYOUT = "padded"  # how items become rows; scoring and training must agree

Lengths = tuple[int, ...]  # tokens of the prompt, then of each answer
MicroBatch = list[int]  # indices of items
Step = list[MicroBatch]


@dataclass(frozen=True)
class Item:
    """A prompt and the answers to it, as ids; with the reference's log-probabilities and token weights where given."""

    prompt: np.ndarray
    responses: tuple[np.ndarray, ...]
    reference: tuple[np.ndarray, ...] = ()
    weights: tuple[np.ndarray, ...] = ()

    @property
    def lengths(self) -> Lengths:
        return (len(self.prompt), *(len(response) for response in self.responses))


@dataclass(frozen=True)
class Batch:
    """Items as tensors. R answers with T tokens together, in rows of width W.

    input_ids (R, W) int64, padded on the right; rows, positions (T,): where the hidden state lies that predicts each
    answer token; targets (T,): the token; counts: tokens of each answer; reference, weights (T,) float32 or None.
    """

    input_ids: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    counts: list[int]
    reference: torch.Tensor | None
    weights: torch.Tensor | None

    def to(self, device: torch.device) -> Batch:
        tensors = {name: value for name, value in vars(self).items() if name != "counts"}
        moved = {name: None if value is None else value.to(device) for name, value in tensors.items()}
        return Batch(counts=self.counts, **moved)


def plan(
    lengths: Sequence[Lengths], seed: Sequence[int], global_batch: int, token_budget: int, epochs: int = 1
) -> list[Step]:
    """Optimiser steps over all items, `epochs` times, in an order drawn from the seed.

    Every step has exactly `global_batch` items, but for the last of an epoch, which has the rest: each item is used
    once per epoch. Within a step, items of like length share a micro-batch of at most `token_budget` tokens.
    """
    steps = []
    for epoch in range(epochs):
        order = np.random.default_rng([*seed, epoch]).permutation(len(lengths)).tolist()
        for first in range(0, len(order), global_batch):
            steps.append(micro_batches(lengths, order[first : first + global_batch], token_budget))
    return steps


def micro_batches(lengths: Sequence[Lengths], items: Sequence[int], token_budget: int) -> Step:
    """Split items into batches of at most `token_budget` tokens, padding included, the longest first.

    A single item that is longer makes a batch of its own.
    """
    batches: Step = []
    rows = width = 0
    for index in sorted(items, key=lambda i: (-_width(lengths[i]), i)):
        rows += len(lengths[index]) - 1
        if not batches or rows * width > token_budget:
            batches.append([])
            rows, width = len(lengths[index]) - 1, _width(lengths[index])
        batches[-1].append(index)
    return batches


def _width(lengths: Lengths) -> int:
    """Tokens of an item's longest row."""
    return lengths[0] + max(lengths[1:])


def lay_out(items: Sequence[Item], pad: int) -> Batch:
    """One row per answer: prompt, answer, padding. Which id pads is of no consequence, lengths decide."""
    import torch

    sequences = [(item.prompt, response) for item in items for response in item.responses]
    input_ids = np.full((len(sequences), max(len(p) + len(r) for p, r in sequences)), pad, dtype=np.int64)
    for row, (prompt, response) in enumerate(sequences):
        input_ids[row, : len(prompt)] = prompt
        input_ids[row, len(prompt) : len(prompt) + len(response)] = response
    counts = [len(response) for _, response in sequences]
    positions = np.concatenate([np.arange(len(p) - 1, len(p) + len(r) - 1) for p, r in sequences])

    def flat(parts: Iterable[tuple[np.ndarray, ...]]) -> torch.Tensor | None:
        values = [one for part in parts for one in part]
        return torch.from_numpy(np.concatenate(values).astype(np.float32)) if values else None

    return Batch(
        input_ids=torch.from_numpy(input_ids),
        rows=torch.from_numpy(np.repeat(np.arange(len(sequences)), counts)),
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(np.concatenate([r for _, r in sequences]).astype(np.int64)),
        counts=counts,
        reference=flat(item.reference for item in items),
        weights=flat(item.weights for item in items),
    )
