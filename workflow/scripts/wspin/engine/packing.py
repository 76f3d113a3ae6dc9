"""Plans batches and lays conversations out as tensors: one half of the seam behind which speed lives.

Callers know items (a prompt with its answers), steps and micro-batches; how an item becomes a tensor is decided here,
in `attention` and in `logprobs`. Items stand one behind the other in a single row without padding, each as its prompt
and then its answers, so that a prompt is read once however many answers it has:

    prompt | chosen | rejected | prompt | chosen | rejected ...

Every answer's positions go on from the end of its prompt, and its last token is predicted but not read: nothing comes
after it. Per-token values go in and out as one flat vector, answer by answer. A plan depends on lengths and seed alone,
never on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wspin.errors import StudyError

from .layout import PackedLayout

PACKING_FORMAT = "shared-prefix"  # how items become tensors; scoring and training must agree

Lengths = tuple[int, ...]  # tokens that are read: of the prompt, then of each answer


@dataclass(frozen=True)
class Item:
    """A prompt and the answers to it, as ids, and where the loss needs them the values of its sides.

    The sides of an item are the answers that its loss compares, chosen and rejected in turn. They are the answers
    themselves unless `sides` says which: an answer may stand in several pairs. `reference` and `weights` hold one
    array per side, one value per token.
    """

    prompt: np.ndarray
    responses: tuple[np.ndarray, ...]
    reference: tuple[np.ndarray, ...] = ()
    weights: tuple[np.ndarray, ...] = ()
    sides: tuple[int, ...] = ()

    @property
    def lengths(self) -> Lengths:
        return (len(self.prompt), *(max(0, len(response) - 1) for response in self.responses))

    @property
    def pairs(self) -> int:
        """Pairs that a loss sees; an answer that is learnt by itself counts as one."""
        return max(1, len(self.sides or self.responses) // 2)


@dataclass(frozen=True)
class Batch:
    """Items as tensors: N tokens in one row, A of them in answers, S in the sides that the loss compares.

    input_ids, position_ids (1, N) int64; layout: who may attend to whom; states (A,): where the hidden state lies that
    predicts each answer token; targets (A,): the token; sides (S,): the answer token of each side's token, None where
    sides are the answers; counts: tokens of each side; reference, weights (S,) float32 or None.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    layout: PackedLayout
    states: torch.Tensor
    targets: torch.Tensor
    sides: torch.Tensor | None
    counts: list[int]
    reference: torch.Tensor | None
    weights: torch.Tensor | None

    def to(self, device: torch.device) -> Batch:
        def moved(value: Any) -> Any:
            return value.to(device) if hasattr(value, "to") else value

        return Batch(**{name: moved(value) for name, value in vars(self).items()})


def lay_out(items: Sequence[Item]) -> Batch:
    """Items as one row of tokens, with what the loss needs of them."""
    layout = PackedLayout.of([item.lengths for item in items])
    states, sides, counts = [], [], []
    start = told = 0  # tokens read, and answer tokens predicted, before this item
    for item in items:
        if not len(item.prompt):
            raise StudyError("expected a prompt of one token at least, found none: nothing predicts an answer's first")
        first = start + np.cumsum(item.lengths)  # where each answer begins
        ends = told + np.cumsum([0, *map(len, item.responses)])
        for begin, response in zip(first, item.responses, strict=False):
            before = np.arange(begin - 1, begin - 1 + len(response))
            before[:1] = first[0] - 1  # the last token of the prompt predicts the first of every answer
            states.append(before)
        for side in item.sides or range(len(item.responses)):
            sides.append(np.arange(ends[side], ends[side + 1]))
            counts.append(len(item.responses[side]))
        start, told = int(first[-1]), int(ends[-1])

    read = [part for item in items for part in (item.prompt, *(response[:-1] for response in item.responses))]
    return Batch(
        input_ids=_index(read)[None],
        position_ids=layout.positions[None],
        layout=layout,
        states=_index(states),
        targets=_index([response for item in items for response in item.responses]),
        sides=_index(sides) if any(item.sides for item in items) else None,
        counts=counts,
        reference=_values(item.reference for item in items),
        weights=_values(item.weights for item in items),
    )


def _index(parts: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _values(parts: Iterable[Sequence[np.ndarray]]) -> torch.Tensor | None:
    values = [one for part in parts for one in part]
    return torch.from_numpy(np.concatenate(values).astype(np.float32)) if values else None
