"""From the study's files to training items: answers, or pairs with their reference and token weights.

The rows, token ids, models and tokenizers of the files are checked against each other; nothing is tokenised twice.
"""

import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from wspin.data.chat import ChatTokenizer
from wspin.engine.packing import Item
from wspin.errors import StudyError
from wspin.storage import tables

Paths = Sequence[str]
Metadata = dict[str, Any]


def training_sets(
    loss: str, rows: str, reference: Paths, weights: list[Paths], replays: int, chat: ChatTokenizer, expected: Metadata
) -> list[list[Item]]:
    """The items to train on, in one list per response set: this iteration's, then the replayed ones, latest first.

    Items are answers for sft, pairs with their reference otherwise, with token weights for wspin; the sets share the
    chosen answers. `reference` holds the shards of the start model's log-probabilities, `weights` those of each set, as
    the set's own iteration trained on them; `expected` is the metadata that the files must have. Raises `StudyError` if
    files are missing, or belong to other rows, token ids, another model, tokenizer or precision.
    """
    table = tables.read(rows, "prompts" if rows.endswith("prompts.parquet") else "preferences")
    prompts = [np.array(ids, dtype=np.int32) for ids in chat.batch_prompt_ids(table["prompt"].to_pylist())]
    if loss == "sft":
        responses = [np.array(ids, dtype=np.int32) for ids in chat.batch_response_ids(table["response"].to_pylist())]
        return [[Item(prompt, (response,)) for prompt, response in zip(prompts, responses, strict=True)]]
    if not reference:
        raise StudyError(f"train: loss {loss}: expected the start model's log-probabilities (--reference), found none")
    scored = tables.read_shards(reference, "reference", replays, **expected)
    tables.check_same_rows(rows, table["prompt_id"].to_pylist(), reference[0], scored["prompt_id"].to_pylist())
    sides = ["rejected", *tables.replayed_sides(replays)]
    token_weights = _token_weights(loss, weights, len(reference), scored, sides, expected)
    chosen, sets = _answers(scored, "chosen"), []
    for side, of_pairs in zip(sides, token_weights, strict=True):
        pairs = zip(prompts, *chosen, *_answers(scored, side), of_pairs, strict=True)
        sets.append([Item(prompt, (a, b), (log_a, log_b), w) for prompt, a, log_a, b, log_b, w in pairs])
    return sets


def group_by_prompt(sets: Sequence[Sequence[Item]]) -> list[Item]:
    """One item per prompt instead of its pairs, one from each response set, which share the chosen answer.

    The pairs keep their own references and weights: each pair's weights of the chosen answer come from its student.
    """
    sides = tuple(side for rejected in range(1, len(sets) + 1) for side in (0, rejected))
    items = []
    for pairs in zip(*sets, strict=True):
        responses = (pairs[0].responses[0], *(pair.responses[1] for pair in pairs))
        reference = tuple(values for pair in pairs for values in pair.reference)
        weights = tuple(values for pair in pairs for values in pair.weights)
        items.append(Item(pairs[0].prompt, responses, reference, weights, sides))
    return items


def by_folder(paths: Paths) -> list[list[str]]:
    """The files of each folder, in the order given: every iteration's shards are in a folder of its own."""
    return [list(files) for _, files in groupby(paths, os.path.dirname)]


def _token_weights(
    loss: str, weights: list[Paths], shards: int, scored: pa.Table, sides: list[str], expected: Metadata
) -> list[list[tuple[np.ndarray, ...]]]:
    """(chosen, rejected) weights of every pair, by response set; () for other losses. Raises `StudyError`."""
    count = sum(map(len, weights))
    if loss != "wspin":
        if count:
            raise StudyError(f"train: loss {loss}: expected no token weights (--weights), found {count} files")
        return [[()] * scored.num_rows for _ in sides]
    if [len(paths) for paths in weights] != [shards] * len(sides):
        needed = f"token weights (--weights) of {len(sides)} response sets in {shards} shards each"
        raise StudyError(f"train: loss wspin: expected {needed}, found {count} files; weigh them first")
    by_set = []
    for side, paths in zip(sides, weights, strict=True):
        # The start model generated this iteration's answers, but not the replayed ones.
        keys = ("tokenizer", "model") if side == "rejected" else ("tokenizer",)
        by_set.append(_pair_weights(paths, scored, side, {key: expected[key] for key in keys}))
    return by_set


def _pair_weights(paths: Paths, scored: pa.Table, side: str, expected: Metadata) -> list[tuple[np.ndarray, ...]]:
    """Token weights of every pair of a response set, whose rejected answers are `side` of the reference.

    Raises `StudyError` if the shards were not all made alike, or belong to other token ids.
    """
    alike = tables.metadata(tables.read(paths[0], "weights", **expected), "model", "settings", "teacher", "seed")
    table = tables.read_shards(paths, "weights", **{**expected, **alike})
    tables.check_same_rows("reference", scored["prompt_id"].to_pylist(), paths[0], table["prompt_id"].to_pylist())
    tables.check_weighted_ids(paths[0], table, scored, side)
    by_side = []
    for name, answers in zip(tables.SIDES, ("chosen", side), strict=True):
        weights, ids = tables.row_arrays(table, f"{name}_weights"), tables.row_arrays(scored, f"{answers}_token_ids")
        if list(map(len, weights)) != list(map(len, ids)):
            message = "expected one per token, found another number; weigh the answers again"
            raise StudyError(f"{paths[0]}: {name}_weights: {message}")
        by_side.append(weights)
    return list(zip(*by_side, strict=True))


def _answers(scored: pa.Table, side: str) -> list[list[np.ndarray]]:
    """Token ids and log-probabilities of the answers of one side. Raises `StudyError` if their numbers differ."""
    answers = [tables.row_arrays(scored, f"{side}_{part}") for part in ("token_ids", "logprobs")]
    for row, (ids, logprobs) in enumerate(zip(*answers, strict=True)):
        if len(ids) != len(logprobs):
            found = f"expected {len(ids)} log-probabilities, found {len(logprobs)}; score again"
            raise StudyError(f"reference, row {row}, {side}: {found}")
    return answers
