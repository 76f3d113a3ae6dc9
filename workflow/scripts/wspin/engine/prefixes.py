"""Packs texts into rows in which a common beginning stands once, whoever shares it.

Evaluation asks for one context with every choice of a question, and for the same examples before every question. Sorted
by their tokens, texts that share a beginning are neighbours, and each becomes a branch of the one before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .flops import Work
from .layout import Branch, PackedLayout
from .packing import Batch

SHORTEST = 8  # tokens; a shorter beginning is cheaper to read again than to mask
FULL = 0.75  # a row that holds this share of the token budget ends where least is read again


class Continuation(NamedTuple):
    """A text's token ids, of which the last `count` are predicted from all before them."""

    ids: np.ndarray
    count: int

    @property
    def inputs(self) -> np.ndarray:
        """All tokens but the last: no token follows it."""
        return self.ids[:-1]


@dataclass(frozen=True)
class Row:
    """Continuations by their indices, sorted by their tokens, and the branch that each becomes."""

    indices: list[int]
    branches: list[Branch]

    def conversations(self) -> Iterator[np.ndarray]:
        """The places in the row of each continuation's inputs."""
        conversation, start = np.empty(0, dtype=np.int64), 0
        for kept, new in self.branches:
            conversation = np.concatenate([conversation[:kept], np.arange(start, start + new)])
            start += new
            yield conversation


def plan_rows(continuations: Sequence[Continuation], token_budget: float, shortest: int = SHORTEST) -> list[Row]:
    """Rows of at most `token_budget` tokens; a longer continuation is a row of its own.

    Beginnings of less than `shortest` tokens are not shared.
    """
    order = sorted(range(len(continuations)), key=lambda i: _sort_key(continuations[i]))
    inputs = [continuations[i].inputs for i in order]
    lengths, shared = list(map(len, inputs)), [0, *map(_common_length, inputs, inputs[1:])]
    shared = [count if count >= shortest else 0 for count in shared]
    rows, first = [], 0
    while first < len(order):
        end = _row_end(first, lengths, shared, token_budget)
        kept = [0, *shared[first + 1 : end]]
        branches = [Branch(k, length - k) for k, length in zip(kept, lengths[first:end], strict=True)]
        rows.append(Row(order[first:end], branches))
        first = end
    return rows


def _sort_key(continuation: Continuation) -> bytes:
    """Big-endian bytes, which compare as the ids do."""
    return continuation.inputs.astype(">u4").tobytes()


def _common_length(a: np.ndarray, b: np.ndarray) -> int:
    size = min(len(a), len(b))
    different = (a[:size] != b[:size]).nonzero()[0]
    return int(different[0]) if len(different) else size


def _row_end(first: int, lengths: Sequence[int], shared: Sequence[int], token_budget: float) -> int:
    """Where the row that begins with the continuation `first` ends: in its last part, where least is shared."""
    tokens, best = lengths[first], first + 1
    for end in range(first + 1, len(lengths)):
        if tokens < FULL * token_budget or shared[end] <= shared[best]:
            best = end
        tokens += lengths[end] - shared[end]
        if tokens > token_budget:
            return best
    return len(lengths)


def pack_row(continuations: Sequence[Continuation], row: Row) -> Batch:
    """The row as tensors; `counts` and targets are of its continuations in the order of `row.indices`."""
    packed = [continuations[i] for i in row.indices]
    layout = PackedLayout.of_branches(row.branches)
    new = [ids.inputs[branch.kept :] for ids, branch in zip(packed, row.branches, strict=True)]
    return Batch(
        input_ids=torch.from_numpy(np.concatenate(new).astype(np.int64))[None],
        position_ids=layout.positions[None],
        layout=layout,
        predictors=torch.from_numpy(_predictors(packed, row)),
        targets=torch.from_numpy(np.concatenate([text.ids[-text.count :] for text in packed]).astype(np.int64)),
        side_tokens=None,
        counts=[text.count for text in packed],
        reference=None,
        weights=None,
    )


def _predictors(packed: Sequence[Continuation], row: Row) -> np.ndarray:
    """The places that predict each continuation's tokens, one after another."""
    return np.concatenate([places[-text.count :] for text, places in zip(packed, row.conversations(), strict=True)])


def needed_work(continuations: Sequence[Continuation]) -> Work:
    """The work of a pass that reads every common beginning once and predicts every token once, in one row."""
    (row,) = plan_rows(continuations, np.inf, shortest=1)
    predictors = _predictors([continuations[i] for i in row.indices], row)
    pairs = sum(new * kept + new * (new + 1) // 2 for kept, new in row.branches)
    return Work(sum(new for _, new in row.branches), pairs, len(np.unique(predictors)))
