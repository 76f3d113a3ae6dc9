"""Files of SPIN's and TIS-DPO's codes, into a study and out of one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wspin.errors import StudyError, first_line
from wspin.storage import tables

FORMATS = ("spin", "tis-dpo")
REASONS = ("stop", "length")
ROLES = ["user", "assistant"]

Row = dict[str, Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A prompt with its real and its generated answer, and what a file tells of them."""

    place: str  # file and line
    prompt: str
    chosen: str
    rejected: str
    finish_reason: str = "stop"
    token_ids: list[int] | None = None  # of the generated answer, with its EOS
    weights: dict[str, Floats] = field(default_factory=dict)  # by side, one per token, EOS left out
    eos_weights: dict[str, float] = field(default_factory=dict)  # by side

    @property
    def key(self) -> tuple[str, str]:
        """What a study finds a pair by."""
        return self.prompt, self.chosen

    def ids(self, dialogue: Any, longest: int) -> list[int]:
        """Ids of the generated answer in the study's tokenizer (`dialogue.Dialogue`), EOS where it ended by itself.

        Raises `StudyError` if the file's own ids are not those of its text, if there is none, or if there are more than
        `longest`: later stages have room for so many, and cut none.
        """
        stopped = self.finish_reason == "stop"
        ids = self.token_ids
        if ids is None:
            ids = [*dialogue.tokenize_response(self.rejected)[0], *[dialogue.eos] * stopped]
        elif (ids[-1:] == [dialogue.eos]) != stopped or not self._is_said(ids, dialogue):
            told = "expected those of its text and end, found others; leave them out"
            raise StudyError(f"{self.place}: token_ids: {told}")
        if not 0 < len(ids) <= longest:
            told = f"expected 1 to {longest} tokens (generate.max_new_tokens), found {len(ids)}"
            raise StudyError(f"{self.place}: rejected: {told}; take another bound, or another answer")
        return ids

    def _is_said(self, ids: list[int], dialogue: Any) -> bool:
        return max(ids, default=0) < len(dialogue.tokenizer) and dialogue.decode_response(ids) == self.rejected

    def weights_of(self, side: str, count: int, closed: bool, eos_weight: float) -> Floats:
        """Final weights of one side's `count` tokens, and of its EOS if it is `closed`: the file's own or `eos_weight`.

        Raises `StudyError` if the file has none, or another number.
        """
        key = f"{side}_weight"
        if side not in self.weights:
            raise StudyError(f"{self.place}: {key}: expected {count} weights, found none; weigh.given needs them")
        found = self.weights[side]
        if len(found) != count:
            told = f"expected {count} weights, one per token of the study's tokenizer without EOS, found {len(found)}"
            raise StudyError(f"{self.place}: {key}: {told}; these are weights of other tokens")
        return np.append(found, [self.eos_weights.get(side, eos_weight)] * closed).astype(np.float32)


# Reading


def read(path: str, form: str | None = None) -> Iterator[Pair]:
    """The pairs of a file; without a `form`, each row shows which it has. Raises `StudyError` with file and line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _pair(f"{path}:{number}", line, form)


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """The first pair of each prompt and real answer: a study finds a pair by these."""
    first: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        first.setdefault(pair.key, pair)
    return list(first.values())


def _pair(place: str, line: bytes, form: str | None) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise StudyError(f"{place}: expected a JSON object, found {first_line(error)}") from None
    if not isinstance(row, dict):
        raise StudyError(f"{place}: expected a JSON object, found {_start(row)}")
    texts = _messages(place, row) if (form or _form(row)) == "spin" else {key: row.get(key) for key in TEXTS}
    for key, text in texts.items():
        _text(place, key, text)
    return Pair(place, **texts, **_ending(place, row), **_weights(place, row))


TEXTS = ("prompt", "chosen", "rejected")


def _form(row: Row) -> str:
    return "spin" if "real" in row else "tis-dpo"


def _messages(place: str, row: Row) -> dict[str, Any]:
    """The texts of one of SPIN's rows."""
    said = {}
    for key in ("real", "generated"):
        turns = row.get(key)
        known = isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
        if not known or [turn.get("role") for turn in turns] != ROLES:
            raise StudyError(f"{place}: {key}: expected a user's and an assistant's message, found {_start(turns)}")
        said[key] = [turn.get("content") for turn in turns]
    (prompt, real), (again, generated) = said.values()
    if prompt != again:
        raise StudyError(f"{place}: generated: expected the user's message of real, found {_start(again)}")
    return {"prompt": prompt, "chosen": real, "rejected": generated}


