"""The distribution of token weights: a row per iteration and side, with the tokens of greatest mean weight.

EOS is left out: its weight is a setting. Shares are of tokens, except `mismatched`: the share of the segments in which
the two models have different numbers of tokens, where the mean forms are biased.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from wspin.errors import StudyError
from wspin.escaping import as_json, code_in_markdown
from wspin.iteration import Iteration
from wspin.progress import with_progress
from wspin.storage import tables
from wspin.storage.tables import WEIGHT_COUNTS
from wspin.storage.text_tables import csv_text, text_table

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
COLUMNS = ("arm", "iteration", "side", "tokens", "mean", "sd", *QUANTILES)
COLUMNS += ("at_lower", "at_upper", "unread", "unclear", "mismatched", "heaviest")
TOP = 20  # tokens of greatest mean weight
MIN_COUNT = 10  # occurrences of a token whose mean weight counts

WeightRow = dict[str, Any]  # by `COLUMNS`


@dataclass(frozen=True)
class Shard:
    """The files of one shard of an iteration."""

    weights: str
    reference: str
    generations: str


def iteration_shards(
    iterations: Sequence[str], shards: Sequence[str], *folders: Sequence[str]
) -> dict[str, list[Shard]]:
    """Iteration -> its shards, from their names and from the `folders` of weights, reference and generations.

    Raises `StudyError` if there is not one folder of each kind per iteration.
    """
    if found := [len(kind) for kind in folders if len(kind) != len(iterations)]:
        raise StudyError(f"report: expected {len(iterations)} folders, one per iteration, found {found[0]}")
    return {
        iteration: [Shard(*(f"{folder}/{shard}.parquet" for folder in kinds)) for shard in shards]
        for iteration, *kinds in zip(iterations, *folders, strict=True)
    }


def weight_tables(shards: Mapping[str, Sequence[Shard]], prompts: str) -> dict[str, str]:
    """By suffix: the table of some iterations as CSV and Markdown. Raises `StudyError` if a file is missing."""
    iterations = with_progress(shards.items(), len(shards), "report: weights", "iterations")
    rows = [row for iteration, files in iterations for row in weight_rows(iteration, files, prompts)]
    return {".csv": to_csv(rows), ".md": to_markdown(rows)}


def weight_rows(iteration: str, shards: Sequence[Shard], prompts: str) -> list[WeightRow]:
    """The iteration's two rows, chosen and rejected. Raises `StudyError` if files do not belong together."""
    table = tables.read(prompts, "prompts")
    responses = dict(zip(table["prompt_id"].to_pylist(), table["response"].to_pylist(), strict=True))
    arm, k = Iteration.parse(iteration)
    return [{"arm": arm, "iteration": k, **_row(side, shards, responses)} for side in tables.SIDES]


def _row(side: str, shards: Sequence[Shard], responses: dict[str, str]) -> WeightRow:
    weights, ids, token_texts, counts = [], [], {}, dict.fromkeys(WEIGHT_COUNTS, 0.0)
    for shard in shards:
        table = tables.read(shard.weights, "weights")
        shard_counts = tables.metadata(table)["counts"][side]
        for key in WEIGHT_COUNTS:
            counts[key] += shard_counts.get(key, math.nan)  # weights from a given file have the count of tokens alone
        reference = tables.read_reference(shard.reference)
        tables.check_weighted_ids(shard.weights, table, reference)
        answers = tables.read(shard.generations, "generations")
        if side == "rejected":
            texts = answers["response"].to_pylist()
        else:
            texts = [responses.get(prompt_id) for prompt_id in answers["prompt_id"].to_pylist()]
        shard_ids = own_token_ids(reference, side)
        weights += own_weights(table, side, shard_ids)
        ids += shard_ids
        _add_token_texts(token_texts, texts, shard_ids, tables.row_arrays(reference, f"{side}_ends"))
    flat = pd.Series(np.concatenate(weights), dtype=float)
    return {"side": side, **_statistics(flat, counts), "heaviest": _top_tokens(flat, np.concatenate(ids), token_texts)}


