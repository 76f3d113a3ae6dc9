"""Batch planning: the items of each optimiser step, each process's share of a step, and its micro-batches.

Steps depend on the number of items and the seed alone, never on the number of processes or the token budget.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .packing import Lengths

Step = list[int]  # indices of items


class Pass(NamedTuple):
    """One forward and backward pass: indices of its items, and whether its gradient counts."""

    items: list[int]
    counted: bool


def plan_steps(count: int, seed: Sequence[int], per_step: int, epochs: int = 1) -> list[Step]:
    """Optimiser steps over `count` items, shuffled anew for each of `epochs` from the seed.

    Every step has `per_step` items, except that the last of an epoch has the remainder: an epoch uses every item once.
    """
    steps = []
    for epoch in range(epochs):
        order = np.random.default_rng([*seed, epoch]).permutation(count).tolist()
        steps += [order[first : first + per_step] for first in range(0, count, per_step)]
    return steps


def rank_shares(lengths: Sequence[Lengths], items: Sequence[int], world_size: int) -> list[list[int]]:
    """Split items over processes, balanced by tokens: greedily, the longest item first."""
    shares: list[list[int]] = [[] for _ in range(world_size)]
    tokens = [0] * world_size
    for index in _longest_first(lengths, items):
        rank = tokens.index(min(tokens))
        shares[rank].append(index)
        tokens[rank] += sum(lengths[index])
    return shares


def rank_passes(
    lengths: Sequence[Lengths], step: Step, world_size: int, rank: int, token_budget: int, equal_count: bool = False
) -> list[Pass]:
    """The passes of one process in a step: the micro-batches of its share, at least one.

    A process without work repeats the step's shortest item, not counted, because the others wait for its gradient.
    With `equal_count` (FSDP) every process has as many passes as the one with the most.
    """
    by_rank = [micro_batches(lengths, share, token_budget) for share in rank_shares(lengths, step, world_size)]
    count = max(map(len, by_rank)) if equal_count else max(1, len(by_rank[rank]))
    shortest = min(step, key=lambda i: (sum(lengths[i]), i))
    idle = [Pass([shortest], counted=False)] * (count - len(by_rank[rank]))
    return [*(Pass(batch, counted=True) for batch in by_rank[rank]), *idle]


def micro_batches(lengths: Sequence[Lengths], items: Sequence[int], token_budget: int) -> list[list[int]]:
    """Batches of at most `token_budget` tokens, the longest items first; a longer item is a batch of its own."""
    batches: list[list[int]] = []
    tokens = 0
    for index in _longest_first(lengths, items):
        tokens += sum(lengths[index])
        if not batches or tokens > token_budget:
            batches.append([])
            tokens = sum(lengths[index])
        batches[-1].append(index)
    return batches


def _longest_first(lengths: Sequence[Lengths], items: Sequence[int]) -> list[int]:
    return sorted(items, key=lambda i: (-sum(lengths[i]), i))
