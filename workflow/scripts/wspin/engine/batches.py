"""Batch planning: optimiser steps, shares of processes, micro-batches within a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .packing import Lengths

Step = list[int]  # indices of items


def plan(count: int, seed: Sequence[int], per_step: int, epochs: int = 1) -> list[Step]:
    """Optimiser steps over `count` items, `epochs` times, in an order drawn from the seed.

    Every step has exactly `per_step` items, but for the last of an epoch, which has the rest: each item is used once
    per epoch.
    """
    steps = []
    for epoch in range(epochs):
        order = np.random.default_rng([*seed, epoch]).permutation(count).tolist()
        steps += [order[first : first + per_step] for first in range(0, count, per_step)]
    return steps


def shares(lengths: Sequence[Lengths], items: Sequence[int], ranks: int) -> list[list[int]]:
    """Split a step's items over `ranks` processes, balanced by tokens: the longest first, to whom has the least."""
    parts: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for index in _longest_first(lengths, items):
        rank = tokens.index(min(tokens))
        parts[rank].append(index)
        tokens[rank] += sum(lengths[index])
    return parts


def rank_passes(
    lengths: Sequence[Lengths], step: Step, ranks: int, rank: int, token_budget: int, alike: bool = False
) -> list[tuple[list[int], bool]]:
    """Micro-batches of one process's share of a step, and whether they count.

    Every process has one at least, as many as any other where `alike`: who has no more work reads the step's shortest
    item, which does not count, because the others wait for it.
    """
    parts = [micro_batches(lengths, part, token_budget) for part in shares(lengths, step, ranks)]
    passes = max(map(len, parts)) if alike else max(1, len(parts[rank]))
    shortest = min(step, key=lambda i: (sum(lengths[i]), i))
    idle = [([shortest], False)] * (passes - len(parts[rank]))
    return [*((batch, True) for batch in parts[rank]), *idle]


def micro_batches(lengths: Sequence[Lengths], items: Sequence[int], token_budget: int) -> list[list[int]]:
    """Split items into batches of at most `token_budget` tokens, the longest first: items of like length meet.

    A single item that is longer makes a batch of its own.
    """
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
