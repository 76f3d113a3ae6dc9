"""From the study's files to what a model is trained on: answers, or pairs with their reference and token weights.

Rows, token ids, models and tokenizers of the files are checked against each other; nothing is tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from wspin.data.chat import ChatTokenizer
from wspin.engine.packing import Item
from wspin.errors import StudyError
from wspin.storage import tables


def training_items(
    loss: str,
    rows: str,
    reference: Sequence[str],
    weights: Sequence[str],
    replays: int,
    dialogue: ChatTokenizer,
    expected: dict[str, Any],
) -> list[Item]:
    """What a model is trained on: answers for sft, pairs with their reference otherwise, with weights for wspin.

    Pairs of this iteration come first, then the replayed ones with the same chosen answers; nothing is de-duplicated.
    `weights` has the shards of this iteration's pairs, then those of the replayed ones: weights that have not been
    made again since. Raises `StudyError` if reference or weights are missing, of other rows or ids, or of another
    model, tokenizer or precision.
    """
    kind = "prompts" if rows.endswith("prompts.parquet") else "preferences"
    table = tables.read(rows, kind)
    prompts = [np.array(dialogue.prompt_ids(prompt), dtype=np.int32) for prompt in table["prompt"].to_pylist()]
    if loss == "sft":
        answers = [np.array(dialogue.response_ids(text), dtype=np.int32) for text in table["response"].to_pylist()]
        return [Item(prompt, (answer,)) for prompt, answer in zip(prompts, answers, strict=True)]
    if not reference:
        raise StudyError(f"train: loss {loss}: expected the start model's log-probabilities (--reference), found none")
    scored = tables.read_shards(reference, "reference", replays, **expected)
    tables.check_same_rows(rows, table["prompt_id"].to_pylist(), reference[0], scored["prompt_id"].to_pylist())
    chosen = _side(scored, "chosen")
    sides = ("rejected", *(tables.replayed_sides(replays) if replays else ()))
    weighed = _weights(loss, weights, len(reference), scored, sides, expected)
    items = []
    for side, side_weights in zip(sides, weighed, strict=True):
        for prompt, (real, real_reference), (other, other_reference), pair in zip(
            prompts, chosen, _side(scored, side), side_weights, strict=True
        ):
            items.append(Item(prompt, (real, other), (real_reference, other_reference), pair))
    return items


def group_by_prompt(items: Sequence[Item], replays: int) -> list[Item]:
    """One item per prompt in place of its 1 + `replays` pairs, which share the chosen answer.

    Its pairs keep their own references and weights: those of a real answer come from each pair's student.
    """
    count = len(items) // (1 + replays)
    sets = [items[first : first + count] for first in range(0, len(items), count)]
    sides = tuple(side for place in range(1, len(sets) + 1) for side in (0, place))
    made = []
    for pairs in zip(*sets, strict=True):
        responses = (pairs[0].responses[0], *(pair.responses[1] for pair in pairs))
        reference, weights = (tuple(v for pair in pairs for v in getattr(pair, k)) for k in ("reference", "weights"))
        made.append(Item(pairs[0].prompt, responses, reference, weights, sides))
    return made


def _weights(
    loss: str, paths: Sequence[str], shards: int, scored: pa.Table, sides: Sequence[str], expected: dict[str, Any]
) -> list[list[tuple[np.ndarray, ...]]]:
    """Weights of each pair, (chosen, rejected) or nothing, for every side; refuses those of other token ids."""
    if loss != "wspin":
        if paths:
            raise StudyError(f"train: loss {loss}: expected no token weights (--weights), found {len(paths)} files")
        return [[()] * scored.num_rows for _ in sides]
    if len(paths) != shards * len(sides):
        needed = f"token weights (--weights) of {len(sides)} response sets in {shards} shards each"
        raise StudyError(f"train: loss wspin: expected {needed}, found {len(paths)} files; weigh them first")
    sets = [paths[first : first + shards] for first in range(0, len(paths), shards)]
    known = [{"model": expected["model"]}, *[{}] * len(sides)]  # replayed weights are those of earlier students
    return [
        _side_weights(own, scored, side, {"tokenizer": expected["tokenizer"], **more})
        for own, side, more in zip(sets, sides, known, strict=False)
    ]


def _side_weights(
    paths: Sequence[str], scored: pa.Table, side: str, expected: dict[str, Any]
) -> list[tuple[np.ndarray, ...]]:
    """(chosen, rejected) weights of every row: of its ids, and all made alike; `side` is the rejected one's name."""
    alike = tables.metadata(tables.read(paths[0], "weights", **expected), "model", "settings", "teacher", "seed")
    table = tables.read_shards(paths, "weights", **{**expected, **alike})
    tables.check_same_rows("reference", scored["prompt_id"].to_pylist(), paths[0], table["prompt_id"].to_pylist())
    tables.check_weighted_ids(paths[0], table, scored, side)
    pairs = []
    for name, answers in zip(tables.SIDES, ("chosen", side), strict=True):
        pairs.append(tables.row_arrays(table, f"{name}_weights"))
        ids = tables.row_arrays(scored, f"{answers}_token_ids")
        if list(map(len, pairs[-1])) != list(map(len, ids)):
            raise StudyError(
                f"{paths[0]}: {name}_weights: expected one per token, found others; weigh the answers again"
            )
    return list(zip(*pairs, strict=True))


def _side(scored: pa.Table, side: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, log-probabilities) of one side, row by row. Raises `StudyError` where their lengths differ."""
    ids, logprobs = (tables.row_arrays(scored, f"{side}_{part}") for part in ("token_ids", "logprobs"))
    pairs = list(zip(ids, logprobs, strict=True))
    for row, (a, b) in enumerate(pairs):
        if len(a) != len(b):
            raise StudyError(
                f"reference, row {row}, {side}: expected {len(a)} log-probabilities, found {len(b)}; score again"
            )
    return pairs
