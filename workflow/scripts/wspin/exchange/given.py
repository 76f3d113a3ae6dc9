"""Answers and weights from files, in place of those that iteration 0 would compute."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables
from wspin.storage.files import sha256

from . import jsonl
from .jsonl import Pair, Row, excerpt


def source(path: str) -> dict[str, str]:
    """Metadata of a given file: its name and hash."""
    return {"file": Path(path).name, "sha256": sha256(path)}


def find(path: str, prompts: pa.Table, shard: int, size: int) -> list[Pair]:
    """The pairs with the prompts and real answers of a shard of the study's rows, in their order.

    Equal rows share a pair, or take as many in the order of the file. Raises `StudyError` unless the file holds each
    prompt with its real answer once, or as often as the study does.
    """
    keys = list(zip(prompts["prompt"].to_pylist(), prompts["response"].to_pylist(), strict=True))
    places = range(len(keys))[shard * size : (shard + 1) * size]
    wanted, counts, found = {keys[i] for i in places}, Counter(keys), defaultdict(list)
    for pair in jsonl.read(path):
        if pair.key in wanted:
            found[pair.key].append(pair)
    for prompt, response in keys[shard * size : (shard + 1) * size]:
        if (prompt, response) not in found:
            missing = f"expected prompt {excerpt(prompt)} with its real answer {excerpt(response)}, found no such row"
            raise StudyError(f"{path}: {missing}; the study's rows and this file must come from one source")
    for key, pairs in found.items():
        if len(pairs) not in (1, counts[key]):
            lines = " and ".join(pair.place.rpartition(":")[2] for pair in pairs[:-1])
            often = "once" if counts[key] == 1 else f"once or {counts[key]} times"
            difference = f"expected a prompt with its real answer {often}, found it in line {lines} too"
            raise StudyError(f"{pairs[-1].place}: {difference}; remove one, or import the file")
    before: Counter[tuple[str, str]] = Counter(keys[: shard * size])
    taken = []
    for key in (keys[i] for i in places):
        taken.append(found[key][min(before[key], len(found[key]) - 1)])
        before[key] += 1
    return taken


def answers(pairs: Sequence[Pair], chat: Any, limit: int, vocabulary: int) -> Row:
    """Columns of generations: ids, and the text that they spell, which may be normalised.

    Raises as `Pair.generated_ids`.
    """
    ids = [pair.generated_ids(chat, limit, vocabulary) for pair in pairs]
    reasons = [pair.finish_reason for pair in pairs]
    return {"response": list(map(chat.decode_response, ids)), "token_ids": ids, "finish_reason": reasons}


def weights(pairs: Sequence[Pair], generations: pa.Table, reference: pa.Table, eos_weight: float) -> Row:
    """Columns of final weights for the token ids in `reference`.

    Raises `StudyError` if the file has other answers than `generations`, or another number of weights.
    """
    for pair, response in zip(pairs, generations["response"].to_pylist(), strict=True):
        if unicodedata.normalize("NFC", pair.rejected) != unicodedata.normalize("NFC", response):
            difference = f"expected the answer of generate.given, {excerpt(response)}, found {excerpt(pair.rejected)}"
            raise StudyError(f"{pair.place}: rejected: {difference}")
    eos, columns = tables.metadata(reference)["eos"], {"ids_hash": tables.ids_hashes(reference, "rejected")}
    for side in tables.SIDES:
        final = []
        for pair, ids in zip(pairs, tables.row_arrays(reference, f"{side}_token_ids"), strict=True):
            has_eos = len(ids) > 0 and int(ids[-1]) == eos
            final.append(pair.final_weights(side, len(ids) - has_eos, has_eos, eos_weight))
        columns[f"{side}_weights"] = final
    return columns


def counts(pairs: Sequence[Pair]) -> dict[str, dict[str, int]]:
    """The token counts of given weights by side; a file holds none of the other `tables.WEIGHT_COUNTS`."""
    return {side: {"tokens": sum(len(pair.weights[side]) for pair in pairs)} for side in tables.SIDES}
