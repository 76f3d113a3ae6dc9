"""Aligns the tokens of two tokenizers: both sequences are divided into the same segments of the text.

A token is given by its end, in characters of the text that both models scored; it begins where the one before it ends.
So a side's tokens tile the text up to the last of them, whichever token holds the spaces between words. Tokens that
hold some bytes of one character share its end, and a token without characters belongs to the character before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\S+")
REPLACEMENT = "\ufffd"  # what bytes decode to that are no character
LONG_SPACE = re.compile(r"\s{2,}|[^\S ]")  # white space that is more than the one blank before a word

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """C segments of one answer with N student and M teacher tokens.

    ends (C,): where each segment ends, in characters; student (N,), teacher (M,): the segment of each token, in
    ascending order; read (C,): whether the teacher scored the whole segment; clear (C,): whether all its tokens stand
    for its text.
    """

    ends: Indices
    student: Indices
    teacher: Indices
    read: NDArray[np.bool_]
    clear: NDArray[np.bool_]

    @property
    def used(self) -> NDArray[np.bool_]:
        """Segments (C,) that have a log-ratio; the others are neutral."""
        return self.read & self.clear


def align(
    text: str,
    student_ends: Sequence[int],
    teacher_ends: Sequence[int],
    student_unclear: Sequence[int] | Indices = (),
    teacher_unclear: Sequence[int] | Indices = (),
    segments: str = "words",
) -> Alignment:
    """Divide a text into segments that respect the tokens of both sides, given the tokens' ends: (N,) and (M,).

    `student_unclear` and `teacher_unclear` are indices of tokens whose text is not what they mean; their segments are
    not clear.

    With `segments` words, a segment is a word with the white space before it (SWIFT, Algorithm 2). In white space that
    is more than a blank, a common token end is a border too. A border inside a token of either side is dropped, so that
    what one tokenizer joins is one segment. With common_starts (SWIFT's released code) every place is a border where
    both sides end a token and start the next, within words too. A token belongs to the segment of its last character.
    """
    student, teacher = np.asarray(student_ends, dtype=np.int64), np.asarray(teacher_ends, dtype=np.int64)
    borders = _word_borders(text, student, teacher) if segments == "words" else np.intersect1d(student, teacher)
    ends = np.append(borders[(borders > 0) & (borders < len(text))], len(text))
    # The segment of the last character; a token without characters at the very start belongs to the first.
    of_student, of_teacher = (np.searchsorted(ends, np.clip(side, 1, ends[-1])) for side in (student, teacher))
    read = np.bincount(of_teacher, minlength=len(ends)) > 0
    reach = int(teacher[-1]) if len(teacher) else 0
    last = np.searchsorted(ends, reach)  # the teacher's context may end inside its last segment
    read[last] &= not text[reach : ends[last]].strip()
    clear = np.ones(len(ends), dtype=bool)
    clear[of_student[np.asarray(student_unclear, dtype=np.int64)]] = False
    clear[of_teacher[np.asarray(teacher_unclear, dtype=np.int64)]] = False
    broken = [i for i, character in enumerate(text) if character == REPLACEMENT] if REPLACEMENT in text else []
    clear[np.searchsorted(ends, np.array(broken, dtype=np.int64), side="right")] = False
    return Alignment(ends, of_student, of_teacher, read, clear)


def align_ids(student: int, teacher: int) -> Alignment:
    """One segment per token, where both sides have the same ids: N of the student, the first M of the teacher."""
    segments = np.arange(student)
    return Alignment(segments + 1, segments, segments[:teacher], segments < teacher, np.ones(student, dtype=bool))


def read_up_to(alignment: Alignment, count: int) -> Alignment:
    """The alignment without the segments that hold student tokens beyond the first `count`: these are not read."""
    if count == len(alignment.student):
        return alignment
    read = alignment.read.copy()
    read[alignment.student[count:]] = False
    return replace(alignment, read=read)


def _word_borders(text: str, student_ends: Indices, teacher_ends: Indices) -> Indices:
    borders = np.union1d(_word_ends(text), _common_ends_in_space(text, student_ends, teacher_ends))
    return borders[_between_tokens(borders, student_ends) & _between_tokens(borders, teacher_ends)]


def _word_ends(text: str) -> Indices:
    return np.array([word.end() for word in WORD.finditer(text)], dtype=np.int64)


def _common_ends_in_space(text: str, student_ends: Indices, teacher_ends: Indices) -> Indices:
    """Token ends common to both sides in runs of white space; the blank before a word stays with the word."""
    runs = [space.span() for space in LONG_SPACE.finditer(text)]
    if not runs:
        return np.empty(0, dtype=np.int64)
    common = np.intersect1d(student_ends, teacher_ends)
    first = np.searchsorted(common, [first for first, _ in runs], side="right")
    last = np.searchsorted(common, [last + (text[last - 1] != " ") for _, last in runs])
    return np.concatenate([common[a:b] for a, b in zip(first, last, strict=True)])


def _between_tokens(borders: Indices, ends: Indices) -> NDArray[np.bool_]:
    """Which borders lie inside no token of a side: where one ends, or behind them all."""
    return np.isin(borders, ends) | (borders > (ends[-1] if len(ends) else 0))
