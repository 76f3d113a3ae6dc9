"""Ready-made answers and weights that stand in for those of iteration 0."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables
from wspin.storage.files import sha256

from .jsonl import Pair, Row, _start, read


def source(path: str) -> dict[str, str]:
    """What metadata say of a given file: its name and hash."""
    return {"file": Path(path).name, "sha256": sha256(path)}


def find(path: str, rows: pa.Table) -> list[Pair]:
    """The pairs with the prompts and real answers of `rows`, in their order.

    Raises `StudyError` unless each stands exactly once in the file.
    """
    keys = list(zip(rows["prompt"].to_pylist(), rows["response"].to_pylist(), strict=True))
    wanted, found = set(keys), {}
    for pair in read(path):
        if pair.key in wanted and found.setdefault(pair.key, pair) is not pair:
            first = found[pair.key].place.rpartition(":")[2]
            told = f"expected a prompt with its real answer once, found it in line {first} too"
            raise StudyError(f"{pair.place}: {told}; remove one, or import the file")
    for key in keys:
        if key not in found:
            told = f"expected prompt {_start(key[0])} with its real answer {_start(key[1])}, found no such row"
            raise StudyError(f"{path}: {told}; the study's rows and this file must come from one source")
    return [found[key] for key in keys]


# In place of a stage


def answers(pairs: Sequence[Pair], dialogue: Any, longest: int) -> Row:
    """Columns of the generated answers: ids, and the text that they spell, which may be normalised. Raises as `ids`."""
    ids = [pair.ids(dialogue, longest) for pair in pairs]
    reasons = [pair.finish_reason for pair in pairs]
    return {"response": list(map(dialogue.decode_response, ids)), "token_ids": ids, "finish_reason": reasons}


def weights(pairs: Sequence[Pair], generations: pa.Table, reference: pa.Table, eos_weight: float) -> Row:
    """Columns of token weights for these answers and the tokens in which the student has read them.

    Raises `StudyError` where the file has another answer than the study, or another number of weights.
    """
    for pair, said in zip(pairs, generations["response"].to_pylist(), strict=True):
        if unicodedata.normalize("NFC", pair.rejected) != unicodedata.normalize("NFC", said):
            told = f"expected the answer of generate.given, {_start(said)}, found {_start(pair.rejected)}"
            raise StudyError(f"{pair.place}: rejected: {told}")
    eos, columns = tables.metadata(reference)["eos"], {"ids_hash": tables.ids_hashes(reference, "rejected")}
    for side in tables.SIDES:
        made = []
        for pair, ids in zip(pairs, tables.row_arrays(reference, f"{side}_token_ids"), strict=True):
            closed = len(ids) > 0 and int(ids[-1]) == eos
            made.append(pair.weights_of(side, len(ids) - closed, closed, eos_weight))
        columns[f"{side}_weights"] = made
    return columns


def counts(pairs: Sequence[Pair]) -> dict[str, dict[str, int]]:
    """Counts of given weights by side: their tokens. How many log-ratios were at a bound or missing, no file tells."""
    return {side: {"tokens": sum(len(pair.weights[side]) for pair in pairs)} for side in tables.SIDES}
