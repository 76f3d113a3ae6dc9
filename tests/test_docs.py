"""pytest tests/test_docs.py: what the guides in docs/ work out by hand is what the library computes."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from wspin import alignment, weights
from wspin.config import Weigh

PAGE = (Path(__file__).parent.parent / "docs/token-weights.md").read_text()
TOKEN = re.compile(r'`(".*?")`(?: (-?[\d.]+))?')
FORMS = ("paper_mean", "log_mean", "sum_spread")
SETTINGS = {"source": "teacher", "form": "exp_clamp", "k": 1.0, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
SETTINGS |= {"upper": 1.5, "control": "none", "normalise": "none", "eos_weight": 1.0}


def worked_example(side):
    """Rows of the table under a side's name; `the same` in a cell is what stands above it."""
    lines = PAGE.split(f"**{side.capitalize()}**")[1].split("\n\n")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    for above, row in itertools.pairwise(rows):
        row[3] = above[3] if row[3] == "the same" else row[3]
    return rows


def tokens(cell):
    """(text, log-probability) of the tokens in a cell."""
    return [(json.loads(text), float(value or 0)) for text, value in TOKEN.findall(cell)]


def segments_read(rows):
    """The teacher's tokens, each segment's once."""
    cells = {row[0]: row[3] for row in rows}
    return [token for cell in cells.values() for token in tokens(cell)]


def aligned(rows):
    student, teacher = [tokens(row[1])[0][0] for row in rows], [text for text, _ in segments_read(rows)]
    assert "".join(student) == "".join(teacher)
    ends = [np.cumsum([len(text) for text in side]) for side in (student, teacher)]
    return alignment.align("".join(student), *ends)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_segments_are_those_of_the_page(side):
    rows = worked_example(side)
    assert aligned(rows).student.tolist() == [int(row[0]) for row in rows]
    assert len(rows) in (4, 5)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_those_of_the_page(side, form):
    rows = worked_example(side)
    student = np.array([float(row[2]) for row in rows])
    teacher = np.array([value for _, value in segments_read(rows)])
    settings = Weigh(**SETTINGS, segment_agg=form)
    mu = settings.mu_chosen if side == "chosen" else settings.mu_rejected
    found = weights.by_teacher(aligned(rows), student, teacher, mu, settings).weights
    assert [f"{weight:.3f}" for weight in found] == [row[5 + FORMS.index(form)] for row in rows]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_log_ratios_are_those_of_the_page(side):
    for row in worked_example(side):
        expected = [value - float(row[2]) for _, value in tokens(row[3])]
        assert [float(one) for one in row[4].split(", ")] == pytest.approx(expected)
