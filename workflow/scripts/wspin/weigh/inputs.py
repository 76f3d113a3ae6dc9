"""Answers as both models have read them: from the study's files to what weights are made of.

The student is the model that generated this iteration's answers; its log-probabilities are the reference's. The teacher
has read the same texts in its own tokenizer. Files that do not belong together are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables

from .alignment import Alignment, align, align_ids

TEACHER = ("model", "tokenizer", "template", "autocast")  # what a teacher's reading is known by


@dataclass(frozen=True)
class AlignedAnswer:
    """One answer without its closing EOS: log-probabilities of N student and M teacher tokens, nats.

    `teacher` and `alignment` are None where nobody else has read it.
    """

    prompt_id: str
    closed: bool  # whether EOS follows
    student: np.ndarray
    teacher: np.ndarray | None = None
    alignment: Alignment | None = None


@dataclass(frozen=True)
class TeacherLogprobs:
    """A teacher's log-probabilities of one response set."""

    path: str
    table: pa.Table

    @property
    def made_with(self) -> dict[str, Any]:
        """What must be the same for all that one teacher has read."""
        return tables.metadata(self.table, *TEACHER)


def read_teacher_logprobs(
    paths: Sequence[str], rows: pa.Table, texts: dict[str, list[str]]
) -> dict[str, TeacherLogprobs]:
    """A teacher's readings of the answers of both sides, `paths` in the order of `tables.SIDES`; `rows`: the prompts.

    Raises `StudyError` if one is missing, is of other rows, texts or another teacher than the first.
    """
    if len(paths) != len(tables.SIDES):
        raise StudyError(f"weigh: source teacher: expected its readings of both sides (--teacher), found {len(paths)}")
    first: dict[str, Any] = {}
    found = {}
    for side, path in zip(tables.SIDES, paths, strict=True):
        table = tables.read(path, "logprobs", **first)
        tables.check_same_rows(
            "data/prompts.parquet", rows["prompt_id"].to_pylist(), path, table["prompt_id"].to_pylist()
        )
        tables.check_metadata(path, table, texts=tables.texts_hash(rows["prompt"].to_pylist(), texts[side]))
        found[side] = TeacherLogprobs(path, table)
        first = found[side].made_with
    return found


def aligned_answers(
    side: str, texts: Sequence[str], reference: pa.Table, teacher: TeacherLogprobs | None
) -> Iterator[AlignedAnswer]:
    """The answers of one of `tables.SIDES`, in the order of the rows.

    Raises `StudyError` where a text is shorter than its tokens say, or where both models share a tokenizer but not the
    ids of an answer.
    """
    told = tables.metadata(reference)
    shared = teacher is not None and teacher.made_with["tokenizer"] == told["tokenizer"]
    # A model compared with itself: one reading stands for both, so that their batches' rounding makes no weight.
    same = teacher is not None and teacher.made_with == tables.metadata(reference, *TEACHER)
    ours = _parts(reference, f"{side}_")
    unlike = tables.metadata(teacher.table)["special_ids"] if teacher else []
    theirs = _parts(teacher.table) if teacher else [None] * len(texts)
    for row, (prompt_id, text) in enumerate(zip(reference["prompt_id"].to_pylist(), texts, strict=True)):
        closed = len(ours[row].ids) > 0 and int(ours[row].ids[-1]) == told["eos"]
        own = ours[row].first(len(ours[row].ids) - closed)
        if theirs[row] is None:
            yield AlignedAnswer(prompt_id, closed, own.logprobs)
            continue
        try:
            strange = (_strange(own, told["special_ids"], told["tokenizer_size"]), _strange(theirs[row], unlike))
            alignment = _align(text, own, theirs[row], shared, strange)
        except StudyError as error:
            raise StudyError(f"{teacher.path}: {prompt_id}, {side}: {error}") from None
        teacher_logprobs = own.logprobs[: len(theirs[row].ids)] if same else theirs[row].logprobs
        yield AlignedAnswer(prompt_id, closed, own.logprobs, teacher_logprobs, alignment)


@dataclass(frozen=True)
class _Tokens:
    ids: np.ndarray
    ends: np.ndarray
    logprobs: np.ndarray

    def first(self, count: int) -> _Tokens:
        return _Tokens(self.ids[:count], self.ends[:count], self.logprobs[:count])


def _parts(table: pa.Table, prefix: str = "") -> list[_Tokens]:
    ids, ends, logprobs = (tables.row_arrays(table, f"{prefix}{part}") for part in ("token_ids", "ends", "logprobs"))
    return [_Tokens(*row[:2], row[2].astype(np.float64)) for row in zip(ids, ends, logprobs, strict=True)]


def _strange(tokens: _Tokens, special: Sequence[int], size: int | None = None) -> np.ndarray:
    """Places of special tokens, and of ids beyond the tokenizer's size, which an embedding may have."""
    beyond = tokens.ids >= size if size else False
    return np.flatnonzero(np.isin(tokens.ids, special) | beyond)


def _align(text: str, own: _Tokens, their: _Tokens, shared: bool, strange: tuple[np.ndarray, np.ndarray]) -> Alignment:
    """`strange`: of both sides, the tokens whose text is not what they mean."""
    if shared:
        if not np.array_equal(their.ids, own.ids[: len(their.ids)]):
            raise StudyError("expected the student's own token ids, found others; let the teacher read it again")
        return align_ids(len(own.ids), len(their.ids))
    for tokens in (own, their):
        if len(tokens.ends) and tokens.ends[-1] > len(text):
            raise StudyError(f"expected tokens of {len(text)} characters, found {tokens.ends[-1]}; score it again")
    return align(text, own.ends, their.ends, *strange)
