"""Rows of the published data sets, parsed as first turns or preference pairs."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from wspin.errors import StudyError, first_line
from wspin.storage import tables

Row = dict[str, Any]
Turn = tuple[str, str | None]  # role and text
Record = tuple[str | None, ...] | str  # a prompt and its responses, or why a row holds none

# Columns of the forms that are read; a row is of the first form all of whose columns hold a value in it.
TURNS = (
    ("messages",),
    ("conversations",),
    ("real",),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "completion"),
)
PAIRS = (
    ("prompt", "chosen", "rejected"),
    ("conversations", "chosen", "rejected"),
    ("chosen", "rejected"),
    ("real", "generated"),
)
CONTEXT = ("input", "context")  # beside `instruction`: what it is about
SYSTEM_TURNS = ("system", "system_prompt")  # beside any form
MESSAGE_KEYS = ("role", "content", "from", "value", "type", "text")
TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
ROLES = {"human": "user", "gpt": "assistant", "Human": "user", "Assistant": "assistant"}
SPEAKER = re.compile(r"\n\n(Human|Assistant):")  # of a transcript

INCOMPLETE = "without prompt or answer"
SYSTEM = "with a system turn"
SEVERAL_TURNS = "with several turns"
TWO_PROMPTS = "with two prompts"
EQUAL_ANSWERS = "with equal answers"


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

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), 1000):
            yield from map(self.parse_row, self.table.slice(start, 1000).to_pylist())


def read_split(folder: str | Path, split: str, parse_row: Callable[[Row], Any]) -> Split:
    """One split of a fetched data set.

    Raises `StudyError` if it is missing or unreadable, or if it has no columns that `parse_row` reads, or other values
    than text in them.
    """
    path = Path(folder) / f"{split}.parquet"
    if not path.exists():
        splits = ", ".join(sorted(file.stem for file in Path(folder).glob("*.parquet"))) or "nothing"
        raise StudyError(f"{path}: expected split {split!r}, found {splits}; fetch the data set again")
    table = tables.read_parquet(path, remedy="fetch the data set again")
    forms = FORMS.get(parse_row)
    return Split(_text_columns(path, table, forms) if forms and table.num_rows else table, parse_row)


def _text_columns(path: Path, table: pa.Table, forms: Sequence[tuple[str, ...]]) -> pa.Table:
    """The columns of `forms`, those of the first form in the table checked for text."""
    filled = {name for name in table.column_names if table[name].null_count < len(table)}
    form = next((form for form in forms if filled.issuperset(form)), None)
    if form is None:
        expected = " or ".join("+".join(form) for form in forms)
        found = ", ".join(name if name in filled else f"{name} (empty)" for name in table.column_names) or "none"
        raise StudyError(f"{path}: columns: expected {expected}, found {found}; rename them in a copy (`path:`)")
    for name in filled.intersection((*form, *CONTEXT * (form[0] == "instruction"))):
        for place, datatype in _not_text(name, table.schema.field(name).type):
            raise StudyError(f"{path}: {place}: expected text, found {datatype}; write it as text in a copy (`path:`)")
    read = {*chain(*forms), *CONTEXT, *SYSTEM_TURNS}
    columns = table.select([name for name in table.column_names if name in read])
    for name in columns.column_names:
        try:
            columns[name].validate(full=True)
        except pa.ArrowInvalid as error:
            found = first_line(error).rpartition("Invalid: ")[2]
            raise StudyError(f"{path}: {name}: expected UTF-8, found {found}; write the source in UTF-8") from None
    return columns


def _not_text(place: str, datatype: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """(place, type) of what is neither text nor messages or parts of messages in a column."""
    types = pa.types
    if types.is_dictionary(datatype):
        datatype = datatype.value_type
    if (types.is_list(datatype) or types.is_large_list(datatype)) and not _is_text(datatype.value_type):
        datatype = datatype.value_type
    if types.is_struct(datatype):
        for field in datatype:
            if field.name in MESSAGE_KEYS:
                yield from _not_text(f"{place}.{field.name}", field.type)
    elif not (_is_text(datatype) or types.is_null(datatype)):
        yield place, datatype


def _is_text(datatype: pa.DataType) -> bool:
    return any(is_kind(datatype) for is_kind in TEXT_TYPES)


def split_texts(folder: str | Path, split: str) -> Iterator[str]:
    """Prompts and answers of a split, for training a tokenizer."""
    for turn in read_split(folder, split, first_turn):
        if isinstance(turn, tuple):
            yield from turn


def split_prompts(folder: str | Path, split: str) -> set[str]:
    """The prompts of a split."""
    return {turn[0] for turn in read_split(folder, split, first_turn) if isinstance(turn, tuple)}


def first_turn(row: Row) -> Record:
    """(prompt, response): the first user turn and the answer to it, of a row of one of the forms `TURNS`.

    A conversation is a list of messages: `role` and `content`, or `from` and `value`. A template has no place for a
    system turn, so a row that begins with one, or has one in a column, is passed over; an empty one counts as none.
    """
    form = _form(row, TURNS)
    if form and _has_system_turn(row):
        return SYSTEM
    turns = [turn for name, role in zip(form, ("user", "assistant"), strict=False) for turn in _turns(row[name], role)]
    if turns and form[0] == "instruction":
        turns[0] = ("user", "\n\n".join(filter(None, map(_text, (row["instruction"], *map(row.get, CONTEXT))))))
    return _exchange(turns)


def chosen_only(row: Row) -> Record:
    """(prompt, chosen, None): a first turn as a pair without a rejected answer."""
    turn = first_turn(row)
    return turn if isinstance(turn, str) else (*turn, None)


def preference_pair(row: Row) -> Record:
    """(prompt, chosen, rejected) of a row of one of the forms `PAIRS`.

    An answer is a text or a message, or ends a conversation or a transcript ("\\n\\nHuman: ..."). One that follows
    several turns is passed over: without them it answers another prompt.
    """
    form = _form(row, PAIRS)
    if not form or _has_system_turn(row):
        return SYSTEM if form else INCOMPLETE
    opening = _turns(row[form[0]], "user") if len(form) == 3 else []
    prompts, answers = [text for _, text in opening], []
    for name in form[-2:]:
        is_transcript = not opening and isinstance(row[name], str)
        turns = _transcript(row[name]) if is_transcript else _turns(row[name], "assistant")
        alone = [role for role, _ in turns] == ["assistant"]
        exchange = _exchange(opening + turns if alone else turns, whole=True)
        if isinstance(exchange, str):
            return exchange
        prompts.append(exchange[0])
        answers.append(exchange[1])
    if len({(prompt or "").strip() for prompt in prompts}) > 1:
        return TWO_PROMPTS
    return (prompts[0], *answers) if len(set(answers)) > 1 else EQUAL_ANSWERS


FORMS = {first_turn: TURNS, chosen_only: TURNS, preference_pair: PAIRS}


def _form(row: Row, forms: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The first form whose columns all hold a value; empty if there is none."""
    return next((form for form in forms if all(row.get(name) not in (None, []) for name in form)), ())


