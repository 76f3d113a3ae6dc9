"""From the study's files to what is scored: answers as tokens, and back to the columns of a file of log-probabilities.

Token ids are made once and kept. Real answers are tokenised when they are scored, generated ones keep the engine's ids.
A teacher with another tokenizer reads their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from wspin.data.chat import ChatTokenizer
from wspin.engine.packing import Item
from wspin.storage import tables


class Tokens(NamedTuple):
    """An answer's ids, and where each token ends in its text, in characters."""

    ids: list[int]
    ends: list[int]

    def within(self, room: int) -> Tokens:
        """The first tokens, at most `room`, without those that hold only some bytes of their last character."""
        while 0 < room < len(self.ids) and self.ends[room - 1] == self.ends[room]:
            room -= 1
        return Tokens(self.ids[:room], self.ends[:room])


@dataclass(frozen=True)
class Answers:
    """Answers to one shard of prompts, by side (a teacher's have none: ""), and what a file of them has to tell."""

    rows: pa.Table
    sides: dict[str, list[Tokens]]
    made_with: dict[str, Any] = field(default_factory=dict)

    def items(self, dialogue: ChatTokenizer) -> list[Item]:
        """One item per prompt with all its answers, in the order of the sides."""
        prompts = [np.array(dialogue.prompt_ids(prompt), dtype=np.int32) for prompt in self.rows["prompt"].to_pylist()]
        answers = [[np.array(tokens.ids, dtype=np.int32) for tokens in side] for side in self.sides.values()]
        return [Item(prompt, responses) for prompt, *responses in zip(prompts, *answers, strict=True)]

    def columns(self, scores: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Columns of the file: ids, ends and, from the items' scores, log-probabilities of each side."""
        columns: dict[str, Any] = {"prompt_id": self.rows["prompt_id"].to_pylist()}
        for place, (side, answers) in enumerate(self.sides.items()):
            prefix = f"{side}_" if side else ""
            columns[f"{prefix}token_ids"] = [tokens.ids for tokens in answers]
            columns[f"{prefix}ends"] = [tokens.ends for tokens in answers]
            columns[f"{prefix}logprobs"] = [score[place] for score in scores]
        return columns


def iteration_answers(
    rows: pa.Table,
    generations: str,
    replayed: Sequence[str],
    dialogue: ChatTokenizer,
    opponent: dict[str, Any],
    any_model: dict[str, Any],
) -> Answers:
    """Answers that iteration k needs of its opponent: real, this iteration's, and those replayed (the latest first).

    `rows` are the prompts of one shard; `opponent` is what this iteration's generations must have been made with,
    `any_model` what all must. Raises `StudyError` where a file belongs to other rows, another model or tokenizer.
    """
    sides = {"chosen": [_real(text, dialogue) for text in rows["response"].to_pylist()]}
    names = tables.replayed_sides(len(replayed)) if replayed else []
    files = [("rejected", generations, opponent), *((*one, any_model) for one in zip(names, replayed, strict=True))]
    for side, path, expected in files:
        table = _generated(rows, path, **expected)
        ended = zip(table["token_ids"].to_pylist(), table["finish_reason"].to_pylist(), strict=True)
        ids = [dialogue.generated_ids(ids, reason) for ids, reason in ended]
        sides[side] = [Tokens(one, dialogue.token_ends(one)) for one in ids]
    texts = tables.texts_hash(rows["prompt"].to_pylist(), rows["response"].to_pylist())
    made_with = {"eos_on_cut": dialogue.settings.eos_on_cut, "texts": texts}
    return Answers(rows, sides, {**_closing(dialogue), **made_with})


def preference_answers(rows: pa.Table, dialogue: ChatTokenizer) -> Answers:
    """Chosen and rejected answers of preference pairs; both ended by themselves."""
    sides = {side: [_real(text, dialogue) for text in rows[side].to_pylist()] for side in tables.SIDES}
    return Answers(rows, sides, _closing(dialogue))


def teacher_answers(
    rows: pa.Table, generations: Sequence[str], dialogue: ChatTokenizer, tokenizer: str, context: int
) -> Answers:
    """The real answers, or those of a file of generations, as a teacher reads them: without EOS.

    Where the generations were made with the teacher's own `tokenizer` (its fingerprint), it reads their very ids. A
    conversation longer than its `context` is read as far as that goes.
    """
    table = _generated(rows, generations[0]) if generations else rows
    texts = table["response"].to_pylist()
    if generations and tables.metadata(table)["tokenizer"] == tokenizer:
        closed = [reason == "stop" for reason in table["finish_reason"].to_pylist()]
        ids = [one[: len(one) - end] for one, end in zip(table["token_ids"].to_pylist(), closed, strict=True)]
        tokens = [Tokens(one, dialogue.token_ends(one)) for one in ids]
    else:
        tokens = [Tokens(*dialogue.tokenize_response(text)) for text in texts]
    rooms = [max(0, context - len(dialogue.prompt_ids(prompt))) for prompt in rows["prompt"].to_pylist()]
    read = [one.within(room) for one, room in zip(tokens, rooms, strict=True)]
    unread = sum(len(one.ids) for one in tokens) - sum(len(one.ids) for one in read)
    told = {"texts": tables.texts_hash(rows["prompt"].to_pylist(), texts), "unread": unread}
    return Answers(rows, {"": read}, {**told, "special_ids": sorted(set(dialogue.special_tokens.values()))})


def _real(text: str, dialogue: ChatTokenizer) -> Tokens:
    """A real answer always ended by itself; its tokens end in the text as the source has it."""
    ids, ends = dialogue.tokenize_response(text)
    return Tokens([*ids, dialogue.eos], [*ends, len(text)])


def _generated(rows: pa.Table, path: str, **expected: Any) -> pa.Table:
    table = tables.read(path, "generations", **expected)
    tables.check_same_rows("data/prompts.parquet", rows["prompt_id"].to_pylist(), path, table["prompt_id"].to_pylist())
    return table


def _closing(dialogue: ChatTokenizer) -> dict[str, Any]:
    """What a reader without tokenizer needs to tell text from what is none."""
    told = {"special_ids": sorted(set(dialogue.special_tokens.values())), "tokenizer_size": len(dialogue.tokenizer)}
    return {**told, "eos": dialogue.eos}
