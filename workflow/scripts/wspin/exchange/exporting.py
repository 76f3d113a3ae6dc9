"""The pairs of an iteration from the files of a study."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from wspin.storage import tables

from . import jsonl
from .jsonl import Pair


def read_iteration(
    rows: str, generations: Sequence[str], weights: Sequence[str]
) -> tuple[pa.Table, pa.Table, pa.Table | None]:
    """The study's rows, the answers of all shards, and their weights, if any.

    Raises `StudyError` unless all have the same prompts and one model.
    """
    prompts = tables.read(rows, "prompts")
    ids = prompts["prompt_id"].to_pylist()
    answers = tables.read_shards(generations, "generations")
    tables.check_same_rows(rows, ids, generations[0], answers["prompt_id"].to_pylist())
    student = tables.metadata(tables.read(generations[0], "generations"), "model", "tokenizer")
    final = tables.read_shards(weights, "weights", **student) if weights else None
    if final:
        tables.check_same_rows(rows, ids, weights[0], final["prompt_id"].to_pylist())
    return prompts, answers, final


def study_pairs(
    rows: pa.Table, generations: pa.Table, weights: pa.Table | None, render: Callable[[str], str] = str
) -> Iterator[Pair]:
    """The pairs of an iteration from its tables, which hold the same rows: prompts, answers and, if any, weights.

    `render` makes the prompt that is written from the study's.
    """
    columns = [rows["prompt"], rows["response"], *map(generations.column, ("response", "finish_reason", "token_ids"))]
    final = {side: tables.row_arrays(weights, f"{side}_weights") for side in tables.SIDES} if weights else {}
    for row, values in enumerate(zip(*(column.to_pylist() for column in columns), strict=True)):
        prompt, chosen, rejected, reason, ids = values
        token_weights, eos_weights = {}, {}
        for side, answers in final.items():
            # A real answer always has EOS; a truncated one may have EOS beyond its ids (`eos_on_cut`).
            count = len(answers[row]) - 1 if side == "chosen" else len(ids) - (reason == "stop")
            token_weights[side] = answers[row][:count]
            if len(answers[row]) > count:
                eos_weights[side] = jsonl.shortest(answers[row][count:])[0]
        yield Pair(f"row {row}", render(prompt), chosen, rejected, reason, ids, token_weights, eos_weights)
