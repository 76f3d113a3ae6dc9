"""Rows of the published data sets, parsed as first turns or preference pairs."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables

Row = dict[str, Any]


class Split(Sequence):
    """The rows of a split, parsed one at a time: a data set need not fit into memory as Python objects."""

    def __init__(self, table: pa.Table, parse_row: Callable[[Row], Any]):
        self.table, self.parse_row = table, parse_row

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):  # a table without columns has rows wherever it is sliced
            raise IndexError(index)
        return self.parse_row(self.table.slice(index, 1).to_pylist()[0])


def read_split(folder: str | Path, split: str, parse_row: Callable[[Row], Any]) -> Split:
    """One split of a fetched data set. Raises `StudyError` if it is missing."""
    path = Path(folder) / f"{split}.parquet"
    if not path.exists():
        splits = ", ".join(sorted(file.stem for file in Path(folder).glob("*.parquet"))) or "nothing"
        raise StudyError(f"{path}: expected split {split!r}, found {splits}; fetch the data set again")
    return Split(tables.read_parquet(path), parse_row)


def split_texts(folder: str | Path, split: str) -> Iterator[str]:
    """Prompts and answers of a split, for training a tokenizer."""
    for turn in read_split(folder, split, first_turn):
        yield from turn or ()


def first_turn(row: Row) -> tuple[str, str] | None:
    """(prompt, response): the first user turn and the answer to it; None where the row has none.

    Formats: `messages` (role, content); Alpaca's `instruction`, `input` and `output`; `prompt` with `response`.
    """
    if row.get("messages"):
        turns = [(turn.get("role"), turn.get("content")) for turn in row["messages"] if turn.get("role") != "system"]
        if [role for role, _ in turns[:2]] != ["user", "assistant"]:
            return None
        prompt, response = turns[0][1], turns[1][1]
    elif "instruction" in row:
        prompt, response = "\n\n".join(filter(None, (row["instruction"], row.get("input")))), row.get("output")
    else:
        prompt, response = row.get("prompt"), row.get("response")
    return (prompt, response) if prompt and response is not None else None


def chosen_only(row: Row) -> tuple[str, str, None] | None:
    """(prompt, chosen, None): a first turn as a pair without a rejected answer."""
    turn = first_turn(row)
    return turn and (*turn, None)


def preference_pair(row: Row) -> tuple[str, str, str] | None:
    """(prompt, chosen, rejected); an answer is a text, or a conversation whose last turn is the answer."""
    prompt, chosen, rejected = row.get("prompt"), _answer(row.get("chosen")), _answer(row.get("rejected"))
    is_pair = isinstance(prompt, str) and prompt and chosen is not None and rejected is not None
    return (prompt, chosen, rejected) if is_pair else None


def _answer(value: Any) -> str | None:
    if isinstance(value, list):
        return value[-1].get("content") if value and value[-1].get("role") == "assistant" else None
    return value if isinstance(value, str) else None
