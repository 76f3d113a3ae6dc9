"""What token weights look like: one row of numbers per iteration and side, and the tokens that weigh most.

EOS is left out, its weight is a setting. Shares are of tokens, but for `mismatched`, a share of the segments that both
models have read: those in which their numbers of tokens differ, where the mean forms are biased.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wspin.errors import StudyError
from wspin.storage import tables
from wspin.storage.tables import WEIGHT_COUNTS
from wspin.storage.text_tables import csv_text, text_table

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
TOP = 20  # tokens of greatest mean weight
SELDOM = 10  # a token that occurs less often has no mean worth a place among them

Row = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Files of one shard of an iteration."""

    weights: str
    reference: str
    generations: str


def iteration_shards(
    iterations: Sequence[str],
    shards: Sequence[str],
    weights: Sequence[str],
    reference: Sequence[str],
    generations: Sequence[str],
) -> dict[str, list[Shard]]:
    """Iteration -> its shards, from their names and from one folder of each kind per iteration.

    Raises `StudyError` if an iteration lacks a folder.
    """
    folders = (weights, reference, generations)
    if found := [len(kind) for kind in folders if len(kind) != len(iterations)]:
        raise StudyError(f"report: expected {len(iterations)} folders, one per iteration, found {found[0]}")
    return {
        iteration: [Shard(*(f"{folder}/{shard}.parquet" for folder in kinds)) for shard in shards]
        for iteration, *kinds in zip(iterations, *folders, strict=True)
    }


def weight_tables(shards: Mapping[str, Sequence[Shard]], prompts: str) -> dict[str, str]:
    """The table of some iterations as CSV and as Markdown, by suffix. Raises `StudyError` if a file is missing."""
    rows = [row for iteration, of_one in shards.items() for row in weight_rows(iteration, of_one, prompts)]
    return {".csv": to_csv(rows), ".md": to_markdown(rows)}


def weight_rows(iteration: str, shards: Sequence[Shard], prompts: str) -> list[Row]:
    """The iteration's two rows, chosen and rejected. Raises `StudyError` on files that do not hold what they should."""
    real = tables.read(prompts, "prompts")
    texts = dict(zip(real["prompt_id"].to_pylist(), real["response"].to_pylist(), strict=True))
    arm, _, k = iteration.rpartition("/ite")
    return [{"arm": arm, "iteration": int(k), **_row(side, shards, texts)} for side in tables.SIDES]


def _row(side: str, shards: Sequence[Shard], real: dict[str, str]) -> Row:
    weights, ids, named, counts = [], [], {}, dict.fromkeys(WEIGHT_COUNTS, 0.0)
    for shard in shards:
        table = tables.read(shard.weights, "weights")
        told = tables.metadata(table)["counts"][side]
        for key in WEIGHT_COUNTS:
            counts[key] += told.get(key, math.nan)  # weights that came from a file tell no more than their tokens
        reference = tables.read_reference(shard.reference)
        tables.check_weighted_ids(shard.weights, table, reference)
        answers = tables.read(shard.generations, "generations")
        texts = (
            answers["response"].to_pylist() if side == "rejected" else map(real.get, answers["prompt_id"].to_pylist())
        )
        own = _without_eos(tables.row_arrays(reference, f"{side}_token_ids"), tables.metadata(reference)["eos"])
        weights += [one[: len(of)] for one, of in zip(tables.row_arrays(table, f"{side}_weights"), own, strict=True)]
        ids += own
        _name(named, list(texts), own, tables.row_arrays(reference, f"{side}_ends"))
    flat = np.concatenate(weights).astype(float)
    return {"side": side, **_numbers(flat, counts), "heaviest": _heaviest(flat, np.concatenate(ids), named)}


def _without_eos(answers: Sequence[np.ndarray], eos: int) -> list[np.ndarray]:
    return [ids[:-1] if len(ids) and ids[-1] == eos else ids for ids in answers]


