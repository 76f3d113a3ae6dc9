"""What a pass over packed items costs, in floating-point operations: what the task needs, and what the layout computes.

Counted are matrix products, one multiplication and one addition each; everything else is small beside them. A backward
pass is twice its forward pass. Models are dense: of a mixture of experts only the shared layers are counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .batches import micro_batches
from .packing import Batch, Item, lay_out

BACKWARD = 2  # times the forward pass


@dataclass(frozen=True)
class Cost:
    """FLOPs of a model's forward pass: per token read, per pair of tokens that attend, per token that is predicted."""

    token: int
    pair: int
    prediction: int

    @classmethod
    def of(cls, model: Any) -> Cost:
        config, head = model.config.get_text_config(), model.get_output_embeddings()
        # GPT-2 has its own class of linear layers, with the weight the other way round.
        layers = [
            m for m in model.base_model.modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"
        ]
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            token=2 * sum(layer.weight.numel() for layer in layers),
            pair=4 * config.num_hidden_layers * config.num_attention_heads * width,
            prediction=2 * head.weight.numel(),
        )

    def needed(self, items: Iterable[Item]) -> int:
        """Of a forward pass that reads every prompt once and computes nothing that nobody asks for."""
        return sum(
            self.token * sum(item.lengths)
            + self.pair * attended(item.lengths)
            + self.prediction * sum(map(len, item.responses))
            for item in items
        )

    def computed(self, batch: Batch) -> int:
        """Of a forward pass over this layout; attention as the full rectangles of its buckets, padding included."""
        attention = sum(b.queries.shape[0] * b.queries.shape[1] * b.keys.shape[1] for b in batch.layout.buckets)
        return self.token * batch.input_ids.numel() + self.pair * attention + self.prediction * len(batch.targets)


def of_scoring(model: Any, items: Sequence[Item], token_budget: int) -> dict[str, int]:
    """FLOPs of `logprobs.score`: what it needs, and what its batches compute."""
    cost, read = Cost.of(model), [item for item in items if any(map(len, item.responses))]
    batches = micro_batches([item.lengths for item in read], range(len(read)), token_budget)
    computed = sum(cost.computed(lay_out([read[i] for i in batch])) for batch in batches)
    return {"needed": cost.needed(read), "computed": computed}


def attended(lengths: Iterable[int]) -> int:
    """Pairs of tokens of an item that attend: every token to itself and to what its conversation says before."""
    prompt, *answers = lengths
    return prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in answers)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of a large matrix product on this device: what utilisation is a share of.

    The best of ten, since other jobs may have the device meanwhile.
    """
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        _wait(device)
        began = time.perf_counter()
        a @ b
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
