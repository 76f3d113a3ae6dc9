"""From the study's files to items: what is scored, and what is trained on. Row sets, models and tokenizers are checked.

Token ids are made once and kept. Real answers are tokenised when they are scored, generated ones keep the engine's ids;
training takes both, with their reference, from the scored files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from . import StudyError, tables
from .dialogue import Dialogue
from .packing import Item

Answers = dict[str, list[list[int]]]  # side: ids of the answer to each prompt


def iteration_answers(
    rows: pa.Table,
    generations: str,
    replayed: Sequence[str],
    dialogue: Dialogue,
    opponent: dict[str, Any],
    any_model: dict[str, Any],
) -> Answers:
    """Answers that iteration k needs of its opponent: real, this iteration's, and those replayed (the latest first).

    `rows` are the prompts of one shard; `opponent` is what this iteration's generations must have been made with,
    `any_model` what all must. Raises `StudyError` where a file belongs to other rows, another model or tokenizer.
    """
    files = [("rejected", generations, opponent), *((side, path, any_model) for side, path in _replays(replayed))]
    answers: Answers = {"chosen": [dialogue.response_ids(text) for text in rows["response"].to_pylist()]}
    for side, path, expected in files:
        table = tables.read(path, "generations", **expected)
        tables.same_rows("data/prompts.parquet", rows["prompt_id"].to_pylist(), path, table["prompt_id"].to_pylist())
        ended = zip(table["token_ids"].to_pylist(), table["finish_reason"].to_pylist(), strict=True)
        answers[side] = [dialogue.completed(ids, reason) for ids, reason in ended]
    return answers


def preference_answers(rows: pa.Table, dialogue: Dialogue) -> Answers:
    """Chosen and rejected answers of preference pairs; both ended by themselves."""
    return {side: [dialogue.response_ids(text) for text in rows[side].to_pylist()] for side in ("chosen", "rejected")}


def scoring_items(rows: pa.Table, answers: Answers, dialogue: Dialogue) -> list[Item]:
    """One item per prompt with all its answers, in the order of `answers`."""
    prompts = [np.array(dialogue.prompt_ids(prompt), dtype=np.int32) for prompt in rows["prompt"].to_pylist()]
    sides = [[np.array(ids, dtype=np.int32) for ids in side] for side in answers.values()]
    return [Item(prompt, responses) for prompt, *responses in zip(prompts, *sides, strict=True)]


def reference_columns(
    rows: pa.Table, answers: Answers, scores: Sequence[Sequence[np.ndarray]], dialogue: Dialogue
) -> dict[str, Any]:
    """Columns of a `reference` file: ids, ends and log-probabilities of each side."""
    columns: dict[str, Any] = {"prompt_id": rows["prompt_id"].to_pylist()}
    for place, (side, ids) in enumerate(answers.items()):
        columns[f"{side}_token_ids"] = ids
        columns[f"{side}_ends"] = [dialogue.ends(one) for one in ids]
        columns[f"{side}_logprobs"] = [score[place] for score in scores]
    return columns


def training_items(
    loss: str, rows: str, reference: Sequence[str], replays: int, dialogue: Dialogue, expected: dict[str, Any]
) -> list[Item]:
    """What a model is trained on: answers for sft, pairs with their reference otherwise.

    Pairs of this iteration come first, then the replayed ones with the same chosen answers; nothing is de-duplicated.
    Raises `StudyError` if the reference is missing, of other rows, or of another model, tokenizer or precision.
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
    tables.same_rows(rows, table["prompt_id"].to_pylist(), reference[0], scored["prompt_id"].to_pylist())
    chosen = _side(scored, "chosen")
    items = []
    for side in ("rejected", *(tables.replayed_sides(replays) if replays else ())):
        for prompt, (real, real_reference), (other, other_reference) in zip(
            prompts, chosen, _side(scored, side), strict=True
        ):
            items.append(Item(prompt, (real, other), (real_reference, other_reference)))
    return items


def _replays(paths: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(tables.replayed_sides(len(paths)), paths, strict=True)) if paths else []


def _side(scored: pa.Table, side: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, log-probabilities) of one side, row by row. Raises `StudyError` where their lengths differ."""
    ids, logprobs = ([one.as_py() for one in scored[f"{side}_{part}"]] for part in ("token_ids", "logprobs"))
    pairs = [(np.array(a, dtype=np.int32), np.array(b, dtype=np.float32)) for a, b in zip(ids, logprobs, strict=True)]
    for row, (a, b) in enumerate(pairs):
        if len(a) != len(b):
            raise StudyError(
                f"reference, row {row}, {side}: expected {len(a)} log-probabilities, found {len(b)}; score again"
            )
    return pairs