def _name(
    named: dict[int, str], texts: Sequence[str], answers: Sequence[np.ndarray], ends: Sequence[np.ndarray]
) -> None:
    """Keep for every token id the text of its first occurrence."""
    tokens, places = np.unique(np.concatenate(answers), return_index=True)
    after = np.cumsum([len(ids) for ids in answers])
    for token, place in zip(tokens.tolist(), places.tolist(), strict=True):
        if token not in named:
            row = int(np.searchsorted(after, place, side="right"))
            own = place - int(after[row]) + len(answers[row])
            named[token] = texts[row][ends[row][own - 1] if own else 0 : ends[row][own]]


def _numbers(weights: np.ndarray, counts: dict[str, float]) -> Row:
    """Numbers of a side; None where there is no token."""
    tokens, known = counts["tokens"] or 1, len(weights) > 0
    row: Row = {"tokens": int(counts["tokens"])}
    row |= {"mean": float(weights.mean()) if known else None, "sd": float(weights.std()) if known else None}
    row |= {name: float(np.quantile(weights, share)) if known else None for name, share in QUANTILES.items()}
    row |= {key: counts[key] / tokens for key in ("at_lower", "at_upper", "unread", "unclear")}
    return row | {"mismatched": counts["mismatched"] / (counts["segments"] or 1)}


def _heaviest(weights: np.ndarray, ids: np.ndarray, named: dict[int, str]) -> list[tuple[str, float]]:
    """(token, mean weight) of those that weigh most on average; bytes that end no character have no text to show."""
    if not len(weights) or weights.min() == weights.max():  # none weighs more than another
        return []
    often = np.bincount(ids)
    means = np.where(often >= SELDOM, np.bincount(ids, weights=weights) / often.clip(min=1), -np.inf)
    chosen = [token for token in np.argsort(-means, kind="stable")[:TOP].tolist() if often[token] >= SELDOM]
    return [(named[token], round(float(means[token]), 4)) for token in chosen if named[token]]


def to_csv(made: Sequence[Row]) -> str:
    """All numbers at full precision; `heaviest` as JSON."""
    columns = ("arm", "iteration", "side", "tokens", "mean", "sd", *QUANTILES)
    columns += ("at_lower", "at_upper", "unread", "unclear", "mismatched", "heaviest")
    rows = ({**row, "heaviest": json.dumps(row["heaviest"], ensure_ascii=False)} for row in made)
    return csv_text(columns, ([row[name] for name in columns] for row in rows))


def to_markdown(made: Sequence[Row]) -> str:
    """The numbers that a reader looks at first."""
    if not made:
        return "No arm weighs its tokens.\n"
    header = ["iteration", "side", "tokens", "mean ± sd", "median", "5 to 95 %", "at lower", "at upper"]
    table = text_table([*header, "heaviest tokens"], [_line(row) for row in made], "llrrrrrrl")
    legend = (
        "Weights of tokens, EOS left out. At lower, at upper: share of the tokens whose log-ratio is clamped there. "
        f"Heaviest: by mean weight, of the tokens that occur {SELDOM} times or more. Neutral tokens and segments with "
        "unequal numbers of tokens are counted in weights.csv."
    )
    return f"{table}\n\n{legend}\n"


def _line(row: Row) -> tuple[str, ...]:
    name = (f"{row['arm']}/ite{row['iteration']}", row["side"], str(row["tokens"]))
    shares = [f"{100 * row[key]:.1f} %" for key in ("at_lower", "at_upper")]
    heaviest = " ".join(in_a_cell(token) for token, _ in row["heaviest"][:5])
    if not row["tokens"]:
        return (*name, *["-"] * 6)
    spread = f"{row['q05']:.2f} to {row['q95']:.2f}"
    return (
        *name,
        f"{row['mean']:.2f} ± {row['sd']:.2f}",
        f"{row['median']:.2f}",
        spread,
        *shares,
        heaviest,
    )


def in_a_cell(token: str) -> str:
    """A token in Markdown, its line breaks and blanks visible, in a cell of a table."""
    text = json.dumps(token, ensure_ascii=False)[1:-1].replace("|", r"\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