def own_token_ids(reference: pa.Table, side: str) -> list[np.ndarray]:
    """The token ids of a side's answers, EOS left out."""
    eos = tables.metadata(reference)["eos"]
    token_ids = tables.row_arrays(reference, f"{side}_token_ids")
    return [ids[:-1] if len(ids) and ids[-1] == eos else ids for ids in token_ids]


def own_weights(table: pa.Table, side: str, token_ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The weights of these tokens, without that of EOS."""
    weights = tables.row_arrays(table, f"{side}_weights")
    return [values[: len(ids)] for values, ids in zip(weights, token_ids, strict=True)]


def _add_token_texts(
    token_texts: dict[int, str], texts: Sequence[str], answers: Sequence[np.ndarray], ends: Sequence[np.ndarray]
) -> None:
    """Add every new token id with the text of its first occurrence; `ends` are its ends in the text, in characters."""
    tokens, positions = np.unique(np.concatenate(answers), return_index=True)
    answer_ends = np.cumsum([len(ids) for ids in answers])
    for token, position in zip(tokens.tolist(), positions.tolist(), strict=True):
        if token not in token_texts:
            row = int(np.searchsorted(answer_ends, position, side="right"))
            i = position - int(answer_ends[row]) + len(answers[row])
            token_texts[token] = texts[row][ends[row][i - 1] if i else 0 : ends[row][i]]


def _statistics(weights: pd.Series, counts: dict[str, float]) -> WeightRow:
    """The numbers of a side; NaN where there is no token."""
    row: WeightRow = {"tokens": int(counts["tokens"]), "mean": weights.mean(), "sd": weights.std(ddof=0)}
    row |= zip(QUANTILES, weights.quantile(list(QUANTILES.values())), strict=True)
    tokens = counts["tokens"] or 1
    row |= {key: counts[key] / tokens for key in ("at_lower", "at_upper", "unread", "unclear")}
    return row | {"mismatched": counts["mismatched"] / (counts["segments"] or 1)}


def _top_tokens(weights: pd.Series, ids: np.ndarray, token_texts: dict[int, str]) -> list[tuple[str, float]]:
    """(text, mean weight) of the tokens of greatest mean weight, without parts of characters, which have no text."""
    if weights.nunique() < 2:
        return []
    tokens = weights.groupby(ids).agg(["size", "mean"])
    top = tokens["mean"][tokens["size"] >= MIN_COUNT].sort_values(ascending=False, kind="stable").head(TOP)
    return [(token_texts[token], round(mean, 4)) for token, mean in top.items() if token_texts[token]]


def to_csv(rows: Sequence[WeightRow]) -> str:
    """All numbers at full precision; `heaviest` as JSON."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return csv_text(frame.assign(heaviest=frame.heaviest.map(as_json)))


def to_markdown(rows: Sequence[WeightRow]) -> str:
    """The most important numbers, with a legend."""
    if not rows:
        return "No arm weighs its tokens.\n"
    header = ["iteration", "side", "tokens", "mean ± sd", "median", "5 to 95 %", "at lower", "at upper"]
    table = text_table([*header, "heaviest tokens"], [_line(row) for row in rows], "llrrrrrrl")
    legend = (
        "Weights of tokens, EOS left out. At lower, at upper: share of the tokens with a log-ratio that is clamped "
        "there; a token whose segment has several has the mean of their weights. "
        f"Heaviest: by mean weight, of the tokens that occur {MIN_COUNT} times or more. Neutral tokens and segments "
        "with unequal numbers of tokens are counted in weights.csv."
    )
    return f"{table}\n\n{legend}\n"


def _line(row: WeightRow) -> tuple[str, ...]:
    name = (Iteration(row["arm"], row["iteration"]).name, row["side"], str(row["tokens"]))
    if not row["tokens"]:
        return (*name, *["-"] * 6)
    return (
        *name,
        f"{row['mean']:.2f} ± {row['sd']:.2f}",
        f"{row['median']:.2f}",
        f"{row['q05']:.2f} to {row['q95']:.2f}",
        *(f"{100 * row[key]:.1f} %" for key in ("at_lower", "at_upper")),
        " ".join(token_in_markdown(token) for token, _ in row["heaviest"][:5]),
    )


def token_in_markdown(token: str) -> str:
    """A token as code in Markdown, line breaks and blanks visible."""
    return code_in_markdown(as_json(token)[1:-1])
