"""Floating-point operations of a forward pass over packed items: those the task needs, and those the layout computes.

Only matrix products count, a multiplication and an addition each; the rest is small beside them. A backward pass is
twice its forward pass. Models are dense: of a mixture of experts only the shared layers are counted.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import torch

from .batches import micro_batches
from .packing import Batch, Item, pack

BACKWARD = 2  # FLOPs of a backward pass, in forward passes


class Work(NamedTuple):
    """What a forward pass costs, whatever the model: input tokens, pairs of tokens that attend, predictions."""

    tokens: int
    pairs: int
    predictions: int


@dataclass(frozen=True)
class Cost:
    """FLOPs of a model's forward pass per input token, per pair of tokens that attend, and per predicted token."""

    per_token: int
    per_pair: int
    per_prediction: int

    @classmethod
    def of(cls, model: Any) -> Self:
        config, head = model.config.get_text_config(), model.get_output_embeddings()
        # GPT-2 has its own class of linear layers, with transposed weights.
        modules = model.base_model.modules()
        layers = [m for m in modules if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"]
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            per_token=2 * sum(layer.weight.numel() for layer in layers),
            per_pair=4 * config.num_hidden_layers * config.num_attention_heads * width,
            per_prediction=2 * head.weight.numel(),
        )

    def flops(self, work: Work) -> int:
        return self.per_token * work.tokens + self.per_pair * work.pairs + self.per_prediction * work.predictions

    def needed(self, items: Iterable[Item]) -> int:
        """FLOPs of a pass that computes every prompt once, and no padding and no logits that are not used."""
        return sum(
            self.flops(Work(sum(item.lengths), attending_pairs(item.lengths), sum(map(len, item.responses))))
            for item in items
        )

    def computed(self, batch: Batch, once: bool = False) -> int:
        """FLOPs of a pass over this layout; attention as the full rectangles of its buckets, padding included.

        With `once`, a token that predicts several others does so once, as in `logprobs.continuation_logprobs`.
        """
        area = sum(b.queries.shape[0] * b.queries.shape[1] * b.keys.shape[1] for b in batch.layout.buckets)
        predictions = len(batch.predictors.unique() if once else batch.predictors)
        return self.flops(Work(batch.input_ids.numel(), area, predictions))

    def training_needed(self, items: Iterable[Item], divergence: bool) -> int:
        """FLOPs of training on items: forward and backward passes, and that of the reference of a divergence."""
        return (1 + BACKWARD + divergence) * self.needed(items)

    def training_computed(self, batch: Batch, divergence: bool) -> int:
        """FLOPs of training on a layout. A divergence (`head.token_divergences`) computes the logits of both models.

        It does so again for its backward pass, which goes through the policy's.
        """
        computed = self.computed(batch)
        policy, reference = 2 + BACKWARD, 1  # passes of the head, besides those of the two forward passes
        heads = (policy + reference) * self.flops(Work(0, 0, len(batch.predictors)))
        return (1 + BACKWARD) * computed + divergence * (computed + heads)


def scoring_flops(model: Any, items: Sequence[Item], token_budget: int) -> dict[str, int]:
    """FLOPs of scoring: `needed` by the items, and `computed` by the micro-batches."""
    cost, scored = Cost.of(model), [item for item in items if any(map(len, item.responses))]
    batches = micro_batches([item.lengths for item in scored], range(len(scored)), token_budget)
    computed = sum(cost.computed(pack([scored[i] for i in batch])) for batch in batches)
    return {"needed": cost.needed(scored), "computed": computed}


def attending_pairs(lengths: Iterable[int]) -> int:
    """Pairs of tokens of an item that attend: every token to itself and to all before it in its conversation."""
    prompt, *answers = lengths
    return prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in answers)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The denominator of utilisation (MFU): FLOPs per second of a large matrix product, the best of ten."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    synchronize = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    seconds = []
    for _ in range(10):
        synchronize()
        began = time.perf_counter()
        a @ b
        synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)
