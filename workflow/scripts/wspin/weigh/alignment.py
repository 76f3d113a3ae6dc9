"""Maps one tokenizer's tokens onto another's: both are cut into the same segments of the text, word by word.

A token is known by its end, in characters of the text that both models read; it begins where the one before it ended.
So the tokens of a side tile the text up to the last of them, whoever owns the spaces between words. Tokens that hold
some bytes of one character share its end, and a token without characters belongs to the character before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\S+")
UNREADABLE = "\ufffd"  # what bytes decode to that are no character
LONG_SPACE = re.compile(r"\s{2,}|[^\S ]")  # white space that is more than the one blank before a word

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """Segments of one answer, C of them, with N student and M teacher tokens.

    ends (C,): where each segment ends, in characters; student (N,), teacher (M,): the segment of each token, never
    falling; read (C,): whether the teacher has read all of the segment; clear (C,): whether it is text that both read.
    """

    ends: Places
    student: Places
    teacher: Places
    read: NDArray[np.bool_]
    clear: NDArray[np.bool_]

    @property
    def used(self) -> NDArray[np.bool_]:
        """Segments (C,) that have a log-ratio; the others are neutral."""
        return self.read & self.clear


def align(
    text: str,
    student: Sequence[int],
    teacher: Sequence[int],
    strange: Sequence[int] | Places = (),
    strange_to_teacher: Sequence[int] | Places = (),
) -> Alignment:
    """Cut a text into segments that the tokens of both sides respect, given where these end: (N,) and (M,).

    `strange` are the student's tokens, and `strange_to_teacher` the teacher's, whose text is not what they mean; their
    segments are not clear.

    A segment is a word with the white space before it (SWIFT, Algorithm 2). In white space that is more than a blank, a
    place where both sides end a token is a border too. A border inside a token of either side falls, so that what one
    tokenizer has joined is one segment. A token belongs to the segment of its last character.
    """
    ours, theirs = np.asarray(student, dtype=np.int64), np.asarray(teacher, dtype=np.int64)
    borders = np.union1d(_word_ends(text), _common_ends_in_space(text, ours, theirs))
    borders = borders[_between_tokens(borders, ours) & _between_tokens(borders, theirs) & (borders < len(text))]
    ends = np.append(borders, len(text))
    # The segment of the last character: a token without any, at the very start, goes with the first.
    of_student, of_teacher = (np.searchsorted(ends, np.clip(side, 1, ends[-1])) for side in (ours, theirs))
    read = np.bincount(of_teacher, minlength=len(ends)) > 0
    reach = int(theirs[-1]) if len(theirs) else 0
    last = np.searchsorted(ends, reach)  # where the teacher's context ends, its last segment may be half read
    read[last] &= not text[reach : ends[last]].strip()
    clear = np.ones(len(ends), dtype=bool)
    clear[of_student[np.asarray(strange, dtype=np.int64)]] = False
    clear[of_teacher[np.asarray(strange_to_teacher, dtype=np.int64)]] = False
    broken = [place for place, letter in enumerate(text) if letter == UNREADABLE] if UNREADABLE in text else []
    clear[np.searchsorted(ends, np.array(broken, dtype=np.int64), side="right")] = False
    return Alignment(ends, of_student, of_teacher, read, clear)


def align_ids(student: int, teacher: int) -> Alignment:
    """Every token a segment of its own, where both sides have the same ids: N of the student, M <= N of the teacher."""
    each = np.arange(student)
    return Alignment(each + 1, each, each[:teacher], each < teacher, np.ones(student, dtype=bool))


def _word_ends(text: str) -> Places:
    return np.array([word.end() for word in WORD.finditer(text)], dtype=np.int64)


def _common_ends_in_space(text: str, ours: Places, theirs: Places) -> Places:
    """Where both sides end a token in a run of white space; the blank that leads a word stays with it."""
    runs = [space.span() for space in LONG_SPACE.finditer(text)]
    if not runs:
        return np.empty(0, dtype=np.int64)
    common = np.intersect1d(ours, theirs)
    kept = [common[(common > first) & (common < last + (text[last - 1] != " "))] for first, last in runs]
    return np.concatenate(kept)


def _between_tokens(places: Places, ends: Places) -> NDArray[np.bool_]:
    """Which places lie inside no token of a side: where one ends, or behind them all."""
    return np.isin(places, ends) | (places > (ends[-1] if len(ends) else 0))
