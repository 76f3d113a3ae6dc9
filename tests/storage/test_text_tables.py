"""Tables keep their rows and cells, and no cell is a formula or a command, whatever text stands in it."""

import csv
import re

import pandas as pd
import pytest
from attacks import attack
from hypothesis import example, given
from hypothesis import strategies as st

from wspin.storage.text_tables import csv_text, frame_table, text_table

HOSTILE = st.text(
    st.one_of(st.sampled_from("|\\`\n\r\t\x1b\x85\u2028\u202e&%$_{}=+-@'\"<[ "), st.characters(codec="utf-8"))
)
CELL = re.compile(r"(?<!\\)(?:\\\\)*\|")  # what ends a cell of a Markdown table


def lines_of(text):
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    return lines


@attack("display", "`|`, line breaks and codes of a terminal in a cell of a Markdown table", "shown in their cell")
@given(HOSTILE, HOSTILE)
@example("a\n| forged | row |", "a|b")
def test_a_cell_stays_in_its_cell(head, cell):
    lines = lines_of(text_table(["model", head], [["a", cell.replace("\\", "/")], ["b", "1"]], "ll"))
    assert len(lines) == 4
    assert {len(CELL.findall(line)) for line in lines if "\\" not in head} <= {3}


@given(HOSTILE)
@example("a\nb")
def test_a_terminal_shows_every_cell_on_its_line(cell):
    assert len(lines_of(text_table(["model", "job"], [["a", cell], ["b", ""]], "ll", "simple"))) == 4


@given(HOSTILE, HOSTILE)
@example("a|b", "a\n| forged | row |")
def test_a_frame_in_markdown_is_the_table_of_its_lists(head, cell):
    """So that what holds of the cells of one holds of those of the other."""
    frame = pd.DataFrame([["a", cell], ["b", ""]], columns=["model", head])
    assert frame_table(frame) == text_table(frame.columns, frame.to_numpy().tolist(), "lr")


@attack("display", "LaTeX in a cell: `\\input{/etc/passwd}`, `%`, `&`", "shown as text")
@given(HOSTILE)
@example("\\input{/etc/passwd} % & \\\\")
def test_latex_runs_no_command(cell):
    *_, row, rule, end = lines_of(frame_table(pd.DataFrame({"model": ["a"], "x": [cell]}), "latex_booktabs"))
    assert (rule, end) == (r"\bottomrule", r"\end{tabular}")
    inside = re.sub(r"\\(?:[&%$#_{}]|\^\{\}|textasciitilde\{\}|textbackslash\{\}|ensuremath\{[<>]\})", "", row)
    assert re.fullmatch(r"[^&]*&[^\\&%$#_{}~^]*\\\\", inside), row


@attack(
    "display",
    "a formula of a spreadsheet as a name in a CSV table: `=HYPERLINK(...)`, `+1+cmd`, `@SUM`",
    "a text, as an apostrophe stands before it",
)
@given(HOSTILE)
@example('=HYPERLINK("http://127.0.0.1/?"&A1)')
@example("\t=1+1")
@example("\uff1d1+1")
@example("-1+cmd|' /C calc'!A0")
def test_no_cell_of_csv_is_a_formula(cell):
    text = csv_text(pd.DataFrame({"name": [cell, "b"], "number": [-1.5, None]}))
    lines_of(text)
    header, first, second = csv.reader(text.splitlines())
    assert not re.match(r"\s*[=+\-@\uff1d]", first[0]) or re.fullmatch(r"[-+]?[\d.]+", first[0])
    assert (header, first[1], second) == (["name", "number"], "-1.5", ["b", ""])


@pytest.mark.parametrize("cell", ["-0.25", "1e-07", "+1.5", "acc_norm,none", "", "a-b", "'a"])
def test_numbers_and_names_stay(cell):
    assert next(csv.reader([csv_text(pd.DataFrame({"x": [cell]})).split("\n")[1]])) == ([cell] if cell else [""])
