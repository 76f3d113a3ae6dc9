"""Packs items (a prompt with its answers) into one row of tokens without padding.

Every prompt is followed by its answers, so that a forward pass computes it once for all of them:

    prompt | chosen | rejected | prompt | chosen | rejected ...

The positions of each answer continue from the end of its prompt. Its last token is predicted but is no input: no token
follows it. Per-token values (log-probabilities, references, weights) are flat vectors, answer by answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from wspin.errors import StudyError

from .layout import PackedLayout

PACKING_FORMAT = "shared-prefix"  # stored with log-probabilities: scoring and training must pack alike

Lengths = tuple[int, ...]  # input tokens of an item: of the prompt, then of each answer


@dataclass(frozen=True)
class Item:
    """Token ids of a prompt and its answers and, for a preference loss, the per-token values of its sides.

    The sides are the answers that the loss compares, chosen and rejected in turn: all answers in order, unless `sides`
    lists their indices, so that an answer can be part of several pairs. `reference` and `weights` hold one array per
    side, one value per token.
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
        """Number of pairs in the loss; a single answer (sft) counts as one."""
        return max(1, len(self.sides or self.responses) // 2)


@dataclass(frozen=True)
class Batch:
    """Items as tensors: N input tokens in one row, A answer tokens to predict, S tokens in the sides of the loss.

    input_ids, position_ids (1, N) int64. layout: which tokens attend to which. predictors (A,): the place in the row
    whose hidden state predicts each answer token. targets (A,): the ids of these tokens. side_tokens (S,): the index
    among the A of each side's tokens; None where the sides are the answers. counts: tokens of each side. reference,
    weights (S,) float32 or None.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    layout: PackedLayout
    predictors: torch.Tensor
    targets: torch.Tensor
    side_tokens: torch.Tensor | None
    counts: list[int]
    reference: torch.Tensor | None
    weights: torch.Tensor | None

    def to(self, device: torch.device) -> Self:
        return replace(self, **{name: part.to(device) for name, part in vars(self).items() if hasattr(part, "to")})


def pack(items: Sequence[Item]) -> Batch:
    """Pack items into one row, with the values of their sides. Raises `StudyError` for an empty prompt."""
    layout = PackedLayout.of([item.lengths for item in items])
    predictors, side_tokens, counts = [], [], []
    inputs = answer_tokens = 0  # input tokens and predicted tokens before this item
    for item in items:
        if not len(item.prompt):
            raise StudyError("expected a prompt of at least one token, found none to predict an answer's first token")
        starts = inputs + np.cumsum(item.lengths)  # of each answer; the last entry is the end of the item
        bounds = answer_tokens + np.cumsum([0, *map(len, item.responses)])
        for start, response in zip(starts, item.responses, strict=False):
            places = np.arange(start - 1, start - 1 + len(response))
            places[:1] = starts[0] - 1  # the last token of the prompt predicts the first token of every answer
            predictors.append(places)
        for side in item.sides or range(len(item.responses)):
            side_tokens.append(np.arange(bounds[side], bounds[side + 1]))
            counts.append(len(item.responses[side]))
        inputs, answer_tokens = int(starts[-1]), int(bounds[-1])

    row = [ids for item in items for ids in (item.prompt, *(response[:-1] for response in item.responses))]
    return Batch(
        input_ids=_indices(row)[None],
        position_ids=layout.positions[None],
        layout=layout,
        predictors=_indices(predictors),
        targets=_indices([response for item in items for response in item.responses]),
        side_tokens=_indices(side_tokens) if any(item.sides for item in items) else None,
        counts=counts,
        reference=_values(item.reference for item in items),
        weights=_values(item.weights for item in items),
    )


def _indices(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays).astype(np.int64))


def _values(of_items: Iterable[Sequence[np.ndarray]]) -> torch.Tensor | None:
    arrays = [array for sides in of_items for array in sides]
    return torch.from_numpy(np.concatenate(arrays).astype(np.float32)) if arrays else None
