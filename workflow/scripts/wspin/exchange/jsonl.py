"""Import and export of SPIN's and TIS-DPO's JSONL."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wspin.errors import StudyError, first_line
from wspin.storage import strict_json, tables

FORMATS = ("spin", "tis-dpo")
TEXTS = ("prompt", "chosen", "rejected")
REASONS = ("stop", "length")
ROLES = ["user", "assistant"]

# What a file begins with that holds its rows in another way
OTHER_FILES = {b"\x1f\x8b": "gzip data", b"BZh": "bzip2 data", b"\xfd7zXZ": "xz data", b"\x28\xb5\x2f\xfd": "zstd data"}
OTHER_FILES |= {b"PK\x03\x04": "a zip archive", b"PAR1": "parquet", b"ARROW1": "arrow data"}
OTHER_FILES |= {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
REMEDY = "unpack or convert it, for example by the method to_json of datasets"

Row = dict[str, Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A prompt with its real and its generated answer, and what a file holds about them."""

    place: str  # file and line
    prompt: str
    chosen: str
    rejected: str
    finish_reason: str = "stop"
    token_ids: list[int] | None = None  # of the generated answer, EOS included
    weights: dict[str, Floats] = field(default_factory=dict)  # by side, one per token, without EOS
    eos_weights: dict[str, float] = field(default_factory=dict)  # by side

    @property
    def key(self) -> tuple[str, str]:
        """Prompt and real answer, by which a study finds the pair."""
        return self.prompt, self.chosen

    def generated_ids(self, chat: Any, limit: int, vocabulary: int) -> list[int]:
        """Ids of the generated answer under the study's tokenizer (`chat.ChatTokenizer`), with EOS unless truncated.

        `vocabulary`: ids that the model can generate, of which its tokenizer may know fewer. Raises `StudyError` if the
        file's ids do not spell its text, or if there are none or more than `limit` ids: later stages truncate nothing.
        """
        stopped = self.finish_reason == "stop"
        ids = self.token_ids
        if ids is None:
            ids = [*chat.tokenize_response(self.rejected)[0], *[chat.eos] * stopped]
        else:
            has_unknown, has_eos = max(ids, default=0) >= vocabulary, ids[-1:] == [chat.eos]
            if has_unknown or has_eos != stopped or chat.decode_response(ids) != self.rejected:
                difference = "expected ids that spell the answer's text and end, found others"
                raise StudyError(f"{self.place}: token_ids: {difference}; leave them out")
        if not 0 < len(ids) <= limit:
            count = f"expected 1 to {limit} tokens (generate.max_new_tokens), found {len(ids)}"
            raise StudyError(f"{self.place}: rejected: {count}; raise the limit, or replace the answer")
        return ids

    def final_weights(self, side: str, count: int, has_eos: bool, eos_weight: float) -> Floats:
        """Final weights of one side's `count` tokens, and of EOS if it has one: the file's own weight or `eos_weight`.

        Raises `StudyError` if the file has no weights, or another number of them.
        """
        expected = f"{self.place}: {side}_weight: expected {count} weights"
        if side not in self.weights:
            raise StudyError(f"{expected}, found none; weigh.given needs them")
        weights = self.weights[side]
        if len(weights) != count:
            expected += ", one per token of the study's tokenizer without EOS"
            raise StudyError(f"{expected}, found {len(weights)}; these are weights of other tokens")
        return np.append(weights, [self.eos_weights.get(side, eos_weight)] * has_eos).astype(np.float32)


def read(path: str, form: str | None = None) -> Iterator[Pair]:
    """The pairs of a file; without `form`, each row's is detected. Raises `StudyError` with file and line."""
    with open(path, "rb") as file:
        begin = file.peek(8)
        for mark, kind in OTHER_FILES.items():
            if begin.startswith(mark):
                raise StudyError(f"{path}: expected JSON lines as text, found {kind}; {REMEDY}")
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _parse(f"{path}:{number}", line, form)


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """The first pair of each prompt and real answer."""
    first: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        first.setdefault(pair.key, pair)
    return list(first.values())


def _parse(place: str, line: bytes, form: str | None) -> Pair:
    try:
        row = strict_json.parse(line)
    except ValueError as error:
        expected = f"{place}: expected a JSON object on one line"
        raise StudyError(f"{expected}, found {first_line(error)}; correct the line, or copy the file again") from None
    if not isinstance(row, dict):
        found = "a list" if isinstance(row, list) else excerpt(row)
        raise StudyError(
            f"{place}: expected a JSON object, found {found}; write every row as an object on its own line"
        )
    if not row.keys() & {*TEXTS, "real", "generated"}:
        expected = "expected the keys prompt, chosen, rejected (tis-dpo) or real, generated (spin)"
        raise StudyError(f"{place}: {expected}, found {', '.join(row) or 'none'}; rename the columns")
    form = form or ("spin" if "real" in row else "tis-dpo")
    texts = _message_texts(place, row) if form == "spin" else {key: row.get(key) for key in TEXTS}
    for key, text in texts.items():
        _check_text(place, key, text)
    reason, ids = row.get("finish_reason", "stop"), row.get("token_ids")
    _expect(reason in REASONS, place, "finish_reason", " or ".join(REASONS), reason)
    are_ids = isinstance(ids, list) and all(type(i) is int and 0 <= i < 2**31 for i in ids)
    _expect(ids is None or are_ids, place, "token_ids", "a list of token ids", ids)
    weights, eos_weights = _weights(place, row), _eos_weights(place, row)
    return Pair(place, **texts, finish_reason=reason, token_ids=ids, weights=weights, eos_weights=eos_weights)