def _text(place: str, key: str, text: Any) -> None:
    if not isinstance(text, str):
        raise StudyError(f"{place}: {key}: expected a text, found {'nothing' if text is None else _start(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        told = "expected Unicode text, found half of a character (\\ud800 to \\udfff)"
        raise StudyError(f"{place}: {key}: {told}") from None


def _ending(place: str, row: Row) -> dict[str, Any]:
    reason, ids = row.get("finish_reason", "stop"), row.get("token_ids")
    if reason not in REASONS:
        raise StudyError(f"{place}: finish_reason: expected {' or '.join(REASONS)}, found {_start(reason)}")
    if ids is not None and not (isinstance(ids, list) and all(type(one) is int and 0 <= one < 2**31 for one in ids)):
        raise StudyError(f"{place}: token_ids: expected a list of token ids, found {_start(ids)}")
    return {"finish_reason": reason, "token_ids": ids}


def _weights(place: str, row: Row) -> dict[str, Any]:
    told: dict[str, dict[str, Any]] = {"weights": {}, "eos_weights": {}}
    for side in tables.SIDES:
        if (some := row.get(key := f"{side}_weight")) is not None:
            told["weights"][side] = _floats(place, key, some if isinstance(some, list) else [None])
        if (one := row.get(key := f"{side}_eos_weight")) is not None:
            told["eos_weights"][side] = float(_floats(place, key, [one])[0])
    if len(told["weights"]) == 1:
        (other,) = set(tables.SIDES).difference(told["weights"])
        raise StudyError(f"{place}: {other}_weight: expected a list of weights as on the other side, found none")
    return told


def _floats(place: str, key: str, values: list[Any]) -> Floats:
    numbers = all(type(one) is float or (type(one) is int and abs(one) < 2**64) for one in values)
    with np.errstate(over="ignore"):
        made = np.array(values if numbers else [np.nan], dtype=np.float64).astype(np.float32)
    if not np.isfinite(made).all():
        raise StudyError(f"{place}: {key}: expected finite numbers of 32 bits, found {_start(values)}")
    return made


def _start(value: Any) -> str:
    """The beginning of a value, on one line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Writing


def write_rows(path: str | Path, pairs: Sequence[Pair]) -> None:
    """Prompts and real answers as one split of a data set that a study reads (`data.sft.path`)."""
    columns = {"prompt": [pair.prompt for pair in pairs], "response": [pair.chosen for pair in pairs]}
    pq.write_table(pa.table(columns), path, compression="zstd")


def of_study(rows: pa.Table, generations: pa.Table, weights: pa.Table | None) -> Iterator[Pair]:
    """The pairs of an iteration from its tables, in equal order: prompts, answers and, where it has some, weights."""
    columns = [rows["prompt"], rows["response"], generations["response"], generations["finish_reason"]]
    ids = generations["token_ids"].to_pylist()
    by_side = [tables.row_arrays(weights, f"{side}_weights") if weights else [None] * len(ids) for side in tables.SIDES]
    told = zip(*(column.to_pylist() for column in columns), ids, *by_side, strict=True)
    for number, (prompt, chosen, rejected, reason, own, *pair) in enumerate(told):
        of_tokens, of_eos = {}, {}
        if weights:
            # A real answer always ends; a cut one has an EOS where `eos_on_cut` gave it one, behind its ids
            counts = (len(pair[0]) - 1, len(own) - (reason == "stop"))
            for side, count, some in zip(tables.SIDES, counts, pair, strict=True):
                of_tokens[side], of_eos[side] = some[:count], shortest(some[count:])
        eos = {side: some[0] for side, some in of_eos.items() if some}
        yield Pair(f"row {number}", prompt, chosen, rejected, reason, own, of_tokens, eos)


def write(path: str | Path, pairs: Iterable[Pair], form: str) -> None:
    """Write a file in a form."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines(pairs, form))


def lines(pairs: Iterable[Pair], form: str) -> Iterator[str]:
    """The lines of a file in a form. Weights are written as the shortest numbers that are read back bit for bit."""
    for pair in pairs:
        yield json.dumps(_spin(pair) if form == "spin" else _tis_dpo(pair), ensure_ascii=False) + "\n"


def _spin(pair: Pair) -> Row:
    def turns(answer: str) -> list[Row]:
        return [{"role": role, "content": text} for role, text in zip(ROLES, (pair.prompt, answer), strict=True)]

    return {"real": turns(pair.chosen), "generated": turns(pair.rejected), **_beside(pair)}


def _tis_dpo(pair: Pair) -> Row:
    weights = {f"{side}_weight": shortest(some) for side, some in pair.weights.items()}
    eos = {f"{side}_eos_weight": one for side, one in pair.eos_weights.items()}
    return {**{key: getattr(pair, key) for key in TEXTS}, **weights, **eos, **_beside(pair)}


def _beside(pair: Pair) -> Row:
    """How the answer ended and its ids, where they are known."""
    if pair.token_ids is None and pair.finish_reason == "stop":
        return {}
    return {"finish_reason": pair.finish_reason} | ({} if pair.token_ids is None else {"token_ids": pair.token_ids})


def shortest(numbers: Floats) -> list[float]:
    """Numbers of 32 bits as the shortest decimals that name them and no others."""
    return [float(str(number)) for number in numbers]
