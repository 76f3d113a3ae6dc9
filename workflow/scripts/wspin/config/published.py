"""Tables of papers (`config/published/`): their rows, and which of this study's models stand beside them.

A file of published cells is a CSV with the columns `COLUMNS`. Numbers stay texts, as printed: their decimals count.
"""

import csv
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from wspin.errors import StudyError, first_line

from .base import ROW, FilePath, Hub, RowName, Section, Text

COLUMNS = {  # pattern, and in words
    "source": (r"\S.*", "text"),
    "table": (r"\S.*", "text"),
    "method": (r"[\w.+-]+", "a name without blanks"),
    "iteration": (r"\d{0,4}", "a number, or nothing"),
    "variant": (r"[^()]*", "text without brackets, or nothing"),
    "task": (r"[\w.+-]+", "the name of a task"),
    "metric": (r"\S.*", "text"),
    "value": (r"\d{1,4}\.\d{1,4}", "a number with the decimals that are printed"),
}


class PublishedTable(Section):
    """A table of a paper: `reproduction` compares its rows with models of this study."""

    file: FilePath = Field(description="CSV of published cells, such as `config/published/swift_main.csv`")
    table: Text = Field(description="name of the table in the file's column `table`")
    base: Hub | None = Field(
        None,
        description="hub name of the base model that the table is about: left out of a study whose `start` comes from "
        "another model; without it the table stands beside any",
    )
    rows: dict[str, RowName] = Field(
        min_length=1,
        description="model or arm of this study: the row beside it, `method`, `method@iteration`, or either with its "
        "variant, `method (variant)`; beside an arm every row that fits, each at its iteration, one without iteration "
        "at the arm's last; what is not evaluated, or no iteration of the arm, is left out",
    )


class PublishedRow(NamedTuple):
    """A row of a published table, by task, `average` among them: numbers as printed, and what the source measures."""

    source: str
    table: str
    method: str
    iteration: int | None
    variant: str
    cells: dict[str, str]
    metrics: dict[str, str]

    @property
    def name(self) -> str:
        """As `rows` of the configuration names it, with its variant."""
        iteration = "" if self.iteration is None else f"@{self.iteration}"
        return f"{self.method}{iteration}" + (f" ({self.variant})" if self.variant else "")

    def fits(self, text: str) -> bool:
        """Whether `rows` names this row, where it leaves iteration or variant out too."""
        method, iteration, variant = re.fullmatch(ROW, text).groups()
        named = iteration is None or int(iteration) == self.iteration
        return method == self.method and named and variant in (None, self.variant)


def read_published(path: str | Path) -> list[PublishedRow]:
    """The rows of a file in its order. Raises `StudyError` if there is none, or at its first malformed cell."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        raise StudyError(f"{path}: expected a CSV of published cells, found no file; correct its path") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: expected a CSV of published cells, found {first_line(error)}; correct it") from None
    header, cells = (lines[0], lines[1:]) if lines else ([], [])
    if header != list(COLUMNS) or not cells:
        expected, found = f"{','.join(COLUMNS)} and cells below it", ",".join(header) or "nothing"
        raise StudyError(f"{path}: header: expected {expected}, found {found} and {len(cells)}; correct it")
    return _rows(path, cells)


def _rows(path: str | Path, cells: Sequence[Sequence[str]]) -> list[PublishedRow]:
    """The cells gathered into rows. Raises `StudyError` at a malformed one, or a second one of a task in a row."""
    rows: dict[tuple[str, ...], PublishedRow] = {}
    for number, cell in enumerate(cells, 1):
        place = f"{path}: row {number}"
        if len(cell) != len(COLUMNS):
            raise StudyError(f"{place}: expected {len(COLUMNS)} fields, found {len(cell)}; correct it")
        for (column, (pattern, words)), text in zip(COLUMNS.items(), cell, strict=True):
            if not re.fullmatch(pattern, text, re.ASCII):
                raise StudyError(f"{place}: {column}: expected {words}, found {text!r}; correct it")
        source, table, method, iteration, variant, task, metric, value = cell
        empty = PublishedRow(source, table, method, int(iteration) if iteration else None, variant, {}, {})
        row = rows.setdefault(empty[:5], empty)
        if task in row.cells:
            raise StudyError(f"{place}: task: expected {task!r} once in a row of a table, found it twice; remove one")
        row.cells[task], row.metrics[task] = value, metric
    return list(rows.values())


def table_rows(published: PublishedTable, arms: Collection[str]) -> list[tuple[str, PublishedRow]]:
    """(model or arm, row beside it), in the order of the published table; `arms`: which names are arms.

    Raises `StudyError` if the file has no such table, the table no such row, or several rows fit one model, or one
    iteration of an arm.
    """
    file = read_published(published.file)
    rows = [row for row in file if row.table == published.table]
    if not rows:
        tables = ", ".join(dict.fromkeys(row.table for row in file))
        raise StudyError(f"{published.file}: expected a table {published.table!r}, found {tables}; name one of these")
    pairs, mistakes = [], []
    for name, text in published.rows.items():
        fitting = [row for row in rows if row.fits(text)]
        places = {row.iteration for row in fitting} if name in arms else {name}
        if len(fitting) > len(places):
            found = f"found {', '.join(row.name for row in fitting)}; give iteration or variant"
            mistakes.append(f"rows.{name}: expected one row of {published.table} beside {text!r}, {found}")
        elif not fitting:
            found = f"found {', '.join(row.name for row in rows)}; name one of these"
            mistakes.append(f"rows.{name}: expected a row {text!r} in {published.table} of {published.file}, {found}")
        pairs += [(name, row) for row in fitting]
    if mistakes:
        raise StudyError(*mistakes)
    return sorted(pairs, key=lambda pair: rows.index(pair[1]))