def _has_system_turn(row: Row) -> bool:
    return any(_text(row.get(name)) for name in SYSTEM_TURNS)


def _turns(value: Any, role: str) -> list[Turn]:
    """The turns of a conversation or a message; a text is one of `role`. Empty system turns are left out."""
    if not isinstance(value, list | dict):
        return [(role, _text(value))]
    messages = [message for message in (value if isinstance(value, list) else [value]) if isinstance(message, dict)]
    turns = []
    for message in messages:
        speaker, content = message.get("role") or message.get("from"), message.get("content")
        speaker = speaker if isinstance(speaker, str) else ""
        turns.append((ROLES.get(speaker, speaker), _text(message.get("value") if content is None else content)))
    return [turn for turn in turns if turn[0] != "system" or turn[1]]


def _text(content: Any) -> str | None:
    """A text, or the parts of one; None for anything else."""
    if isinstance(content, list) and content and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        texts = [part.get("text") or "" for part in content]
        content = "".join(texts) if all(isinstance(text, str) for text in texts) else None
    return content if isinstance(content, str) else None


def _transcript(text: str) -> list[Turn]:
    """The turns of a transcript; none if the text does not begin with a speaker."""
    opening, *pieces = SPEAKER.split("\n\n" + text.lstrip())
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return [] if opening else [(ROLES[speaker], content.strip()) for speaker, content in turns]


def _exchange(turns: list[Turn], whole: bool = False) -> tuple[str, str] | str:
    """(prompt, response) of a conversation's first two turns, or why it has none; `whole`: it may have no others."""
    roles = [role for role, _ in turns]
    if roles[:1] == ["system"]:
        return SYSTEM
    if whole and len(turns) > 2:
        return SEVERAL_TURNS
    is_exchange = roles[:2] == ["user", "assistant"] and turns[0][1] and turns[1][1] is not None
    return (turns[0][1], turns[1][1]) if is_exchange else INCOMPLETE
