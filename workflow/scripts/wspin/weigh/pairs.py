"""The pairs whose tokens are weighed: real and generated answers, or the two sides of preference pairs."""

from typing import NamedTuple

import pyarrow as pa

from wspin.storage import tables
from wspin.storage.scored_answers import read_scored_answers


class Pairs(NamedTuple):
    """Chosen and rejected answers to the prompts of one shard, as text by side, and the student's scores of them.

    count: of the shard's first rows, where these alone are read; None: all.
    """

    path: str  # of the rows
    prompt_ids: list[str]
    prompts: list[str]
    texts: dict[str, list[str]]
    reference: pa.Table
    count: int | None = None


def read_first_pairs(rows: str, reference: str, generations: str, count: int) -> Pairs:
    """The first pairs of the first shard, at most `count`; as `read_pairs`, but for the hash of the shard's texts."""
    shard = tables.read(generations, "generations", count=count).num_rows
    table = tables.read(rows, "prompts", count=shard)
    answers, scores = read_scored_answers(rows, table, generations, reference, shard)
    texts = {"chosen": table["response"].to_pylist(), "rejected": answers["response"].to_pylist()}
    return Pairs(rows, table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), texts, scores, shard)


def read_pairs(rows: str, shard: int, size: int, reference: str, generations: str | None) -> Pairs:
    """`rows`: prompts.parquet, whose rejected answers are `generations`, or without these preferences.parquet.

    Raises `StudyError` if the files hold other rows, or the reference scores other texts or token ids.
    """
    table = tables.read_shard(rows, "prompts" if generations else "preferences", shard, size)
    ids, prompts = (table[column].to_pylist() for column in ("prompt_id", "prompt"))
    if generations:
        answers, scores = read_scored_answers(rows, table, generations, reference)
        texts = {"chosen": table["response"].to_pylist(), "rejected": answers["response"].to_pylist()}
        return Pairs(rows, ids, prompts, texts, scores)
    scores = tables.read_reference(reference)
    tables.check_same_rows(rows, ids, reference, scores["prompt_id"].to_pylist())
    texts = {side: table[side].to_pylist() for side in tables.SIDES}
    hashes = {f"{side}_texts": tables.texts_hash(prompts, texts[side]) for side in tables.SIDES}
    tables.check_metadata(reference, scores, **hashes)
    return Pairs(rows, ids, prompts, texts, scores)
