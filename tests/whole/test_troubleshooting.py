"""Every line that docs/troubleshooting.md quotes is printed by the code: its fixed words stand together in one file."""

import ast
import errno
import os
import re
from functools import cache
from pathlib import Path

import pytest
import snakemake
import snakemake_executor_plugin_slurm
import workflow

PAGE = (workflow.ROOT / "docs/troubleshooting.md").read_text()
LIBRARIES = [Path(library.__file__).parent for library in (snakemake, snakemake_executor_plugin_slurm)]
SOURCES = [*sorted((workflow.ROOT / "workflow/scripts").rglob("*.py")), *LIBRARIES]
HOLE = "…"


def rows():
    """The cells of the tables: printed, cause, what to do."""
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith("| printed"):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


QUOTED = [line for printed, _, _ in rows() for line in re.findall(r"`(.+?)`", printed) if line != ".snakemake"]


@cache
def literals(file):
    """The texts of a Python file, or of all in a folder, with a hole for every value in them, without backquotes."""
    if file.is_dir():
        return "\n".join(map(literals, sorted(file.rglob("*.py"))))
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return "\n".join(found).replace("`", "")


def texts():
    yield from map(literals, SOURCES)
    yield re.sub(r"\$\(.+?\)|\$@", HOLE, (workflow.ROOT / "Makefile").read_text())
    yield os.strerror(errno.ENOSPC)


def phrases(line):
    """The fixed words of a line, from one hole or mark of a message's pattern to the next."""
    return [part for part in (part.strip(" ;:") for part in re.split(rf"{HOLE}|; |: |, |[()]", line)) if len(part) > 2]


def test_the_tables_have_what_is_met_most():
    assert 25 <= len(list(rows())) <= 40
    assert all(len(row) == 3 and all(row) for row in rows())
    assert len(QUOTED) >= len(list(rows()))


@pytest.mark.parametrize("line", QUOTED, ids=lambda line: max(phrases(line), key=len)[:50])
def test_a_quoted_line_is_one_of_the_codes(line):
    words = phrases(line)
    missing = [[phrase for phrase in words if phrase not in text] for text in texts()]
    assert words
    assert min(missing, key=len) == [], line
