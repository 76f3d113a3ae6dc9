"""Attention over packed items that read their prompt once, in any causal model that transformers' interface reaches.

A token attends to itself and to what stands before it in its own conversation: the prompt and its own answer, never
another answer or another item. No model code is changed: transformers calls `_bucketed` or `_flex` in place of its own
attention, and hands them the layout. (A cache would make transformers attend across conversations: callers say
use_cache=False.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from wspin.errors import StudyError

BUCKETED, FLEX = "shared-prefix", "shared-prefix-flex"  # as transformers knows them
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
class Layout:
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
    def of(cls, lengths: Sequence[Sequence[int]]) -> Layout:
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

    def to(self, device: torch.device) -> Layout:
        tensors = (value.to(device) for value in (self.items, self.branches, self.positions))
        return Layout(*tensors, tuple(bucket.to(device) for bucket in self.buckets), self.order.to(device))

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


def _bucketed(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float | None, **more: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, one call per bucket: (1, heads, N, width) each in, (1, N, heads, width) out."""
    layout, window = _asked(module, attention_mask, **more)
    found = []
    for bucket, mask in zip(layout.buckets, layout.bucket_masks(window), strict=True):
        q, k, v = _gather(query, bucket.queries), _gather(key, bucket.keys), _gather(value, bucket.keys)
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:  # grouped queries share keys and values
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        found.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
    return embedding(layout.order, torch.cat(found)).view(1, len(layout.order), query.shape[1], -1), None


def _gather(states: Tensor, places: Tensor) -> Tensor:
    """(1, heads, N, width) -> (B, heads, L, width). An embedding is the gather whose gradient is quickest."""
    rows = states[0].transpose(0, 1)
    return embedding(places, rows.flatten(1)).unflatten(-1, rows.shape[1:]).transpose(1, 2)


def _flex(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float | None, **more: Any
) -> tuple[Tensor, None]:
    """The same by FlexAttention, compiled, over the row as it is."""
    from transformers.integrations.flex_attention import flex_attention_forward

    layout, window = _asked(module, attention_mask, **more)
    return flex_attention_forward(module, query, key, value, layout.block_mask(window), scaling=scaling)


def _asked(
    module: Any,
    attention_mask: None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Layout, int | None]:
    """Layout and sliding window of a call. Raises `StudyError` for what a shared prefix does not have."""
    kind = type(module).__name__
    if layout is None:
        raise StudyError(f"{kind}: expected the layout of a packed row, found none; the model does not pass it on")
    config = getattr(module, "config", None)
    types, index = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
    if (
        types is not None
        and index is not None
        and (types[index] == "sliding_attention") != (sliding_window is not None)
    ):
        raise StudyError(f"{kind}: layer {index} is {types[index]}, found sliding window {sliding_window}")
    strange = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if more.get(name) is not None]
    strange += ["dropout"] * (dropout > 0.0) + ["attention_mask"] * (attention_mask is not None)
    if strange:
        raise StudyError(f"{kind}: expected plain causal attention, found {', '.join(strange)}")
    return layout, sliding_window


@contextmanager
def shared_prefix(model: Any) -> Iterator[None]:
    """Within, the model reads packed rows (`layout=` in its call) and nothing else."""
    before = model.config._attn_implementation
    if before in (BUCKETED, FLEX):
        yield
        return
    _register()
    name = FLEX if _flex_works(model.device) else BUCKETED
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        kind = model.config.model_type
        raise StudyError(f"{kind}: expected attention by transformers' interface, found another; not supported")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(BUCKETED, _bucketed)
    AttentionInterface.register(FLEX, _flex)


@cache
def _flex_works(device: torch.device) -> bool:
    """Whether this machine can compile FlexAttention; says so where it has a GPU and cannot."""
    if device.type != "cuda":
        return False  # no backward pass on CPUs
    from torch.nn.attention.flex_attention import flex_attention

    layout = Layout.of([(40, 50, 60)] * 2).to(device)
    states = torch.randn(1, 2, 300, 64, device=device, requires_grad=True)
    try:
        torch.compile(flex_attention)(states, states, states, block_mask=layout.block_mask(None)).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        print(
            f"attention: FlexAttention does not compile here ({type(error).__name__}); using plain kernels", flush=True
        )
        return False
    return True
