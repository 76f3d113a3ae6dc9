"""The page of an iteration's token weights: one HTML file that needs no network, made from `token_page.html.j2`.

Prompts and answers are text to the page: the template escapes them, and characters that show as nothing or turn the
text around them are written as escapes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import escape

from wspin.config.weigh import Weigh
from wspin.escaping import escaped
from wspin.iteration import Iteration
from wspin.storage import tables

from .token_rows import LISTED, PairFiles, Token, TokenPair, WeightedPairs, first_pairs, mean_ratio

PAIRS = 24  # at most, of the study's first
MAX_BYTES = 1_800_000  # of the pairs; later ones are left out, so that a page stays below 2 MB
SPAN_BYTES = 36  # the markup of a token
STEPS = 9  # of the colour scale
BARS = 5 * STEPS  # of the distribution
BAR_HEIGHT = 44  # of the highest bar, in units of the picture
LOG_RANGE = 3.0  # greatest over least weight from which the scale is logarithmic
SHOWN = {"\n": "↵\n", "\r": "␍", "\t": "⇥"}
PART, EOS = "▫", "EOS"

Numbers = dict[str, Any]


def token_page(iteration: str, files: PairFiles) -> str:
    """The page as HTML. Raises `StudyError` if files are missing or do not belong together."""
    from . import html  # jinja2 is slow to import, and the table of one pair does without

    weighted = first_pairs(files, PAIRS)
    columns = {pair.prompt_id: [_columns(tokens) for tokens in pair.tokens.values()] for pair in weighted.pairs}
    pairs = list(_fitting(weighted.pairs, columns))
    scale = ColourScale.of(_weights(pairs))
    return html.render(
        "token_page",
        iteration=Iteration.parse(iteration),
        weighted=weighted,
        settings=_settings(weighted),
        legend=Legend(scale, pairs),
        pairs=[_shown_pair(pair, scale) for pair in pairs],
        values=_values(weighted, [of for pair in pairs for of in columns[pair.prompt_id]]),
    )


def _fitting(pairs: Sequence[TokenPair], columns: Mapping[str, Sequence[Numbers]]) -> Iterator[TokenPair]:
    """The first pairs, at least one, that make no more than `MAX_BYTES` of page."""
    size = 0
    for i, pair in enumerate(pairs):
        texts = [shown(token) for tokens in pair.tokens.values() for token in tokens]
        size += SPAN_BYTES * len(texts) + sum(len(escape(text).encode()) for text in (pair.prompt, *texts))
        size += len(json.dumps(columns[pair.prompt_id], separators=(",", ":")))
        if i and size > MAX_BYTES:
            return
        yield pair


def _weights(pairs: Sequence[TokenPair], sides: Sequence[str] = tables.SIDES) -> np.ndarray:
    """Weights of all tokens but EOS, whose weight is a setting."""
    tokens = [token for pair in pairs for side in sides for token in pair.tokens[side]]
    return np.array([token.weight for token in tokens if not token.is_eos], dtype=np.float64)


@dataclass(frozen=True)
class ColourScale:
    """Steps between the least and the greatest weight of a page: equal ratios where the range is wide."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, weights: np.ndarray) -> "ColourScale":
        low, high = (float(weights.min()), float(weights.max())) if len(weights) else (1.0, 1.0)
        return cls(low, high, low > 0.0 and high >= LOG_RANGE * low)

    def place(self, weight: float | np.ndarray) -> Any:
        """Where a weight stands, from 0 for the least to 1 for the greatest; 0.5 if all are equal."""
        if self.low == self.high:
            return np.full_like(weight, 0.5, dtype=np.float64)
        transform = np.log if self.is_log else np.asarray
        low, high = transform(self.low), transform(self.high)
        return np.clip((transform(weight) - low) / (high - low), 0.0, 1.0)

    def step(self, weight: float) -> int:
        if self.is_log and weight <= 0.0:
            return 0  # of EOS alone
        return min(int(self.place(weight) * STEPS), STEPS - 1)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of the ends, and of round weights that stand apart from them."""
        if self.is_log:
            inner = 2.0 ** np.arange(np.ceil(np.log2(self.low)), np.log2(self.high) + 1)
        else:
            width = (self.high - self.low) / 4 or 1.0
            unit = 10.0 ** np.floor(np.log10(width))
            width = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= width)
            inner = np.arange(np.ceil(self.low / width), self.high / width + 1) * width
        ends = [(0.0, self.low), (1.0, self.high)]
        between = [(float(self.place(w)), float(w)) for w in inner if self.low < w < self.high]
        apart = [(place, w) for place, w in between if 0.07 < place < 0.93]
        return [(place, f"{w:.3g}") for place, w in sorted(ends + apart)]


class Bar(NamedTuple):
    """A bar of the distribution: its class of colour, its place, and its height in units of the picture."""

    step: int
    left: float
    height: float


class Legend:
    """The scale, and how the page's weights are distributed on it."""

    def __init__(self, scale: ColourScale, pairs: Sequence[TokenPair]):
        self.scale, self.steps, self.bar_count, self.bar_height = scale, range(STEPS), BARS, BAR_HEIGHT
        self.is_uniform = scale.low == scale.high
        by_side = {side: _weights(pairs, [side]) for side in tables.SIDES}
        counts = {side: np.histogram(scale.place(of), BARS, (0.0, 1.0))[0] for side, of in by_side.items()}
        shares = {side: count / max(count.sum(), 1) for side, count in counts.items()}
        highest = max(share.max() for share in shares.values()) or 1.0
        self.bars = {
            side: [Bar(i * STEPS // BARS, i, round(BAR_HEIGHT * value / highest, 2)) for i, value in enumerate(share)]
            for side, share in shares.items()
        }
        self.statistics = {side: _statistics(of, pairs, side) for side, of in by_side.items()}


def _statistics(weights: np.ndarray, pairs: Sequence[TokenPair], side: str) -> Numbers:
    """Of a side's tokens without EOS: their number, moments of their weights, share of log-ratios at bounds."""
    tokens = [token for pair in pairs for token in pair.tokens[side] if not token.is_eos]
    if not tokens:
        return {"tokens": 0}
    at = {name: float(np.mean([getattr(token, name) for token in tokens])) for name in ("at_lower", "at_upper")}
    return {"tokens": len(tokens), "mean": float(weights.mean()), "sd": float(weights.std()), **at}


def _settings(weighted: WeightedPairs) -> list[tuple[str, str]]:
    """The settings that the weights are stored with, in the order of the configuration, without those of no effect."""
    order = [*Weigh.model_fields, *weighted.settings]
    return [
        (key, f"{value:g}" if isinstance(value, float) else str(value))
        for key, value in sorted(weighted.settings.items(), key=lambda item: order.index(item[0]))
        if value is not None and (key, value) not in (("control", "none"), ("normalise", "none"))
    ]


def _shown_pair(pair: TokenPair, scale: ColourScale) -> Numbers:
    """What the template shows of a pair."""
    answers = {side: [(_classes(token, scale), shown(token)) for token in of] for side, of in pair.tokens.items()}
    means = {side: _weights([pair], [side]) for side in tables.SIDES}
    return {
        "id": escaped(pair.prompt_id),
        "prompt": "\n".join(map(escaped, pair.prompt.removesuffix("\n").split("\n"))),
        "answers": answers,
        "means": {side: float(weights.mean()) if len(weights) else None for side, weights in means.items()},
    }


def _classes(token: Token, scale: ColourScale) -> str:
    """The step of a token's weight; which bounds all (up, low) or some (ups, lows) of its log-ratios are at."""
    names = [f"w{scale.step(float(token.weight))}"]
    for share, name in ((token.at_upper, "up"), (token.at_lower, "low")):
        names += [name if share > 1 - 1e-9 else f"{name}s"] if share else []
    return " ".join([*names, *(["mark"] if token.is_eos or not token.text else [])])


def shown(token: Token) -> str:
    """A token's text with line ends, tabs and blanks visible, but for the one blank before or between words."""
    if token.is_eos:
        return EOS
    if not token.text:
        return PART
    text, last = token.text, len(token.text) - 1
    parts = []
    for i, char in enumerate(text):
        word = char == " " and i < last and not text[i + 1].isspace() and (i == 0 or not text[i - 1].isspace())
        parts.append(" " if word else "·" if char == " " else SHOWN.get(char) or escaped(char))
    return "".join(parts)


def _values(weighted: WeightedPairs, answers: Sequence[Numbers]) -> Numbers:
    """The numbers behind the page, for its script: the answers in the order in which they stand."""
    bounds = [bound if np.isfinite(bound) else None for bound in weighted.bounds]
    scorers = {role: escaped(name) for role, name in weighted.scorers.items()}
    return {"scorers": scorers, "bounds": bounds, "answers": answers}


def _columns(tokens: Sequence[Token]) -> Numbers:
    """The numbers of an answer, by token; those that few tokens have by their index.

    ratios: at most `LISTED`, then their number and mean if they are more; scored: by role, the texts and
    log-probabilities of at most as many tokens in turn, then the number of all; "=" for those of the token before.
    """
    columns: Numbers = {
        "weight": [float(str(token.weight)) for token in tokens],  # as short as float32 allows
        "student": [round(token.student, 4) for token in tokens],
        "ratios": [_listed_ratios(token.ratios) for token in tokens],
        "bounds": {
            i: [t.at_lower, t.at_upper, len(t.ratios)] for i, t in enumerate(tokens) if t.at_lower or t.at_upper
        },
        "neutral": {i: token.neutral for i, token in enumerate(tokens) if token.neutral},
        "texts": {i: escaped(t.text) for i, t in enumerate(tokens) if not t.is_eos and escaped(t.text) != shown(t)},
        "scored": {},
    }
    for role in dict.fromkeys(role for token in tokens for role in token.scored):
        lists = [_listed_tokens(token.scored.get(role, ())) for token in tokens]
        before = [None, *lists]
        columns["scored"][role] = ["=" if of and of == last else of for of, last in zip(lists, before, strict=False)]
    return columns


def _listed_ratios(ratios: Sequence[float]) -> list[float]:
    more = [len(ratios), round(mean_ratio(ratios), 4)] if len(ratios) > LISTED else []
    return [*(round(ratio, 4) for ratio in ratios[:LISTED]), *more]


def _listed_tokens(scored: Sequence[tuple[str, float]]) -> list[Any]:
    parts = [part for text, value in scored[:LISTED] for part in (escaped(text), round(value, 4))]
    return [*parts, *([len(scored)] if len(scored) > LISTED else [])]
