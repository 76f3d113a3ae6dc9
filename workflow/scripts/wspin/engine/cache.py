"""A KV cache allocated once, in which all sequences end in the same column, as the masks of transformers require.

A step writes one column, where the library's own cache copies all of them.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


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


class SlotCache(Cache):
    """A sequence in each of `slots` slots, of at most `columns` tokens; shorter sequences begin in later columns."""

    def __init__(self, slots: int, columns: int):
        self.window = CacheWindow(slots, columns)
        super().__init__(layer_class_to_replicate=partial(PreallocatedLayer, self.window))

    def copy_beginning(self, slot: int, column: int, length: int) -> None:
        """Copy the first `length` columns of the last slot into a sequence that begins in `column` of `slot`."""
        for tensor in self._tensors():
            tensor[slot, :, column : column + length] = tensor[-1, :, :length]

    def move(self, slot: int, free: int) -> None:
        """Copy the sequence of a slot to a free one."""
        for tensor in self._tensors():
            tensor[free, :, : self.window.end] = tensor[slot, :, : self.window.end]

    def shift(self, count: int, length: int) -> None:
        """Move the first `count` sequences left: the longest, of `length` tokens, begins in the first column."""
        if count and length < self.window.end:
            for tensor in self._tensors():
                running = tensor[:count]
                running[:, :, :length] = running[:, :, self.window.end - length : self.window.end].clone()
        self.window.end = length

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in (layer.keys, layer.values)]


class PreallocatedLayer(CacheLayerMixin):
    """Keys and values of one layer, (slots, heads, columns, head size) each.

    Layers with a sliding window keep every column too: the library derives their masks from these sizes.
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
        """Zeros, because masked values are still multiplied, by zero. Autocast would cast all states at every step."""
        device, window = key_states.device.type, self.window
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self.keys, self.values = (
            states.new_zeros(window.slots, states.shape[1], window.columns, states.shape[3], dtype=dtype)
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
