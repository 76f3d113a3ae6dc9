"""The layout of a packed row: which tokens attend to which, grouped into buckets for the attention kernels.

A row is a sequence of branches. A branch keeps the first tokens of the conversation before it and appends its own, so
that conversations with a common beginning hold it once: a prompt with several answers, or questions that follow the
same examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

MAX_PADDING = 1.125  # a bucket's work, padding included, relative to that of its stretches
BLOCK = 128  # tokens; FlexAttention skips squares of this side
ROWS = 8 * BLOCK  # queries whose mask is computed at a time: the whole square of a long row would take gigabytes


class Branch(NamedTuple):
    """A conversation by what it adds to the one before it, in tokens."""

    kept: int  # first tokens of the branch before, with all that it kept; 0 begins a conversation of its own
    new: int


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

    ends, positions (N,): the place in the row where the branches that keep a token end, and the token's position in its
    conversation. buckets hold every token once as a query; output_index (N,) is where each token's output is among the
    concatenated outputs of the buckets.
    """

    ends: Tensor
    positions: Tensor
    buckets: tuple[Bucket, ...]
    output_index: Tensor
    masks: dict[Any, Any] = field(default_factory=dict)  # cache by sliding window, shared by all layers

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]]) -> Self:
        """Layout of items, each given by the input tokens of its prompt and of each answer."""
        return cls.of_branches([branch for sizes in lengths for branch in _item_branches(sizes)])

    @classmethod
    def of_branches(cls, branches: Sequence[Branch]) -> Self:
        """Layout of conversations with common beginnings."""
        stretches, ends = _stretches(branches)
        groups = _group_by_length(stretches)
        return cls(
            ends=torch.from_numpy(ends),
            positions=torch.from_numpy(np.concatenate([kept + np.arange(new) for kept, new in branches])),
            buckets=tuple(map(Bucket.of, groups)),
            output_index=torch.from_numpy(_output_index(groups, len(ends))),
        )

    def to(self, device: torch.device) -> Self:
        buckets = tuple(bucket.to(device) for bucket in self.buckets)
        return PackedLayout(self.ends.to(device), self.positions.to(device), buckets, self.output_index.to(device))

    def attends(self, query: Tensor, key: Tensor, window: int | Tensor | None = None) -> Tensor:
        """The rule itself, for places in the row: what the kernels must compute."""
        seen = (key <= query) & (query < self.ends[key])
        return seen if window is None else seen & (self.positions[query] - self.positions[key] < window)

    def bucket_masks(self, window: int | None) -> list[Tensor | None]:
        """The rule within each bucket, see `Bucket.mask`."""
        if window not in self.masks:
            self.masks[window] = [bucket.mask(self.positions, window) for bucket in self.buckets]
        return self.masks[window]

    def block_mask(self, window: int | None) -> Any:
        """The rule as FlexAttention's block mask: blocks in which no token attends to another are skipped."""
        from torch.nn.attention.flex_attention import BlockMask

        if ("block", window) not in self.masks:
            size = len(self.positions)
            # A tensor, also where there is no window: kernels are compiled anew for every other number, and for none.
            limit = torch.tensor(size if window is None else window, device=self.positions.device)
            counts = self._attending_pairs(limit)
            full = counts == BLOCK * BLOCK
            self.masks["block", window] = BlockMask.from_kv_blocks(
                *_ordered_blocks((counts > 0) & ~full),
                *_ordered_blocks(full),
                BLOCK_SIZE=BLOCK,
                mask_mod=lambda batch, head, query, key: self.attends(query, key, limit),
                seq_lengths=(size, size),
            )
        return self.masks["block", window]

    def _attending_pairs(self, window: Tensor) -> Tensor:
        """How many tokens of each block of queries attend to each block of keys: (blocks, blocks)."""
        size, counts = len(self.positions), []
        blocks = -(-size // BLOCK)
        places = torch.arange(blocks * BLOCK, device=self.positions.device)
        inside, keys = places < size, places.clamp(max=size - 1)
        for rows in places.split(ROWS):
            seen = self.attends(keys[rows, None], keys, window) & inside[rows, None] & inside
            counts.append(seen.view(-1, BLOCK, blocks, BLOCK).sum((1, 3)))
        return torch.cat(counts)


def _ordered_blocks(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """As FlexAttention takes blocks (queries, keys): how many for each block of queries, and their indices first."""
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], indices.int()[None, None]


def _item_branches(sizes: Sequence[int]) -> list[Branch]:
    """A prompt goes on with its first answer; every further answer keeps the prompt."""
    prompt, *answers = sizes
    return [Branch(0, prompt + sum(answers[:1])), *(Branch(prompt, new) for new in answers[1:] if new)]


def _stretches(branches: Sequence[Branch]) -> tuple[list[Stretch], np.ndarray]:
    """(stretches, `PackedLayout.ends`): the new tokens of a branch attend to all of its conversation."""
    stretches, start = [], 0
    ends = np.full(sum(new for _, new in branches), sum(new for _, new in branches))
    conversation = np.empty(0, dtype=np.int64)  # of the branch before, as places in the row
    for kept, new in branches:
        ends[conversation[kept:]] = start
        places = np.arange(start, start + new)
        conversation = np.concatenate([conversation[:kept], places]) if kept else places
        if new:
            stretches.append(Stretch(places, conversation))
        start += new
    return stretches, ends


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
    """(rows, longest): each row with its last entry repeated."""
    lengths = np.array(list(map(len, rows)))
    last = np.cumsum(lengths) - 1
    index = (last - lengths + 1)[:, None] + np.arange(lengths.max())
    return torch.from_numpy(np.concatenate(rows)[np.minimum(index, last[:, None])])
