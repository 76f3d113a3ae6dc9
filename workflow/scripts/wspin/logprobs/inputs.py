"""The answers that a model scores, as tokens: from the study's files, and to the columns of a log-probability file.

Token ids are computed once and kept: real answers are tokenized when they are scored, generated ones keep the ids that
the engine sampled. A teacher with another tokenizer tokenizes their text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wspin.data.chat import ChatTokenizer
from wspin.engine.packing import Item
from wspin.garbage import uncollected
from wspin.storage import tables


class Tokens(NamedTuple):
    """An answer's ids, and where each token ends in its text, in characters."""

    ids: list[int]
    ends: list[int]

    def truncated(self, limit: int) -> Self:
        """The first tokens, at most `limit`, without those that hold only some bytes of their last character."""
        while 0 < limit < len(self.ids) and self.ends[limit - 1] == self.ends[limit]:
            limit -= 1
        return Tokens(self.ids[:limit], self.ends[:limit])


@dataclass(frozen=True)
class ScoringInputs:
    """Answers to the prompts of one shard by side (a scorer's only side is ""), and metadata for their file."""

    rows: pa.Table
    sides: dict[str, list[Tokens]]
    metadata: dict[str, Any]

    @uncollected()
    def items(self, chat: ChatTokenizer) -> list[Item]:
        """One item per prompt with all its answers, in the order of the sides."""
        prompts = [np.array(ids, dtype=np.int32) for ids in chat.batch_prompt_ids(self.rows["prompt"].to_pylist())]
        answers = [[np.array(tokens.ids, dtype=np.int32) for tokens in side] for side in self.sides.values()]
        return [Item(prompt, responses) for prompt, *responses in zip(prompts, *answers, strict=True)]

    def columns(self, scores: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """Columns of the file: ids, ends and, from the items' scores, log-probabilities of each side."""
        columns: dict[str, Any] = {"prompt_id": self.rows["prompt_id"].to_pylist()}
        for i, (side, answers) in enumerate(self.sides.items()):
            prefix = f"{side}_" if side else ""
            columns[f"{prefix}token_ids"] = [tokens.ids for tokens in answers]
            columns[f"{prefix}ends"] = [tokens.ends for tokens in answers]
            columns[f"{prefix}logprobs"] = [score[i] for score in scores]
        return columns


@uncollected()
def iteration_answers(
    rows: pa.Table, generations: str, replayed: Sequence[str], chat: ChatTokenizer, opponent: dict[str, Any]
) -> ScoringInputs:
    """The answers that iteration k trains on: real, this iteration's, and replayed ones (the latest first).

    `rows` are the prompts of one shard; `opponent` is the metadata expected of this iteration's generations, and of the
    replayed ones too but for the model. Raises `StudyError` if a file belongs to other rows, model or tokenizer.
    """
    sides = {"chosen": _real_tokens(rows["response"].to_pylist(), chat)}
    for side, path in zip(["rejected", *tables.replayed_sides(len(replayed))], [generations, *replayed], strict=True):
        expected = {key: value for key, value in opponent.items() if key != "model" or side == "rejected"}
        table = _read_generations(rows, path, **expected)
        answers = zip(table["token_ids"].to_pylist(), table["finish_reason"].to_pylist(), strict=True)
        ids = [chat.generated_ids(token_ids, reason) for token_ids, reason in answers]
        sides[side] = list(map(Tokens, ids, chat.batch_token_ends(ids, _text_lengths(table))))
    texts = tables.texts_hash(rows["prompt"].to_pylist(), rows["response"].to_pylist())
    metadata = {"eos_on_cut": chat.settings.eos_on_cut, "texts": texts}
    return ScoringInputs(rows, sides, _tokenizer_metadata(chat) | metadata)


@uncollected()
def preference_answers(rows: pa.Table, chat: ChatTokenizer) -> ScoringInputs:
    """Chosen and rejected answers of preference pairs, EOS included."""
    texts = {side: rows[side].to_pylist() for side in tables.SIDES}
    sides = {side: _real_tokens(texts[side], chat) for side in tables.SIDES}
    prompts = rows["prompt"].to_pylist()
    hashes = {f"{side}_texts": tables.texts_hash(prompts, texts[side]) for side in tables.SIDES}
    return ScoringInputs(rows, sides, _tokenizer_metadata(chat) | hashes)


@uncollected()
def scorer_answers(
    rows: pa.Table, column: str, generations: Sequence[str], chat: ChatTokenizer, tokenizer: str, context: int
) -> ScoringInputs:
    """The answers in a column of the rows, or those of a file of generations, as a scorer scores them: without EOS.

    The generations' ids are kept if they were sampled with the scorer's own `tokenizer` (its hash). A conversation
    longer than the scorer's `context`, in tokens, is truncated.
    """
    table = _read_generations(rows, generations[0]) if generations else rows
    texts = table["response" if generations else column].to_pylist()
    if generations and tables.metadata(table)["tokenizer"] == tokenizer:
        stopped = [reason == "stop" for reason in table["finish_reason"].to_pylist()]
        ids = [ids[: len(ids) - eos] for ids, eos in zip(table["token_ids"].to_pylist(), stopped, strict=True)]
        answers = list(map(Tokens, ids, chat.batch_token_ends(ids, _text_lengths(table))))
    else:
        answers = [Tokens(*tokens) for tokens in chat.tokenize_responses(texts)]
    limits = [max(0, context - len(ids)) for ids in chat.batch_prompt_ids(rows["prompt"].to_pylist())]
    scored = [tokens.truncated(limit) for tokens, limit in zip(answers, limits, strict=True)]
    metadata = {
        "texts": tables.texts_hash(rows["prompt"].to_pylist(), texts),
        "unread": sum(len(tokens.ids) for tokens in answers) - sum(len(tokens.ids) for tokens in scored),
        "special_ids": _special_ids(chat),
    }
    return ScoringInputs(rows, {"": scored}, metadata)


def _real_tokens(texts: list[str], chat: ChatTokenizer) -> list[Tokens]:
    """Real answers with EOS; token ends refer to the texts as the source has them."""
    answers = zip(texts, chat.tokenize_responses(texts), strict=True)
    return [Tokens([*ids, chat.eos], [*ends, len(text)]) for text, (ids, ends) in answers]


def _read_generations(rows: pa.Table, path: str, **expected: Any) -> pa.Table:
    table = tables.read(path, "generations", **expected)
    tables.check_same_rows("data/prompts.parquet", rows["prompt_id"].to_pylist(), path, table["prompt_id"].to_pylist())
    return table


def _text_lengths(generations: pa.Table) -> list[int] | None:
    """Characters of the answers as decoded; None where their texts are given: ids may stand for other characters."""
    return None if "given" in tables.metadata(generations) else pc.utf8_length(generations["response"]).to_pylist()


def _special_ids(chat: ChatTokenizer) -> list[int]:
    return sorted(set(chat.special_tokens.values()))


def _tokenizer_metadata(chat: ChatTokenizer) -> dict[str, Any]:
    """What a reader without the tokenizer needs to find EOS and the tokens that stand for no text."""
    return {"special_ids": _special_ids(chat), "tokenizer_size": len(chat.tokenizer), "eos": chat.eos}
