"""The table of tests: CSV with all of them; in Markdown the family, and of the rest the last iterations."""

from typing import Any, NamedTuple

import pandas as pd

from wspin.config.preregistration import LAST, Preregistration, read_preregistration
from wspin.escaping import escaped, in_markdown
from wspin.storage.files import sha256
from wspin.storage.text_tables import csv_text, frame_table

from .hypotheses import EXPLORATORY, POOLED, PREREGISTERED, Hypothesis, Outcome, PermutationDraws
from .tables import signed_points

LEAST = 1e-4  # smaller p are shown as smaller than this
REST = (
    "What is not preregistered is exploratory: its p is not adjusted. This page shows its last iterations, and of "
    "several seeds the pooled tests; the CSV has all."
)


class Registered(NamedTuple):
    """A preregistration with its file and the file's SHA-256."""

    path: str
    sha256: str
    preregistration: Preregistration


def read_registered(path: str | None) -> Registered | None:
    """The preregistration of a file, if there is one. Raises `StudyError` as `read_preregistration`."""
    return Registered(path, sha256(path), read_preregistration(path)) if path else None


def hypothesis_tables(
    results: Outcome, registered: Registered | None, draws: PermutationDraws, note: str = ""
) -> dict[str, str]:
    """By suffix: the frame of results as CSV, and in Markdown what a reader looks for, a `note` behind the legend."""
    legend = [*map(in_markdown, family_lines(results, registered)), *_legend(draws), escaped(f"{REST}{note}")]
    table = frame_table(_shown(results.frame)) if len(results.frame) else "There are no arms to compare."
    return {".csv": csv_text(results.frame), ".md": "\n".join([table, "", *(f"* {line}" for line in legend), ""])}


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the Markdown table as texts, the family first."""
    contrast = frame.arm + " - " + frame.baseline
    last = frame.iteration.isna() | (frame.iteration == frame.groupby(contrast).iteration.transform("max"))
    several = (frame.seed == POOLED).groupby([contrast, frame.iteration.fillna(-1)]).transform("any")
    inside = frame.label == PREREGISTERED
    rows = frame.assign(contrast=contrast)[inside | (last & (~several | (frame.seed == POOLED)))]
    rows = rows.sort_values("label", key=lambda label: label == EXPLORATORY, kind="stable")
    shown = {
        "arm - baseline": rows.contrast,
        "iteration": ["" if pd.isna(k) else str(k) for k in rows.iteration],
        "difference": rows.difference.map(signed_points),
        "p": rows.p.map(_shown_p),
        "Holm": rows.holm.map(_shown_p),
        **{name: rows[name].map(str) for name in ("task", "seed", "test", "n", "better", "worse", "label")},
    }
    order = ["arm - baseline", "iteration", "task", "seed", "test", "n", "better", "worse", "difference", "p", "Holm"]
    return pd.DataFrame(shown)[[*order, "label"]]


def _shown_p(p: float) -> str:
    return "" if pd.isna(p) else f"< {LEAST:.4f}" if p < LEAST else f"{p:.4f}"


def _legend(draws: PermutationDraws) -> list[str]:
    """What the columns and the tests are, a line each."""
    return [
        "difference: points, arm minus baseline at equal seed, on the same documents after the same prompts; n: "
        "documents, or seeds of the test `seeds`; better, worse: those that favour the arm, and its baseline. p is "
        "two-sided.",
        "`mcnemar`, exact, for answers that are right or wrong: do these two models differ on documents like these?",
        "`documents`, sign permutation of the documents' differences, pooled of their means over the seeds: do these "
        "trainings differ on documents like these? Those of different tasks count as independent. All patterns of "
        f"signs up to {draws.count}, else as many draws, seed {draws.seed}. Of one seed's right and wrong answers it "
        "is `mcnemar`.",
        "`seeds`, Student's t over the seeds' differences: do trainings with other seeds differ, on these documents? "
        "No p if all differences are equal.",
    ]


def family_lines(results: Outcome, registered: Registered | None) -> list[str]:
    """What is preregistered, what of it is significant, and what was not tested, a line each."""
    without = [f"Not compared: {arm} - {baseline}: {reason}." for arm, baseline, reason in results.uncompared]
    if unpaired := [f"{arm} - {baseline}: {', '.join(names)}" for arm, baseline, names in results.unpaired]:
        without.append(f"Without a partner of their seed: {'; '.join(unpaired)}.")
    if registered is None:
        return ["No preregistration (report.preregistration): all tests are exploratory.", *without]
    level, family = registered.preregistration.level, results.frame[results.frame.label == PREREGISTERED]
    count = len(family) + sum(member.count for member in results.untested)
    number = "1 test" if count == 1 else f"{count} tests"
    significant = family[family.holm <= level]
    shown = [f"{name}: {signed_points(row.difference)}" for name, row in _named(significant)]
    untested = [(_name(*member[:5]), member.reason) for member in results.untested]
    untested += [(name, "the differences of all seeds are equal") for name, _ in _named(family[family.p.isna()])]
    return [
        f"Preregistered in {registered.path}, SHA-256 {registered.sha256}: {number}, p adjusted by Holm's method.",
        f"Significant at level {level:g}: {'; '.join(shown) or 'none'}.",
        *(f"Preregistered, not tested: {name}: {reason}." for name, reason in untested),
        *without,
    ]


def _named(frame: pd.DataFrame) -> list[tuple[str, Any]]:
    """The name of each row's hypothesis, with its seed if it is of one, and the row."""
    rows = list(frame.itertuples(index=False))
    seeds = ["" if row.seed == POOLED else f", seed {row.seed}" for row in rows]
    return [(_name(*row[: len(Hypothesis._fields)]) + seed, row) for row, seed in zip(rows, seeds, strict=True)]


def _name(arm: str, baseline: str, iteration: int | str, task: str, test: str) -> str:
    at = "" if pd.isna(iteration) else " at the last iteration" if iteration == LAST else f" at iteration {iteration}"
    return f"{arm} - {baseline}{at}, {task}, {test}"
