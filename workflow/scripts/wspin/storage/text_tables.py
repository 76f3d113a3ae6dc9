"""Tables as text: aligned columns for the terminal, Markdown and LaTeX, and CSV."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from wspin.escaping import escaped

# What a spreadsheet takes for a formula, also in wide letters; not a number with its sign
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20](?![\d.]+(?:e[-+]?\d+)?$)", re.ASCII)


def text_table(header: Sequence[str], lines: Iterable[Sequence[Any]], columns: str, style: str = "pipe") -> str:
    """A table with aligned columns; its texts are `escaped`, and keep to their cells.

    `columns`: one letter per column, `l` (left) or `r` (right); `style`: tabulate's `pipe` (Markdown), `simple` (for
    the terminal) or `latex_booktabs`. Markdown in a cell stays: foreign text comes `in_markdown`, or as code.
    """
    sides = ["left" if column == "l" else "right" for column in columns]
    rows = [[_cell(value, style) for value in row] for row in (header, *lines)]
    return tabulate(rows[1:], rows[0], tablefmt=style, disable_numparse=True, colalign=sides)


def _cell(value: Any, style: str) -> Any:
    if not isinstance(value, str):
        return value
    return markdown_cell(value) if style == "pipe" else escaped(value)


def markdown_cell(text: str) -> str:
    """A text in a cell of a Markdown table, which a `|` in it does not end."""
    return escaped(text).replace("|", r"\|")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV: numbers at full precision, an empty field where there is no value.

    Texts are `escaped`; an apostrophe stands before one that a spreadsheet would take for a formula.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_as_text(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


def _as_text(value: str) -> str:
    shown = escaped(value)
    return f"'{shown}" if FORMULA.match(value) else shown
