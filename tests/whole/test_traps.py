"""The faults of the published code: each has a test, `test_trap_<no>_...`, or a reason why it cannot occur here."""

import ast
import re
from collections import Counter

import pytest
import workflow

SECTION = (workflow.ROOT / "docs/from-the-original.md").read_text().split("## What the published code computes\n")[1]
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in SECTION.split("\n## ")[0].splitlines()
    if re.match(r"\| \d", line)
]
NAME = re.compile(r"test_trap_(\d\d)_\w+")


def traps_of(file):
    """Numbers of the faults that a file of tests has tests of."""
    names = (node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))
    return {int(match[1]) for match in map(NAME.fullmatch, names) if match}


COVERED = {
    (number, file.relative_to(workflow.ROOT).as_posix())
    for file in workflow.ROOT.glob("tests/*/test_*.py")
    for number in traps_of(file)
}


def test_the_page_has_33_faults_in_order_and_every_test_of_one():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 34))
    listed = Counter((int(number), file) for number, *_, files in ROWS for file in re.findall(r"`([^`]+\.py)`", files))
    assert set(listed) == COVERED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{int(row[0]):02d}-{row[1]}".replace(" ", "_"))
def test_trap_rows(row):
    number, _, _, _, here, files = row
    tested = re.findall(r"`([^`]+\.py)`", files)
    assert all((int(number), file) in COVERED for file in tested)
    assert tested or (files == "none" and here.startswith("cannot occur: "))
