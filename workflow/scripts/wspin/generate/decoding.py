"""Decoding rows that come and go: one cache whose first slots hold the rows that run, and no others.

Works with every causal model of transformers that keeps keys and values; masks are the library's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from wspin.config.stages import Generate


@dataclass
class RunningSequence:
    """A prompt and its answer so far. The keys of the last token are not in the cache yet."""

    number: int
    prompt: Sequence[int]
    uniforms: np.ndarray  # (max_new_tokens,) float64 in [0, 1)
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.ids)


class RunningBatch:
    """The rows that run, in the first slots of one cache of `slots` times `columns` tokens.

    Their tokens end in one column, as the library's masks want it, so that shorter rows begin later.
    """

    def __init__(self, model: Any, settings: Generate, eos: int, slots: int, columns: int):
        self.model, self.settings, self.eos = model, settings, eos
        self.rows: list[RunningSequence] = []
        self.place = CacheWindow(slots, columns)
        self.cache = Cache(layer_class_to_replicate=partial(PreallocatedLayer, self.place))
        self.slot_steps = self.prompt_tokens = 0

    def admit(self, rows: list[RunningSequence]) -> None:
        """Read the prompts into the slots behind those that run, and draw their first tokens.

        None may be longer than a row that runs: their tokens end where those of the running rows do.
        """
        self._shift()
        width = max(row.length for row in rows)
        end = self.place.end if self.rows else width
        self.place.slot, self.place.begin, self.place.end = len(self.rows), end - width, end - width
        self._forward(rows, [[self.eos] * (width - row.length) + list(row.prompt) for row in rows])
        self.place.slot = self.place.begin = 0
        self.rows += rows
        self.prompt_tokens += len(rows) * width

    def step(self) -> None:
        """Draw one token for every row."""
        if self.place.end == self.place.columns:
            self._shift()
        ids = [row.ids[-1:] for row in self.rows]
        self._forward(self.rows, ids)
        self.slot_steps += len(ids)

    def release(self) -> list[RunningSequence]:
        """Take out the rows that ended; rows from the last slots move into theirs."""
        last = [row.ids[-1] == self.eos or len(row.ids) == self.settings.max_new_tokens for row in self.rows]
        ended = [row for row, is_last in zip(self.rows, last, strict=True) if is_last]
        left = len(self.rows) - len(ended)
        holes = [slot for slot in range(left) if last[slot]]
        movers = [slot for slot in range(left, len(last)) if not last[slot]]
        for hole, slot in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[slot]
            for store in self._stores():
                store[hole, :, : self.place.end] = store[slot, :, : self.place.end]
        del self.rows[left:]
        return ended

    def _forward(self, rows: list[RunningSequence], ids: list[list[int]]) -> None:
        """Run the model on `ids` (rows, new), padded on the left, and append a token to each row."""
        past, new, device = self.place.past, len(ids[0]), self.model.device
        starts = [past + new - row.length for row in rows]
        self.place.padded = any(starts)
        # The next token's ids come back below, and that is the one time in a step that the GPU is waited for.
        columns = torch.arange(past + new, device=device)
        start = torch.tensor(starts)[:, None].to(device, non_blocking=True)
        logits = self.model(
            input_ids=torch.tensor(ids).to(device, non_blocking=True),
            attention_mask=columns >= start if self.place.padded else None,  # none: grouped heads need no copies
            position_ids=(columns[past:] - start).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.place.end += new
        for row, token in zip(rows, self._draw(rows, logits), strict=True):
            row.ids.append(token)

    def _draw(self, rows: list[RunningSequence], logits: Tensor) -> list[int]:
        """One token per row from `logits` (rows, vocabulary)."""
        if self.settings.temperature == 0:
            return logits.argmax(-1).tolist()
        numbers = torch.tensor([row.uniforms[len(row.ids)] for row in rows], dtype=torch.float64)
        numbers = numbers.to(logits.device, non_blocking=True)
        return invert(logits, numbers, self.settings.temperature, self.settings.top_p).tolist()

    def _shift(self) -> None:
        """Move the rows left over the columns that none of them uses; the longest then begins in the first."""
        end = max((row.length - 1 for row in self.rows), default=0)
        if self.rows and end < self.place.end:
            for store in self._stores():
                rows = store[: len(self.rows)]
                rows[:, :, :end] = rows[:, :, self.place.end - end : self.place.end].clone()
        self.place.end = end

    def _stores(self) -> list[Tensor]:
        return [store for layer in self.cache.layers for store in (layer.keys, layer.values)]


@dataclass
class CacheWindow:
    """Where a forward pass reads and writes: slots from `slot` on, columns from `begin`; filled up to `end`."""

    slots: int
    columns: int
    slot: int = 0
    begin: int = 0
    end: int = 0
    padded: bool = False

    @property
    def past(self) -> int:
        return self.end - self.begin


class PreallocatedLayer(CacheLayerMixin):
    """Keys and values of one layer, (slots, heads, columns, head size) each, in memory taken once.

    A step writes one column, where the library's own cache copies them all. Layers with a sliding window keep every
    column too: the library makes their masks from these sizes.
    """

    is_sliding = False

    def __init__(self, place: CacheWindow):
        super().__init__()
        self.place = place

    @property
    def is_compileable(self) -> bool:
        """Of padded rows the library then makes the mask at once, and does not wait for the GPU to ask if it must."""
        return self.place.padded

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Zeros, because what is masked is still multiplied by zero."""
        self.keys, self.values = (
            states.new_zeros(self.place.slots, states.shape[1], self.place.columns, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write what is new, (rows, heads, new, head size) each; returns views of past and new together."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place, (count, _, new, _) = self.place, key_states.shape
        rows, columns = slice(place.slot, place.slot + count), slice(place.begin, place.end + new)
        keys, values = self.keys[rows, :, columns], self.values[rows, :, columns]
        keys[:, :, -new:], values[:, :, -new:] = key_states, value_states
        return keys, values

    def get_seq_length(self) -> int:
        return self.place.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.place.past + query_length, 0

    def get_max_length(self) -> int:
        return self.place.columns


def invert(scores: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Token at which the cumulative probability passes each row's uniform number.

    scores (rows, vocabulary) logits; uniforms (rows,); returns (rows,) int64. In float64, so that the sum over a large
    vocabulary stays exact enough to be the same everywhere.
    """
    probabilities = torch.softmax(scores.double() / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the nucleus is the smallest set that reaches top_p
        probabilities = probabilities.masked_fill(outside.scatter(1, order, outside), 0.0)
    cumulative = probabilities.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=scores.shape[1] - 1)
