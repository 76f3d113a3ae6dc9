"""From the study's files to training items: answers, or pairs with their reference and token weights.

The rows, token ids, models and tokenizers of the files are checked against each other; nothing is tokenised twice.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from wspin.config.stages import Train, TrainedAnswers
from wspin.data.chat import ChatTokenizer
from wspin.engine.packing import Item
from wspin.errors import StudyError
from wspin.storage import tables

Paths = Sequence[str]
Metadata = dict[str, Any]


@dataclass(frozen=True)
class TrainingFiles:
    """The files of one training."""

    rows: str  # prompts.parquet or preferences.parquet
    reference: Paths = ()  # shards of the start model's log-probabilities; none for sft
    weights: Sequence[Paths] = ()  # shards of the weights of each response set, as its own iteration trained on them
    answers: Paths = ()  # shards of another model's answers, for sft on these


def training_items(
    settings: Train, files: TrainingFiles, which: TrainedAnswers, chat: ChatTokenizer, expected: Metadata
) -> list[Item]:
    """The items to train on, from all response sets; with `triplets` one a prompt. See `training_sets`."""
    sets = training_sets(settings.loss, files, which, chat, expected)
    return group_by_prompt(sets) if settings.triplets else [item for pairs in sets for item in pairs]


def training_sets(
    loss: str, files: TrainingFiles, which: TrainedAnswers, chat: ChatTokenizer, expected: Metadata
) -> list[list[Item]]:
    """The items to train on, in one list per response set: this iteration's, then the replayed ones, latest first.

    Items are answers for sft, pairs with their reference otherwise, with token weights for wspin; the sets share the
    chosen answers. `expected` is the metadata that the files must have. Raises `StudyError` if files are missing, or
    belong to other rows, token ids, another model, tokenizer or precision.
    """
    table = tables.read(files.rows, "prompts" if files.rows.endswith("prompts.parquet") else "preferences")
    prompts = [np.array(ids, dtype=np.int32) for ids in chat.batch_prompt_ids(table["prompt"].to_pylist())]
    if loss == "sft":
        texts = table[which.side or "response"].to_pylist()
        responses = _pupil_responses(table, files, prompts, chat) if files.answers else chat.batch_response_ids(texts)
        items = zip(prompts, responses, strict=True)
        return [[Item(prompt, (np.array(response, dtype=np.int32),)) for prompt, response in items]]
    if not files.reference:
        raise StudyError(f"train: loss {loss}: expected the start model's log-probabilities (--reference), found none")
    replays = None if which.unreplayed else which.replays
    scored = tables.read_shards(files.reference, "reference", replays, **expected)
    ids = table["prompt_id"].to_pylist()
    tables.check_same_rows(files.rows, ids, files.reference[0], scored["prompt_id"].to_pylist())
    sides = ["rejected", *tables.replayed_sides(which.replays)]
    token_weights = _token_weights(loss, files.weights, len(files.reference), scored, sides, expected)
    chosen, sets = _answers(scored, "chosen"), []
    order = slice(None, None, -1 if which.reverse else 1)
    for side, of_pairs in zip(sides, token_weights, strict=True):
        pairs = zip(prompts, *chosen, *_answers(scored, side), of_pairs, strict=True)
        sets.append([Item(prompt, (a, b)[order], (p, q)[order], w[order]) for prompt, a, p, b, q, w in pairs])
    return sets


def _pupil_responses(
    table: pa.Table, files: TrainingFiles, prompts: Sequence[np.ndarray], chat: ChatTokenizer
) -> list[list[int]]:
    """Ids of another model's answers in this model's tokenizer (sequence-level distillation, arXiv 1606.07947).

    Truncated ones have no EOS unless `eos_on_cut` is set, nor have those that are truncated here, since they are longer
    than `dialogue.max_tokens` in this tokenizer.
    """
    answers = tables.read_shards(files.answers, "generations")
    ids = table["prompt_id"].to_pylist()
    tables.check_same_rows(files.rows, ids, files.answers[0], answers["prompt_id"].to_pylist())
    responses, too_long = [], 0
    encoded = chat.batch_response_ids(answers["response"].to_pylist())
    for prompt, response, reason in zip(prompts, encoded, answers["finish_reason"].to_pylist(), strict=True):
        room = chat.settings.max_tokens - len(prompt)
        closed = reason == "stop" or chat.settings.eos_on_cut
        too_long += len(response) > room
        responses.append(response[: min(room, len(response) - (not closed))] or response[:1])
    print(f"train: {len(responses)} answers of another model, {too_long} truncated here", flush=True)
    return responses


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
    loss: str, weights: Sequence[Paths], shards: int, scored: pa.Table, sides: list[str], expected: Metadata
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
    found = tables.metadata(tables.read(paths[0], "weights", **expected))
    alike = {key: found.get(key) for key in ("model", "settings", "teacher", "positive", "negative", "seed")}
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
