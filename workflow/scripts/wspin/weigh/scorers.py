"""Reads the log-probabilities that token weights are computed from: those of the student and of up to two scorers.

The student is the model whose answers are weighed; its log-probabilities are the reference's. A log-ratio is made of
terms: the positive scorer counts +1 time, the negative one -1 time. Files that do not belong together are refused.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from wspin.config.scorers import NONE, STUDENT
from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import tables

from .pairs import Pairs

Metadata = dict[str, Any]

SCORER = ("model", "tokenizer", "template", "dtype", "autocast")  # the metadata that identify how a model scored


class ScorerLogprobs(NamedTuple):
    """A scorer's log-probabilities of one side; `scorer`: the metadata that all its files share."""

    path: str
    table: pa.Table
    scorer: Metadata
    special_ids: list[int]

    def is_student(self, metadata: Metadata) -> bool:
        """Whether the student's file, by its metadata, comes from this scorer."""
        return self.scorer == {key: metadata[key] for key in SCORER}


class Term(NamedTuple):
    """One part of a log-ratio: the log-probabilities of a scorer, `sign` times; None: the student's."""

    sign: float
    logprobs: ScorerLogprobs | None


def read_terms(settings: Weigh, files: dict[str, Sequence[str]], pairs: Pairs) -> dict[str, list[Term]]:
    """The terms of each side's log-ratios; none with source equal.

    `files`: those of the scorers `positive` and `negative`, in the order of `tables.SIDES`. Raises `StudyError` if
    files are missing or not needed, hold other rows or texts, are shifted and should not be or the reverse, or have two
    tokenizers besides the student's.
    """
    own = tables.metadata(pairs.reference)["tokenizer"]
    terms: dict[str, list[Term]] = {side: [] for side in tables.SIDES}
    foreign: dict[str, str] = {}
    for role, name, sign in zip(files, scorer_names(settings), (1.0, -1.0), strict=True):
        if name in (NONE, STUDENT):
            if files[role]:
                raise StudyError(f"weigh: {role} {name}: expected no log-probabilities, found {files[role][0]}")
            by_side = dict.fromkeys(tables.SIDES) if name == STUDENT else {}
        else:
            by_side = _read(f"--{role}-logprobs", files[role], pairs, bool(settings.shifted))
        for side, logprobs in by_side.items():
            terms[side].append(Term(sign, logprobs))
            if logprobs and logprobs.scorer["tokenizer"] != own:
                foreign.setdefault(logprobs.scorer["tokenizer"], logprobs.path)
    if len(foreign) > 1:
        found = "found a tokenizer of its own in each; take scorers of which one has the student's, or both the same"
        raise StudyError(f"{' and '.join(foreign.values())}: expected one tokenizer besides the student's, {found}")
    return terms


def scorer_names(settings: Weigh) -> tuple[str | None, str | None]:
    """(positive, negative): `student`, `none`, or any other name where there are files."""
    if settings.source == "teacher":
        return "teacher", STUDENT
    if settings.source == "swift_as_released":
        return "teacher", NONE
    if settings.source == "pair":
        return settings.positive, settings.negative  # both None with `retrain`
    return NONE, NONE


def described_scorers(settings: Weigh, terms: Sequence[Term]) -> dict[str, Any]:
    """What the file of weights says of its scorers: the teacher, or both of a pair; see `SCORER`."""
    scorers = iter(term.logprobs.scorer for term in terms if term.logprobs)
    if settings.source != "pair":
        return {"teacher": next(scorers, None)}
    names = dict(zip(("positive", "negative"), scorer_names(settings), strict=True))
    return {"teacher": None} | {
        role: name if name in (NONE, STUDENT) else next(scorers) for role, name in names.items()
    }


def scorer_metadata(table: pa.Table) -> Metadata:
    """The metadata that identify how a model scored; a shifted reading is another one than the model's own."""
    entries = tables.metadata(table)
    return {key: entries[key] for key in SCORER} | ({"shifted": True} if entries.get("shifted") else {})


def _read(flag: str, paths: Sequence[str], pairs: Pairs, shifted: bool) -> dict[str, ScorerLogprobs]:
    if len(paths) != len(tables.SIDES):
        raise StudyError(f"weigh: expected log-probabilities of both sides ({flag}), found {len(paths)} files")
    scorer: Metadata = {}
    by_side = {}
    for side, path in zip(tables.SIDES, paths, strict=True):
        table = tables.read(path, "logprobs", count=pairs.count, **scorer)
        tables.check_same_rows(pairs.path, pairs.prompt_ids, path, table["prompt_id"].to_pylist())
        if pairs.count is None:
            tables.check_metadata(path, table, texts=tables.texts_hash(pairs.prompts, pairs.texts[side]))
        scorer = scorer_metadata(table)
        if scorer.get("shifted", False) != shifted:
            kinds = ("log-probabilities of the tokens", "those of the tokens before (shifted)")
            found = f"expected {kinds[shifted]}, found {kinds[not shifted]}"
            raise StudyError(f"{path}: {found}; weigh.shifted goes with the scorer's flag --shifted")
        by_side[side] = ScorerLogprobs(path, table, scorer, tables.metadata(table)["special_ids"])
    return by_side