def _expect(condition: bool, place: str, key: str, expected: str, found: Any) -> None:
    if not condition:
        raise StudyError(f"{place}: {key}: expected {expected}, found {excerpt(found)}; correct or remove the row")


def _message_texts(place: str, row: Row) -> dict[str, Any]:
    """The texts of one of SPIN's rows."""
    contents = {}
    for key in ("real", "generated"):
        messages = row.get(key)
        is_list = isinstance(messages, list) and all(isinstance(message, dict) for message in messages)
        is_turn = is_list and [message.get("role") for message in messages] == ROLES
        _expect(is_turn, place, key, "a user's and an assistant's message", messages)
        contents[key] = [message.get("content") for message in messages]
    (prompt, real), (repeated, generated) = contents.values()
    _expect(prompt == repeated, place, "generated", "the user's message of real", repeated)
    return {"prompt": prompt, "chosen": real, "rejected": generated}


def _check_text(place: str, key: str, text: Any) -> None:
    if not isinstance(text, str):
        found = "nothing" if text is None else excerpt(text)
        raise StudyError(f"{place}: {key}: expected a text, found {found}; correct or remove the row")
    try:
        text.encode()
    except UnicodeEncodeError:
        expected = f"{place}: {key}: expected Unicode text"
        raise StudyError(f"{expected}, found a lone surrogate (\\ud800 to \\udfff); remove it") from None


def _weights(place: str, row: Row) -> dict[str, Floats]:
    weights = {side: row[f"{side}_weight"] for side in tables.SIDES if row.get(f"{side}_weight") is not None}
    if len(weights) == 1:
        (missing,) = set(tables.SIDES).difference(weights)
        expected = f"{place}: {missing}_weight: expected a list of weights as on the other side"
        raise StudyError(f"{expected}, found none; give both or neither")
    return {side: _floats(place, f"{side}_weight", values) for side, values in weights.items()}


def _eos_weights(place: str, row: Row) -> dict[str, float]:
    values = {side: row.get(f"{side}_eos_weight") for side in tables.SIDES}
    return {side: float(_floats(place, f"{side}_eos_weight", [v])[0]) for side, v in values.items() if v is not None}


def _floats(place: str, key: str, values: Any) -> Floats:
    numbers = isinstance(values, list) and all(
        type(value) is float or (type(value) is int and abs(value) < 2**64) for value in values
    )
    with np.errstate(over="ignore"):
        floats = np.array(values if numbers else [np.nan], dtype=np.float64).astype(np.float32)
    if not np.isfinite(floats).all():
        raise StudyError(f"{place}: {key}: expected finite 32-bit numbers, found {excerpt(values)}; correct the row")
    return floats


def excerpt(value: Any) -> str:
    """The beginning of a value as JSON, on one line."""
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "brackets inside each other"
    return text if len(text) <= 60 else f"{text[:57]}..."


def write_rows(path: str | Path, pairs: Sequence[Pair]) -> None:
    """Write prompts and real answers as one split of a data set that a study reads (`data.sft.path`)."""
    columns = {"prompt": [pair.prompt for pair in pairs], "response": [pair.chosen for pair in pairs]}
    tables.write_parquet(path, pa.table(columns))


def write(path: str | Path, pairs: Iterable[Pair], form: str) -> None:
    """Write pairs in one of `FORMATS`."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines(pairs, form))


def lines(pairs: Iterable[Pair], form: str) -> Iterator[str]:
    """The lines of a file in one of `FORMATS`. Weights are the shortest decimals that are read back bit for bit."""
    for pair in pairs:
        yield json.dumps(_spin_row(pair) if form == "spin" else _tis_dpo_row(pair), ensure_ascii=False) + "\n"


def _spin_row(pair: Pair) -> Row:
    def messages(answer: str) -> list[Row]:
        return [{"role": role, "content": text} for role, text in zip(ROLES, (pair.prompt, answer), strict=True)]

    return {"real": messages(pair.chosen), "generated": messages(pair.rejected), **_generation(pair)}


def _tis_dpo_row(pair: Pair) -> Row:
    weights = {f"{side}_weight": shortest(values) for side, values in pair.weights.items()}
    eos = {f"{side}_eos_weight": value for side, value in pair.eos_weights.items()}
    return {**{key: getattr(pair, key) for key in TEXTS}, **weights, **eos, **_generation(pair)}


def _generation(pair: Pair) -> Row:
    """How the generated answer ended, and its ids where the pair has them."""
    if pair.token_ids is not None:
        return {"finish_reason": pair.finish_reason, "token_ids": pair.token_ids}
    return {} if pair.finish_reason == "stop" else {"finish_reason": pair.finish_reason}


def shortest(numbers: Floats) -> list[float]:
    """32-bit numbers as the shortest decimals that identify them."""
    return [float(str(number)) for number in numbers]
