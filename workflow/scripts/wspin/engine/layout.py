"""The layout of a packed row: which tokens attend to which, in buckets of stretches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

PADDED = 1.125  # padding inside a bucket: at most so many times the work of its stretches


class Stretch(NamedTuple):
    """Tokens that attend together, as places in the row: `queries` to the `keys` that do not come after them."""

    queries: np.ndarray
    keys: np.ndarray

    @property
    def area(self) -> int:
        return len(self.queries) * len(self.keys)


@dataclass(frozen=True)
class Bucket:
    """B stretches of like length. queries (B, Q), keys (B, K): places in the row; unseen (B, K): True for padding.

    Padding repeats a stretch's last token: such a query attends to something, and nobody reads what it finds.
    """

    queries: Tensor
    keys: Tensor
    unseen: Tensor
    square: bool  # queries are the keys, so that plain causal attention is right

    @classmethod
    def of(cls, stretches: Sequence[Stretch]) -> Bucket:
        queries, keys = (_padded([getattr(one, part) for one in stretches]) for part in ("queries", "keys"))
        lengths = torch.tensor([len(one.keys) for one in stretches])
        unseen = torch.arange(keys.shape[1]) >= lengths[:, None]
        return cls(queries, keys, unseen, square=all(one.queries is one.keys for one in stretches))

    def to(self, device: torch.device) -> Bucket:
        return Bucket(self.queries.to(device), self.keys.to(device), self.unseen.to(device), self.square)

    def mask(self, positions: Tensor, window: int | None) -> Tensor | None:
        """Who attends to whom, (B, 1, Q, K); None: plain causal attention says it."""
        if self.square and (window is None or window >= self.keys.shape[1]):
            return None
        distance = positions[self.queries][:, :, None] - positions[self.keys][:, None, :]
        seen = (distance >= 0) & ~self.unseen[:, None, :]
        return (seen if window is None else seen & (distance < window))[:, None]


@dataclass(frozen=True)
class PackedLayout:
    """Who may attend to whom in a row of N tokens.

    items, branches, positions (N,): the conversation of each token, its answer counted from 1 (0: the prompt), and its
    place in the text. buckets hold every token once as a query; order (N,) is where their outputs, one behind the
    other, have each token's.
    """

    items: Tensor
    branches: Tensor
    positions: Tensor
    buckets: tuple[Bucket, ...]
    order: Tensor
    masks: dict[Any, Any] = field(default_factory=dict)  # by sliding window; all layers share them

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]]) -> PackedLayout:
        """Layout of items, each given by the tokens of its prompt and of each answer."""
        parts = [(item, branch, n) for item, one in enumerate(lengths) for branch, n in enumerate(one)]
        sizes = [n for *_, n in parts]
        starts = [one[0] if branch else 0 for one in lengths for branch in range(len(one))]
        positions = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, sizes, strict=True)])
        groups = _groups(_stretches(lengths))
        return cls(
            items=torch.from_numpy(np.repeat([item for item, *_ in parts], sizes)),
            branches=torch.from_numpy(np.repeat([branch for _, branch, _ in parts], sizes)),
            positions=torch.from_numpy(positions),
            buckets=tuple(map(Bucket.of, groups)),
            order=torch.from_numpy(_places(groups, len(positions))),
        )

    def to(self, device: torch.device) -> PackedLayout:
        tensors = (value.to(device) for value in (self.items, self.branches, self.positions))
        return PackedLayout(*tensors, tuple(bucket.to(device) for bucket in self.buckets), self.order.to(device))

    def attends(self, query: Tensor, key: Tensor, window: int | None = None) -> Tensor:
        """The rule itself, for places in the row: what the kernels must compute."""
        distance = self.positions[query] - self.positions[key]
        branch = self.branches[key]
        seen = (distance >= 0) & ((branch == 0) | (branch == self.branches[query]))
        seen = seen & (self.items[query] == self.items[key])
        return seen if window is None else seen & (distance < window)

    def bucket_masks(self, window: int | None) -> list[Tensor | None]:
        if window not in self.masks:
            self.masks[window] = [bucket.mask(self.positions, window) for bucket in self.buckets]
        return self.masks[window]

    def block_mask(self, window: int | None) -> Any:
        """The rule as FlexAttention wants it: blocks without any pair are skipped."""
        from torch.nn.attention.flex_attention import create_block_mask

        if ("block", window) not in self.masks:
            size, device = len(self.positions), self.positions.device
            self.masks["block", window] = create_block_mask(
                lambda batch, head, query, key: self.attends(query, key, window), None, None, size, size, device
            )
        return self.masks["block", window]


def _stretches(lengths: Sequence[Sequence[int]]) -> list[Stretch]:
    """The prompt with the first answer attends to itself; every further answer to the prompt and to itself."""
    found, start = [], 0
    for one in lengths:
        ends = start + np.cumsum(one)
        prompt, whole = np.arange(start, ends[0]), np.arange(start, ends[min(1, len(one) - 1)])
        found.append(Stretch(whole, whole))
        for first, end in pairwise(ends[1:]):
            if end > first:
                answer = np.arange(first, end)
                found.append(Stretch(answer, np.concatenate([prompt, answer])))
        start = int(ends[-1])
    return found


def _groups(stretches: Sequence[Stretch]) -> list[list[Stretch]]:
    """Stretches of like length together, the longest first, so that padding stays below `PADDED`."""
    groups: list[list[Stretch]] = []
    needed = 0
    for one in sorted(stretches, key=lambda s: (s.queries is not s.keys, -len(s.queries), -len(s.keys))):
        needed += one.area
        group = [*groups[-1], one] if groups else [one]
        width = max(len(s.queries) for s in group) * max(len(s.keys) for s in group)
        alike = (group[0].queries is group[0].keys) == (one.queries is one.keys)
        if not groups or not alike or width * len(group) > PADDED * needed:
            groups.append([])
            needed = one.area
        groups[-1].append(one)
    return groups


def _places(groups: Sequence[Sequence[Stretch]], size: int) -> np.ndarray:
    """Where each token's output is among those of all buckets, padding included: (size,)."""
    places, before = np.empty(size, dtype=np.int64), 0
    for group in groups:
        width = max(len(one.queries) for one in group)
        for row, one in enumerate(group):
            places[one.queries] = before + row * width + np.arange(len(one.queries))
        before += len(group) * width
    return places


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    width = max(map(len, rows))
    return torch.from_numpy(np.stack([np.pad(row, (0, width - len(row)), mode="edge") for row in rows]))
