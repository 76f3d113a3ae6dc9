"""The answers whose tokens are weighed, each with the parts of its tokens' log-ratios, aligned where needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from wspin.errors import StudyError
from wspin.storage import tables

from .alignment import Alignment, align, align_ids, read_up_to
from .scorers import Metadata, Term


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


class ScoredTokens(NamedTuple):
    """Tokens of an answer: ids, ends in characters of its text, and log-probabilities, (N,) each."""

    ids: np.ndarray
    ends: np.ndarray
    logprobs: np.ndarray

    def first(self, count: int) -> Self:
        return type(self)(*(part[:count] for part in self))


def aligned_answers(
    side: str, texts: Sequence[str], reference: pa.Table, terms: Sequence[Term], segments: str | None = None
) -> Iterator[AlignedAnswer]:
    """The answers of one of `tables.SIDES`, in the order of the rows; without terms they have no log-ratios.

    `segments`: where texts are divided, as in `align`; None: at words.

    Raises `StudyError` if tokens end beyond their text, or if models share a tokenizer but not an answer's ids.
    """
    metadata, students = tables.metadata(reference), _scored_tokens(reference, f"{side}_")
    scored = [_scored_tokens(term.logprobs.table) if term.logprobs else students for term in terms]
    files = " and ".join(term.logprobs.path for term in terms if term.logprobs)
    for i, (prompt_id, text) in enumerate(zip(reference["prompt_id"].to_pylist(), texts, strict=True)):
        ids = students[i].ids
        has_eos = len(ids) > 0 and int(ids[-1]) == metadata["eos"]
        log_ratios = LogRatios(text, students[i].first(len(ids) - has_eos), metadata, segments or "words")
        try:
            for term, answers in zip(terms, scored, strict=True):
                log_ratios.add(term, answers[i])
            yield log_ratios.answer(prompt_id, has_eos)
        except StudyError as error:
            raise StudyError(f"{files}: {prompt_id}, {side}: {error}") from None


class LogRatios:
    """Adds up the terms of the log-ratios of one answer's tokens; `metadata`: of the student's file."""

    def __init__(self, text: str, student: ScoredTokens, metadata: Metadata, segments: str):
        self.text, self.student, self.metadata, self.segments = text, student, metadata, segments
        self.own = np.zeros(len(student.ids))
        self.scored = len(student.ids)  # the first tokens, which all scorers with the student's tokenizer have scored
        self.foreign: ScoredTokens | None = None
        self.foreign_specials: list[int] = []
        self.terms = 0

    def add(self, term: Term, tokens: ScoredTokens) -> None:
        """Raises `StudyError` if the scorer's tokens are not those of the scorers with its tokenizer."""
        self.terms += 1
        count = min(len(tokens.ids), len(self.student.ids))
        if term.logprobs is None:
            self.own += term.sign * self.student.logprobs
        elif term.logprobs.scorer["tokenizer"] == self.metadata["tokenizer"]:
            check_ids(tokens.ids, self.student.ids[: len(tokens.ids)], "the student's")
            # A scorer that is the student: batches round differently, which must not become weights.
            logprobs = self.student.logprobs if term.logprobs.is_student(self.metadata) else tokens.logprobs
            self.own[:count] += term.sign * logprobs[:count]
            self.scored = min(self.scored, count)
        else:
            self._add_foreign(term.sign, tokens, term.logprobs.special_ids)

    def _add_foreign(self, sign: float, tokens: ScoredTokens, special_ids: list[int]) -> None:
        self.foreign_specials, signed = special_ids, sign * tokens.logprobs
        if self.foreign is None:
            self.foreign = tokens._replace(logprobs=signed)
            return
        count = min(len(self.foreign.ids), len(tokens.ids))  # their contexts may leave room for other numbers of tokens
        check_ids(tokens.ids[:count], self.foreign.ids[:count], "the other scorer's")
        self.foreign = tokens.first(count)._replace(logprobs=self.foreign.logprobs[:count] + signed[:count])

    def answer(self, prompt_id: str, has_eos: bool) -> AlignedAnswer:
        """Raises `StudyError` if tokens end beyond the text."""
        if not self.terms:
            return AlignedAnswer(prompt_id, has_eos, self.own)
        if self.foreign is None:
            alignment = align_ids(len(self.own), self.scored)
            return AlignedAnswer(prompt_id, has_eos, self.own, np.zeros(self.scored), alignment)
        return AlignedAnswer(prompt_id, has_eos, self.own, self.foreign.logprobs, self._alignment(self.foreign))

    def _alignment(self, foreign: ScoredTokens) -> Alignment:
        student = self.student
        for tokens in (student, foreign):
            if len(tokens.ends) and tokens.ends[-1] > len(self.text):
                found = f"found {tokens.ends[-1]}; score it again"
                raise StudyError(f"expected tokens of {len(self.text)} characters, {found}")
        beyond = student.ids >= self.metadata["tokenizer_size"]  # the embedding may be larger than the tokenizer
        student_unclear = np.flatnonzero(np.isin(student.ids, self.metadata["special_ids"]) | beyond)
        foreign_unclear = np.flatnonzero(np.isin(foreign.ids, self.foreign_specials))
        alignment = align(self.text, student.ends, foreign.ends, student_unclear, foreign_unclear, self.segments)
        return read_up_to(alignment, self.scored)


def check_ids(ids: np.ndarray, expected: np.ndarray, whose: str) -> None:
    """Raises `StudyError` unless the token ids are equal."""
    if not np.array_equal(ids, expected):
        raise StudyError(f"expected {whose} token ids, found others; score it again with this scorer")


def _scored_tokens(table: pa.Table, prefix: str = "") -> list[ScoredTokens]:
    ids, ends, logprobs = (tables.row_arrays(table, f"{prefix}{part}") for part in ("token_ids", "ends", "logprobs"))
    return [ScoredTokens(*row[:2], row[2].astype(np.float64)) for row in zip(ids, ends, logprobs, strict=True)]
