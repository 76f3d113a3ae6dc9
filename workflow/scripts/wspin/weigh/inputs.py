"""Reads the inputs of the weights: each answer with the log-probabilities of both models, aligned.

The student is the model that generated this iteration's answers; its log-probabilities are the reference's. The teacher
scored the same texts in its own tokenizer. Files that do not belong together are refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables

from .alignment import Alignment, align, align_ids

Metadata = dict[str, Any]

SCORER = ("model", "tokenizer", "template", "dtype", "autocast")  # the metadata that identify how a model scored


@dataclass(frozen=True)
class AlignedAnswer:
    """One answer without its EOS, and what its tokens' log-ratios are made of.

    own (N,): signed log-probabilities of the scorers with the student's tokenizer, summed, nats; foreign (M,): those of
    scorers with another tokenizer. The log-ratio of token i beside foreign token t is own[i] + foreign[t].
    """

    prompt_id: str
    has_eos: bool  # whether EOS follows
    own: np.ndarray
    foreign: np.ndarray | None = None  # as the alignment, only where scores are needed
    alignment: Alignment | None = None


class TeacherLogprobs(NamedTuple):
    """A teacher's log-probabilities of one response set; `scorer`: the metadata that all files of one teacher share."""

    path: str
    table: pa.Table
    scorer: Metadata


def read_teacher_logprobs(
    paths: Sequence[str], rows: pa.Table, texts: dict[str, list[str]]
) -> dict[str, TeacherLogprobs]:
    """Teacher log-probabilities by side, `paths` in the order of `tables.SIDES`; `rows`: the prompts.

    Raises `StudyError` if one is missing, or holds other rows or texts, or comes from another teacher than the first.
    """
    if len(paths) != len(tables.SIDES):
        found = f"expected log-probabilities of both sides (--teacher), found {len(paths)} files"
        raise StudyError(f"weigh: source teacher: {found}")
    scorer: Metadata = {}
    logprobs = {}
    for side, path in zip(tables.SIDES, paths, strict=True):
        table = tables.read(path, "logprobs", **scorer)
        ids = table["prompt_id"].to_pylist()
        tables.check_same_rows("data/prompts.parquet", rows["prompt_id"].to_pylist(), path, ids)
        tables.check_metadata(path, table, texts=tables.texts_hash(rows["prompt"].to_pylist(), texts[side]))
        scorer = tables.metadata(table, *SCORER)
        logprobs[side] = TeacherLogprobs(path, table, scorer)
    return logprobs


def aligned_answers(
    side: str, texts: Sequence[str], reference: pa.Table, teacher: TeacherLogprobs | None
) -> Iterator[AlignedAnswer]:
    """The answers of one of `tables.SIDES`, in the order of the rows.

    Raises `StudyError` if tokens end beyond their text, or if both models share a tokenizer but not an answer's ids.
    """
    metadata = tables.metadata(reference)
    # A teacher that is the student: its scores differ by the batches' rounding alone, which must not become weights.
    is_student = teacher is not None and teacher.scorer == tables.metadata(reference, *SCORER)
    teacher_metadata = tables.metadata(teacher.table) if teacher else {}
    scored = _scored_tokens(teacher.table) if teacher else [None] * len(texts)
    rows = zip(reference["prompt_id"].to_pylist(), texts, _scored_tokens(reference, f"{side}_"), scored, strict=True)
    for prompt_id, text, student, by_teacher in rows:
        has_eos = len(student.ids) > 0 and int(student.ids[-1]) == metadata["eos"]
        student = _ScoredTokens(*(part[: len(part) - has_eos] for part in student))
        if by_teacher is None:
            yield AlignedAnswer(prompt_id, has_eos, -student.logprobs)
            continue
        try:
            alignment = _align(text, student, by_teacher, metadata, teacher_metadata)
        except StudyError as error:
            raise StudyError(f"{teacher.path}: {prompt_id}, {side}: {error}") from None
        logprobs = student.logprobs[: len(by_teacher.ids)] if is_student else by_teacher.logprobs
        yield AlignedAnswer(prompt_id, has_eos, -student.logprobs, logprobs, alignment)


class _ScoredTokens(NamedTuple):
    """Tokens of an answer: ids, ends in characters of its text, and log-probabilities, (N,) each."""

    ids: np.ndarray
    ends: np.ndarray
    logprobs: np.ndarray


def _scored_tokens(table: pa.Table, prefix: str = "") -> list[_ScoredTokens]:
    ids, ends, logprobs = (tables.row_arrays(table, f"{prefix}{part}") for part in ("token_ids", "ends", "logprobs"))
    return [_ScoredTokens(*row[:2], row[2].astype(np.float64)) for row in zip(ids, ends, logprobs, strict=True)]


def _align(
    text: str, student: _ScoredTokens, teacher: _ScoredTokens, metadata: Metadata, teacher_metadata: Metadata
) -> Alignment:
    """The alignment of one answer, by ids where both models share a tokenizer."""
    if metadata["tokenizer"] == teacher_metadata["tokenizer"]:
        if not np.array_equal(teacher.ids, student.ids[: len(teacher.ids)]):
            raise StudyError("expected the student's token ids, found others; score it again with the teacher")
        return align_ids(len(student.ids), len(teacher.ids))
    for tokens in (student, teacher):
        if len(tokens.ends) and tokens.ends[-1] > len(text):
            raise StudyError(f"expected tokens of {len(text)} characters, found {tokens.ends[-1]}; score it again")
    beyond = student.ids >= metadata["tokenizer_size"]  # the student's embedding may be larger than its tokenizer
    student_unclear = np.flatnonzero(np.isin(student.ids, metadata["special_ids"]) | beyond)
    teacher_unclear = np.flatnonzero(np.isin(teacher.ids, teacher_metadata["special_ids"]))
    return align(text, student.ends, teacher.ends, student_unclear, teacher_unclear)
