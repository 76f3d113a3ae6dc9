"""The layout of a packed row: which tokens attend to which, grouped into buckets for the attention kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

MAX_PADDING = 1.125  # a bucket's work, padding included, relative to that of its stretches


class Stretch(NamedTuple):
    """Tokens that attend together, as places in the row: `queries` to the `keys` that do not come after them."""

    queries: np.ndarray
    keys: np.ndarray

    @property
    def is_square(self) -> bool:
        return self.queries is self.keys


@dataclass(frozen=True)
class Bucket:
    """B stretches of similar length. queries (B, Q), keys (B, K): places in the row; padding (B, K): True for padding.

    Padding repeats a stretch's last token: such a query attends to something, and its output is never used.
    """

    queries: Tensor
    keys: Tensor
    padding: Tensor
    square: bool  # queries are the keys: plain causal attention is the rule

    @classmethod
    def of(cls, stretches: Sequence[Stretch]) -> Self:
        queries, keys = (_padded([getattr(stretch, part) for stretch in stretches]) for part in ("queries", "keys"))
        lengths = torch.tensor([len(stretch.keys) for stretch in stretches])
        padding = torch.arange(keys.shape[1]) >= lengths[:, None]
        return cls(queries, keys, padding, square=all(stretch.is_square for stretch in stretches))

    def to(self, device: torch.device) -> Self:
        return Bucket(self.queries.to(device), self.keys.to(device), self.padding.to(device), self.square)

    def mask(self, positions: Tensor, window: int | None) -> Tensor | None:
        """Which queries attend to which keys, (B, 1, Q, K); None where plain causal attention is the rule."""
        if self.square and (window is None or window >= self.keys.shape[1]):
            return None
        distance = positions[self.queries][:, :, None] - positions[self.keys][:, None, :]
        seen = (distance >= 0) & ~self.padding[:, None, :]
        return (seen if window is None else seen & (distance < window))[:, None]


@dataclass(frozen=True)
class PackedLayout:
    """Which tokens attend to which in a row of N tokens.

    items, branches, positions (N,): the item of each token, its answer counted from 1 (0: the prompt), and its position
    in the conversation. buckets hold every token once as a query; output_index (N,) is where each token's output is
    among the concatenated outputs of the buckets.
    """

    items: Tensor
    branches: Tensor
    positions: Tensor
    buckets: tuple[Bucket, ...]
    output_index: Tensor
    masks: dict[Any, Any] = field(default_factory=dict)  # cache by sliding window, shared by all layers

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]]) -> Self:
        """Layout of items, each given by the input tokens of its prompt and of each answer."""
        parts = [(item, branch, n) for item, sizes in enumerate(lengths) for branch, n in enumerate(sizes)]
        counts = [n for *_, n in parts]
        starts = [sizes[0] if branch else 0 for sizes in lengths for branch in range(len(sizes))]
        positions = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, counts, strict=True)])
        groups = _group_by_length(_stretches(lengths))
        return cls(
            items=torch.from_numpy(np.repeat([item for item, *_ in parts], counts)),
            branches=torch.from_numpy(np.repeat([branch for _, branch, _ in parts], counts)),
            positions=torch.from_numpy(positions),
            buckets=tuple(map(Bucket.of, groups)),
            output_index=torch.from_numpy(_output_index(groups, len(positions))),
        )

    def to(self, device: torch.device) -> Self:
        tensors = (value.to(device) for value in (self.items, self.branches, self.positions))
        return PackedLayout(*tensors, tuple(bucket.to(device) for bucket in self.buckets), self.output_index.to(device))

    def attends(self, query: Tensor, key: Tensor, window: int | None = None) -> Tensor:
        """The rule itself, for places in the row: what the kernels must compute."""
        distance = self.positions[query] - self.positions[key]
        branch = self.branches[key]
        seen = (distance >= 0) & ((branch == 0) | (branch == self.branches[query]))
        seen = seen & (self.items[query] == self.items[key])
        return seen if window is None else seen & (distance < window)

    def bucket_masks(self, window: int | None) -> list[Tensor | None]:
        """The rule within each bucket, see `Bucket.mask`."""
        if window not in self.masks:
            self.masks[window] = [bucket.mask(self.positions, window) for bucket in self.buckets]
        return self.masks[window]

    def block_mask(self, window: int | None) -> Any:
        """The rule as FlexAttention's block mask: blocks in which no token attends to another are skipped."""
        from torch.nn.attention.flex_attention import create_block_mask

        if ("block", window) not in self.masks:
            size, device = len(self.positions), self.positions.device
            self.masks["block", window] = create_block_mask(
                lambda batch, head, query, key: self.attends(query, key, window), None, None, size, size, device
            )
        return self.masks["block", window]


def _stretches(lengths: Sequence[Sequence[int]]) -> list[Stretch]:
    """A prompt with its first answer attends to itself; every further answer to the prompt and itself."""
    stretches, start = [], 0
    for sizes in lengths:
        ends = start + np.cumsum(sizes)
        prompt, whole = np.arange(start, ends[0]), np.arange(start, ends[min(1, len(sizes) - 1)])
        stretches.append(Stretch(whole, whole))
        for first, end in pairwise(ends[1:]):
            if end > first:
                answer = np.arange(first, end)
                stretches.append(Stretch(answer, np.concatenate([prompt, answer])))
        start = int(ends[-1])
    return stretches


def _group_by_length(stretches: Sequence[Stretch]) -> list[list[Stretch]]:
    """Groups of stretches of similar length, the longest first, whose padding stays below `MAX_PADDING`."""
    groups: list[list[Stretch]] = []
    for stretch in sorted(stretches, key=lambda s: (not s.is_square, -len(s.queries), -len(s.keys))):
        group = [*groups[-1], stretch] if groups else [stretch]
        padded = len(group) * max(len(s.queries) for s in group) * max(len(s.keys) for s in group)
        same_shape = group[0].is_square == stretch.is_square
        if groups and same_shape and padded <= MAX_PADDING * sum(len(s.queries) * len(s.keys) for s in group):
            groups[-1] = group
        else:
            groups.append([stretch])
    return groups


def _output_index(groups: Sequence[Sequence[Stretch]], size: int) -> np.ndarray:
    """Where each token's output is among those of all buckets, padding included: (size,)."""
    index, before = np.empty(size, dtype=np.int64), 0
    for group in groups:
        width = max(len(stretch.queries) for stretch in group)
        for row, stretch in enumerate(group):
            index[stretch.queries] = before + row * width + np.arange(len(stretch.queries))
        before += len(group) * width
    return index


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    width = max(map(len, rows))
    return torch.from_numpy(np.stack([np.pad(row, (0, width - len(row)), mode="edge") for row in rows]))
