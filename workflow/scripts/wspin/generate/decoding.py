"""Continuous batching over one preallocated KV cache, whose first slots hold the running sequences.

Works with every causal model of transformers that has a KV cache; masks are the library's own.
"""

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
    """A prompt and its answer so far. The last token's keys are not in the cache yet."""

    index: int  # of the prompt
    prompt: Sequence[int]
    uniforms: np.ndarray  # (max_new_tokens,) float64 in [0, 1)
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.ids)


class RunningBatch:
    """The running sequences, in the first slots of one cache of `slots` times `columns` tokens.

    All end in the same column, as the library's masks require, so shorter sequences begin in later columns.
    """

    def __init__(self, model: Any, settings: Generate, eos: int, slots: int, columns: int):
        self.model, self.settings, self.eos = model, settings, eos
        self.sequences: list[RunningSequence] = []
        self.window = CacheWindow(slots, columns)
        self.cache = Cache(layer_class_to_replicate=partial(PreallocatedLayer, self.window))
        self.slot_steps = self.prompt_tokens = 0

    def admit(self, sequences: list[RunningSequence]) -> None:
        """Prefill the slots behind the running ones, and sample the first tokens.

        No prompt may be longer than the running sequences: its tokens end in the same column.
        """
        self._shift()
        width = max(sequence.length for sequence in sequences)
        end = self.window.end if self.sequences else width
        self.window.slot, self.window.begin, self.window.end = len(self.sequences), end - width, end - width
        padded = [[self.eos] * (width - sequence.length) + list(sequence.prompt) for sequence in sequences]
        self._forward(sequences, padded)
        self.window.slot = self.window.begin = 0
        self.sequences += sequences
        self.prompt_tokens += len(sequences) * width

    def step(self) -> None:
        """Sample one token for every sequence."""
        if self.window.end == self.window.columns:
            self._shift()
        self._forward(self.sequences, [sequence.ids[-1:] for sequence in self.sequences])
        self.slot_steps += len(self.sequences)

    def release(self) -> list[RunningSequence]:
        """Remove and return the finished sequences; sequences from the last slots move into theirs."""
        limit = self.settings.max_new_tokens
        finished = [sequence.ids[-1] == self.eos or len(sequence.ids) == limit for sequence in self.sequences]
        released = [sequence for sequence, done in zip(self.sequences, finished, strict=True) if done]
        count = len(self.sequences) - len(released)
        holes = [slot for slot in range(count) if finished[slot]]
        movers = [slot for slot in range(count, len(finished)) if not finished[slot]]
        for hole, slot in zip(holes, movers, strict=True):
            self.sequences[hole] = self.sequences[slot]
            for tensor in self._tensors():
                tensor[hole, :, : self.window.end] = tensor[slot, :, : self.window.end]
        del self.sequences[count:]
        return released

    def _forward(self, sequences: list[RunningSequence], ids: list[list[int]]) -> None:
        """Run the model on `ids` (sequences, new), padded on the left, and append a token to each sequence."""
        past, new, device = self.window.past, len(ids[0]), self.model.device
        starts = [past + new - sequence.length for sequence in sequences]
        self.window.padded = any(starts)
        # A step waits for the GPU once only: below, where the sampled ids come back.
        columns = torch.arange(past + new, device=device)
        start = torch.tensor(starts)[:, None].to(device, non_blocking=True)
        logits = self.model(
            input_ids=torch.tensor(ids).to(device, non_blocking=True),
            attention_mask=columns >= start if self.window.padded else None,  # None: grouped heads need no copies
            position_ids=(columns[past:] - start).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.window.end += new
        for sequence, token in zip(sequences, self._sample(sequences, logits), strict=True):
            sequence.ids.append(token)

    def _sample(self, sequences: list[RunningSequence], logits: Tensor) -> list[int]:
        """One token per sequence from `logits` (sequences, vocabulary)."""
        if self.settings.temperature == 0:
            return logits.argmax(-1).tolist()
        uniforms = [sequence.uniforms[len(sequence.ids)] for sequence in sequences]
        uniforms = torch.tensor(uniforms, dtype=torch.float64).to(logits.device, non_blocking=True)
        return sample_by_inversion(logits, uniforms, self.settings.temperature, self.settings.top_p).tolist()

    def _shift(self) -> None:
        """Move the sequences left over the columns that none of them uses; the longest then begins in the first."""
        end = max((sequence.length - 1 for sequence in self.sequences), default=0)
        if self.sequences and end < self.window.end:
            for tensor in self._tensors():
                running = tensor[: len(self.sequences)]
                running[:, :, :end] = running[:, :, self.window.end - end : self.window.end].clone()
        self.window.end = end

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values)]


@dataclass
class CacheWindow:
    """The part of the cache that a forward pass uses: slots from `slot`, columns from `begin`, filled up to `end`."""

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
    """Keys and values of one layer, (slots, heads, columns, head size) each, allocated once.

    A step writes one column, where the library's own cache copies all of them. Layers with a sliding window keep every
    column too: the library derives their masks from these sizes.
    """

    is_sliding = False

    def __init__(self, window: CacheWindow):
        super().__init__()
        self.window = window

    @property
    def is_compileable(self) -> bool:
        """True for padded sequences: the library then builds the mask without first waiting for the GPU."""
        return self.window.padded

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Zeros, because masked values are still multiplied, by zero."""
        self.keys, self.values = (
            states.new_zeros(self.window.slots, states.shape[1], self.window.columns, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new states, (sequences, heads, new, head size) each; returns views of past and new together."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window, (count, _, new, _) = self.window, key_states.shape
        slots, columns = slice(window.slot, window.slot + count), slice(window.begin, window.end + new)
        keys, values = self.keys[slots, :, columns], self.values[slots, :, columns]
        keys[:, :, -new:], values[:, :, -new:] = key_states, value_states
        return keys, values

    def get_seq_length(self) -> int:
        return self.window.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.past + query_length, 0

    def get_max_length(self) -> int:
        return self.window.columns


def sample_by_inversion(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """The token at which each row's cumulative probability passes its uniform number.

    logits (rows, vocabulary); uniforms (rows,) in [0, 1); returns (rows,) int64. In float64, so that the sum over a
    large vocabulary is exact enough to be the same on every machine.
    """
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the nucleus is the smallest set that reaches top_p
        probabilities = probabilities.masked_fill(outside.scatter(1, order, outside), 0.0)
    cumulative = probabilities.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
