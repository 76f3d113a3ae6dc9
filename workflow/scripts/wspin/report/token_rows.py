"""Every token of some weighted pairs, with its weight and the log-probabilities that the weight was computed from.

Weights are those of the file. They are computed again from the log-probabilities, by the code of stage weigh, so that
what stands beside a weight is what it came from; weights that a file gave to the study stand alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from wspin.config.scorers import NONE, STUDENT
from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import tables
from wspin.weigh.finalisation import dataset_scales
from wspin.weigh.forms import bounds, log_ratios
from wspin.weigh.inputs import AlignedAnswer, aligned_answers
from wspin.weigh.long_segments import long_segments
from wspin.weigh.pairs import Pairs, read_first_pairs, read_pairs
from wspin.weigh.scorers import Term, read_terms, scorer_names
from wspin.weigh.weights import AnswerWeights, weight_answer

ROLES = ("positive", "negative")
LISTED = 6  # log-ratios of a token, and a scorer's tokens beside it, that a page or table lists
ROUNDING = 1e-5  # relative; the exponential of another processor differs by less


@dataclass(frozen=True)
class PairFiles:
    """The files of a shard of weighted pairs.

    logprobs: by role, those of the scorers that have files, of the chosen and the rejected answers; scorers: their
    names; sums: those of all shards, of weights that are normalised over them.
    """

    rows: str
    generations: str
    reference: str
    weights: str
    logprobs: Mapping[str, Sequence[str]]
    scorers: Mapping[str, str]
    sums: Sequence[str] = ()

    @property
    def inputs(self) -> list[str]:
        scored = [path for paths in self.logprobs.values() for path in paths]
        return [self.rows, self.generations, self.reference, self.weights, *scored, *self.sums]


class Token(NamedTuple):
    """A token of an answer: what the student sampled or read, its weight, and what that was computed from.

    text: "" for a part of a character that another token shows; weight: as stored; student: log-probability, nats;
    scored: by role, the (text, log-probability) of the scorer's tokens that stand against it; ratios: its log-ratios,
    nats; at_lower, at_upper: the share of them at a bound; neutral: why it has none, `unread` or `unclear`. Tokens of
    one segment share their `scored`, so that long ones take no more room than their tokens.
    """

    text: str
    weight: np.float32
    student: float
    is_eos: bool = False
    scored: Mapping[str, Sequence[tuple[str, float]]] = {}
    ratios: Sequence[float] = ()
    at_lower: float = 0.0
    at_upper: float = 0.0
    neutral: str = ""


@dataclass(frozen=True)
class LongRatios(Sequence[float]):
    """The log-ratios of a token of a long segment, one for each foreign token of it, computed when they are read."""

    own: float
    foreign: np.ndarray
    mean: float

    def __len__(self) -> int:
        return len(self.foreign)

    def __getitem__(self, place: Any) -> Any:
        return (self.foreign[place] + self.own).tolist()


def mean_ratio(ratios: Sequence[float]) -> float:
    return ratios.mean if isinstance(ratios, LongRatios) else sum(ratios) / len(ratios)


class TokenPair(NamedTuple):
    """A prompt, and the tokens of its two answers by side."""

    prompt_id: str
    prompt: str
    tokens: dict[str, list[Token]]


@dataclass(frozen=True)
class WeightedPairs:
    """Pairs, the settings that their weights are stored with, and the scorers of r = log positive - log negative.

    scorers: by role, without one whose log-probability is 0; none where weights have no log-ratios. bounds: of a
    form's scores, nats.
    """

    pairs: list[TokenPair]
    settings: dict[str, Any]
    scorers: dict[str, str]
    bounds: tuple[float, float]


def first_pairs(files: PairFiles, count: int) -> WeightedPairs:
    """The first pairs of the first shard, at most `count`; no other rows are read.

    Raises `StudyError` if files do not belong together, or hold other log-probabilities than the weights came from.
    """
    pairs = read_first_pairs(files.rows, files.reference, files.generations, count)
    return _weighted_pairs(files, pairs)


def one_pair(files: PairFiles, shard: int, size: int, prompt_id: str) -> WeightedPairs:
    """The pair of a prompt in the shard of these files; errors as of `first_pairs`."""
    pairs = read_pairs(files.rows, shard, size, files.reference, files.generations)
    return _weighted_pairs(files, pairs, pairs.prompt_ids.index(prompt_id))


def _weighted_pairs(files: PairFiles, pairs: Pairs, row: int | None = None) -> WeightedPairs:
    """All pairs, or that of one row."""
    table = tables.read(files.weights, "weights", count=pairs.count)
    tables.check_same_rows(files.rows, pairs.prompt_ids, files.weights, table["prompt_id"].to_pylist())
    tables.check_weighted_ids(files.weights, table, pairs.reference)
    stored = tables.metadata(table, "settings", "seed")
    settings = None if "given" in stored["settings"] else Weigh.model_validate(stored["settings"])
    logprobs = {role: files.logprobs.get(role, ()) for role in ROLES}
    terms = read_terms(settings, logprobs, pairs) if settings else {side: [] for side in tables.SIDES}
    if row is not None:
        pairs, table, terms = _row(pairs, table, terms, row)
    answers = {side: _answers(side, files, pairs, table, settings, stored["seed"], terms[side]) for side in terms}
    sides = [dict(zip(answers, both, strict=True)) for both in zip(*answers.values(), strict=True)]
    listed = list(map(TokenPair, pairs.prompt_ids, pairs.prompts, sides))
    names = _names(settings, files.scorers) if settings else {}
    return WeightedPairs(listed, stored["settings"], names, bounds(settings) if names else (-np.inf, np.inf))


def _row(pairs: Pairs, table: pa.Table, terms: dict[str, list[Term]], row: int) -> tuple[Any, ...]:
    """The arguments cut to one row."""
    alone = {side: [texts[row]] for side, texts in pairs.texts.items()}
    reference = pairs.reference.slice(row, 1)
    pairs = Pairs(pairs.path, [pairs.prompt_ids[row]], [pairs.prompts[row]], alone, reference)

    def cut(term: Term) -> Term:
        scored = term.logprobs
        return term._replace(logprobs=scored._replace(table=scored.table.slice(row, 1))) if scored else term

    return pairs, table.slice(row, 1), {side: list(map(cut, of_side)) for side, of_side in terms.items()}


def _names(settings: Weigh, scorers: Mapping[str, str]) -> dict[str, str]:
    """Role -> the name of its scorer: of the model with files, or `student`."""
    names = zip(ROLES, scorer_names(settings), strict=True)
    named = {role: STUDENT if name == STUDENT else scorers.get(role, name) for role, name in names if name != NONE}
    return {role: name for role, name in named.items() if name}


def _answers(
    side: str,
    files: PairFiles,
    pairs: Pairs,
    table: pa.Table,
    settings: Weigh | None,
    seed: Sequence[int],
    terms: Sequence[Term],
) -> Iterator[list[Token]]:
    """The tokens of every answer of a side."""
    texts, segments = pairs.texts[side], settings.segments if settings else None
    scale = dataset_scales(files.sums, settings).get(side, 1.0) if settings else 1.0
    scorers = [ScorerTokens(term, texts, pairs.reference) for term in terms if term.logprobs]
    columns = [tables.row_arrays(pairs.reference, f"{side}_{part}") for part in ("ends", "logprobs")]
    stored = tables.row_arrays(table, f"{side}_weights")
    aligned = aligned_answers(side, texts, pairs.reference, terms, segments)
    for row, (answer, *parts) in enumerate(zip(aligned, texts, stored, *columns, strict=True)):
        place = f"{files.weights}: {answer.prompt_id}, {side}"
        tokens = _tokens(place, *parts, answer.has_eos)
        if settings:
            computed = weight_answer(side, answer, settings, seed, scale)
            _check_weights(place, stored[row], computed.final)
            tokens = _with_ratios(tokens, answer, row, scorers, settings, computed) if answer.alignment else tokens
        yield tokens


def _tokens(
    place: str, text: str, weights: np.ndarray, ends: np.ndarray, logprobs: np.ndarray, has_eos: bool
) -> list[Token]:
    """The tokens of an answer, EOS included, without what scorers have for them."""
    if len(weights) != len(ends):
        raise StudyError(f"{place}: expected {len(ends)} weights, found {len(weights)}; weigh the answers again")
    texts = [text[begin:end] for begin, end in pairwise([0, *ends.tolist()])]
    tokens = [Token(*values) for values in zip(texts, weights, logprobs.tolist(), strict=True)]
    return [*tokens[:-1], tokens[-1]._replace(is_eos=True)] if has_eos else tokens


def _check_weights(place: str, stored: np.ndarray, computed: np.ndarray) -> None:
    """Raises `StudyError` if weights differ by more than rounding."""
    differ = np.flatnonzero(~np.isclose(stored, computed, rtol=ROUNDING, atol=ROUNDING))
    if len(differ):
        i = int(differ[0])
        expected = f"expected weight {computed[i]:.6g} of token {i + 1} from these log-probabilities"
        raise StudyError(f"{place}: {expected}, found {stored[i]:.6g}; weigh the answers again")


def _with_ratios(
    tokens: list[Token],
    answer: AlignedAnswer,
    row: int,
    scorers: Sequence["ScorerTokens"],
    settings: Weigh,
    computed: AnswerWeights,
) -> list[Token]:
    """The tokens with what the scorers have for them; a closing EOS has no log-ratio."""
    alignment, (lower, upper) = answer.alignment, (computed.tokens.at_lower, computed.tokens.at_upper)
    ratios = _ratios(answer, settings.segment_agg or "log_mean")
    listed, complete = {scorer: scorer.tokens(row) for scorer in scorers}, list(tokens)
    segment, in_segment = -1, {}
    for i, segment_of_token in enumerate(alignment.student.tolist()):
        if segment_of_token != segment:
            segment = segment_of_token
            begin, end = np.searchsorted(alignment.teacher, (segment, segment + 1))
            in_segment = {scorer: own[begin:end] for scorer, own in listed.items() if scorer.is_foreign}
        neutral = "" if ratios[i] else "unclear" if alignment.read[segment] else "unread"
        scored = {
            scorer.role: in_segment[scorer] if scorer.is_foreign else own[i : i + 1] for scorer, own in listed.items()
        }
        complete[i] = tokens[i]._replace(
            scored=scored, ratios=ratios[i], at_lower=float(lower[i]), at_upper=float(upper[i]), neutral=neutral
        )
    return complete


def _ratios(answer: AlignedAnswer, segment_agg: str) -> list[Sequence[float]]:
    """The log-ratios of every token."""
    by_token: list[Any] = [[] for _ in answer.own]
    for token, ratio in zip(*log_ratios(answer.alignment, answer.own, answer.foreign, segment_agg), strict=True):
        by_token[token].append(float(ratio))
    unlisted = long_segments(answer.alignment, answer.own, answer.foreign) if segment_agg == "paper_mean" else ()
    for segment in unlisted:
        mean = segment.foreign.mean()
        for token, own in zip(segment.tokens.tolist(), segment.own.tolist(), strict=True):
            by_token[token] = LongRatios(own, segment.foreign, own + mean)
    return by_token


class ScorerTokens:
    """A scorer's tokens of the answers of one side; `is_foreign`: of another tokenizer than the student's."""

    def __init__(self, term: Term, texts: Sequence[str], reference: pa.Table):
        scored = term.logprobs
        self.role, self.texts = ROLES[term.sign < 0], texts
        self.is_foreign = scored.scorer["tokenizer"] != tables.metadata(reference)["tokenizer"]
        self.ends, self.logprobs = (tables.row_arrays(scored.table, part) for part in ("ends", "logprobs"))

    def tokens(self, row: int) -> list[tuple[str, float]]:
        """(text, log-probability) of the tokens of an answer."""
        texts = [self.texts[row][begin:end] for begin, end in pairwise([0, *self.ends[row].tolist()])]
        return list(zip(texts, self.logprobs[row].tolist(), strict=True))
