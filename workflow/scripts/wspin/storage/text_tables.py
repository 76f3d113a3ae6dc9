"""Tables as text: aligned columns for the terminal, Markdown and LaTeX, and CSV; from lists without pandas' import."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from wspin.escaping import escaped

if TYPE_CHECKING:
    import pandas as pd

# What a spreadsheet takes for a formula, also in wide letters; not a number with its sign
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20](?![\d.]+(?:e[-+]?\d+)?$)", re.ASCII)


def text_table(header: Sequence[str], lines: Iterable[Sequence[Any]], columns: str, style: str = "pipe") -> str:
    """A table with aligned columns; its texts are `escaped`, and keep to their cells.

    `columns`: one letter per column, `l` (left) or `r` (right); `style`: tabulate's `pipe` (Markdown) or `simple` (for
    the terminal). Markdown in a cell stays: foreign text comes `in_markdown`, or as code.
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


def frame_table(frame: "pd.DataFrame", style: str = "pipe") -> str:
    """A frame of texts as `text_table` writes it, the first column left; `style`: `pipe` or `latex_booktabs`."""
    cell = markdown_cell if style == "pipe" else escaped
    sides = ["left", *["right"] * (len(frame.columns) - 1)]
    shown = frame.map(cell).rename(columns=cell)
    return shown.to_markdown(index=False, tablefmt=style, disable_numparse=True, colalign=sides)


def csv_text(frame: "pd.DataFrame") -> str:
    """A frame as CSV: numbers at full precision, an empty field where there is no value.

    Texts are `escaped`; an apostrophe stands before one that a spreadsheet would take for a formula.
    """
    return frame.map(_spreadsheet_cell).to_csv(index=False, lineterminator="\n")


def _spreadsheet_cell(value: Any) -> Any:
    return "'" * bool(FORMULA.match(value)) + escaped(value) if isinstance(value, str) else value
