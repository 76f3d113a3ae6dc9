"""Tables as text: aligned columns for the terminal, Markdown and LaTeX, and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate


def text_table(header: Sequence[str], lines: Iterable[Sequence[Any]], columns: str, style: str = "pipe") -> str:
    """A table with aligned columns, its cells as they are given.

    `columns`: one letter per column, `l` (left) or `r` (right); `style`: tabulate's `pipe` (Markdown), `simple` (for
    the terminal) or `latex_booktabs`.
    """
    sides = ["left" if column == "l" else "right" for column in columns]
    return tabulate(lines, header, tablefmt=style, disable_numparse=True, colalign=sides)


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV: numbers at full precision, an empty field where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
