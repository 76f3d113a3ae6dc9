"""Published numbers beside ours: differences with unpaired intervals, and the published cells that fail a check.

A published share p of n documents has the standard error sqrt(p (1 - p) / n) with the n of `grim.SIZES`: the tables
print none. For TruthfulQA's MC2, a mean of values between 0 and 1, that is an upper bound. Cells of another metric than
ours, or of another number of documents, are named and not compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from wspin.config.explain import complaints_of
from wspin.config.published import PublishedRow, PublishedTable, read_published, table_rows
from wspin.errors import StudyError
from wspin.escaping import escaped, in_markdown
from wspin.iteration import Iteration
from wspin.storage.text_tables import csv_text, frame_table

from .csv_rows import Mean, Name, read_rows
from .frame import chosen_scores
from .grim import DOCUMENTS, SIX, SIZES, failed_average, failed_share
from .scores import AVERAGE, ScoreFile, cut_note, dtype_note, split_pairs
from .tables import in_points, mean_error, signed_points

MEAN = "mean of six"  # of ours: the average that papers print, whatever `report.groups` has
# lm-eval's metric, where it is not the papers' name with `,none`: by task, or by the beginning of its name
METRICS = {
    ("truthfulqa_mc2", "mc2"): "acc,none",
    ("gsm8k", "acc"): "exact_match,strict-match",
    ("bbh", "acc"): "exact_match,get-answer",
    ("bbh", "score"): "exact_match,get-answer",
}


class Line(NamedTuple):
    """A cell of a published table beside our score; shares and errors are fractions, NaN where they are unknown."""

    model: str
    source: str
    table: str
    row: str
    task: str
    metric: str  # as the source names it
    printed_points: str
    published_check: str  # what the printed number fails
    published: float
    published_stderr: float
    ours: float
    ours_stderr: float


class PublishedCell(NamedTuple):
    """What is drawn of a row of the CSV of `reproduction`, as fractions."""

    model: Name
    task: str
    published: Mean
    ours: Mean


def read_published_means(path: str | Path) -> pd.DataFrame:
    """The published means in the CSV of `reproduction`, by the fields of `PublishedCell`. Raises as `read_rows`."""
    cells = read_rows(path, PublishedCell, "published numbers", may_be_empty=True)
    frame = pd.DataFrame(cells, columns=PublishedCell._fields)
    return frame[frame.task == MEAN]


def parse_tables(texts: Iterable[Sequence[str]]) -> list[PublishedTable]:
    """Tables from texts (file, table, `MODEL=ROW`, ...). Raises `StudyError` at one in another form."""
    tables = []
    for file, *table_and_rows in texts:
        table, *rows = table_and_rows or [None]
        pairs = dict(split_pairs("MODEL=ROW", rows))
        try:
            tables.append(PublishedTable.model_validate({"file": file, "table": table, "rows": pairs}))
        except ValidationError as error:
            place, message = complaints_of(error, PublishedTable)[0]
            raise StudyError(f"--table {file}: {'.'.join(place)}: {message}") from None
    return tables


def reproduction(
    files: Sequence[ScoreFile], metrics: Mapping[str, str], tables: Sequence[PublishedTable], confidence: float
) -> pd.DataFrame:
    """A row per published row, model beside it and task that both have, by `Line`, with the `difference`.

    `difference` is ours minus published, `low` and `high` bound its interval under independent normal errors, and
    `inside` says whether that holds 0; the three are missing where a standard error is. Raises `StudyError` as
    `published_pairs` and `chosen_scores`, and at a published cell that is no percentage.
    """
    scores = chosen_scores(files, metrics).set_index(["model", "task"])[["value", "stderr", "n"]]
    models = list(dict.fromkeys(file.model for file in files))
    pairs = [pair for table in tables for pair in published_pairs(table, models)]
    lines = (line for model, row in pairs for line in _lines(model, row, scores.loc[model], metrics))
    frame = pd.DataFrame(lines, columns=Line._fields)
    width = NormalDist().inv_cdf((1 + confidence) / 2) * np.hypot(frame.ours_stderr, frame.published_stderr)
    frame["difference"] = frame.ours - frame.published
    frame["low"], frame["high"] = frame.difference - width, frame.difference + width
    frame["inside"] = (abs(frame.difference) <= width).astype("boolean").where(width.notna())
    return frame


def published_pairs(table: PublishedTable, models: Sequence[str]) -> list[tuple[str, PublishedRow]]:
    """(model, published row beside it), without the iterations that an arm of this study does not have.

    Raises `StudyError` as `table_rows`, and for a name in `rows` that is neither one of `models` nor an arm of them.
    """
    arms: dict[str, list[Iteration]] = {}
    for iteration in filter(None, map(Iteration.parse, models)):
        arms.setdefault(iteration.arm, []).append(iteration)
    rows = {name: Iteration.parse(name) for name in table.rows if name not in {*models, *arms}}
    if unknown := [name for name, iteration in rows.items() if not (iteration and iteration.arm in arms)]:
        expected = f"expected a model or arm of this study ({', '.join((*models, *arms))})"
        raise StudyError(*(f"{table.file}, {table.table}: {expected}, found {name!r}" for name in unknown))
    pairs = []
    for name, row in table_rows(table, arms):
        last = max(arms[name]) if name in arms else None
        at = last if row.iteration is None else Iteration(name, row.iteration)
        model = at.name if name in arms else name
        pairs += [(model, row)] if model in models else []
    return pairs


def _lines(model: str, row: PublishedRow, scores: pd.DataFrame, metrics: Mapping[str, str]) -> Iterator[Line]:
    """A line per task, in their order, and one for the mean of six if our study has all of these."""
    place = (model, row.source, row.table, row.name)
    obstacles = _obstacles(row, scores.n, metrics)
    errors = dict.fromkeys(SIX, np.nan)
    for task in metrics:
        if task in row.cells and task not in obstacles:
            ours, printed = scores.loc[task], row.cells[task]
            share = _fraction(printed)
            if not 0.0 <= share <= 1.0:
                message = f"expected a percentage, found {printed}; correct the cell in its CSV"
                raise StudyError(f"{row.table}, {row.name}: {task}: {message}")
            errors[task] = np.sqrt(share * (1 - share) / SIZES.get(task, np.nan))
            cell = (task, row.metrics[task], printed, failed_share(task, printed), share, errors[task])
            yield Line(*place, *cell, ours.value, ours.stderr)
    if AVERAGE in row.cells and SIX.keys() <= metrics.keys() and MEAN not in obstacles:
        ours, printed = scores.loc[list(SIX)], row.cells[AVERAGE]
        error = mean_error([errors[task] for task in SIX])
        cell = (MEAN, row.metrics[AVERAGE], printed, failed_average(row.cells), _fraction(printed), error)
        yield Line(*place, *cell, ours.value.mean(), mean_error(ours.stderr))


def _obstacles(row: PublishedRow, n: Mapping[str, int], metrics: Mapping[str, str]) -> dict[str, str]:
    """Task -> why a published cell and our score of it are not compared; `n`, `metrics`: ours, by task.

    The mean of six is one of them if one of the six is, printed or not.
    """
    obstacles = {}
    for task, metric in metrics.items():
        printed = row.metrics.get(task) or (SIX.get(task) if AVERAGE in row.cells else None)
        family = "bbh" if task.startswith("bbh") else task
        if printed and metric != METRICS.get((family, printed), f"{printed},none"):
            obstacles[task] = f"metric {printed}, here {metric}"
        elif printed and n[task] != SIZES.get(task, n[task]):
            obstacles[task] = f"{SIZES[task]} documents, here {n[task]}"
    if AVERAGE in row.cells and SIX.keys() <= metrics.keys() and (parts := [task for task in SIX if task in obstacles]):
        obstacles[MEAN] = ", ".join(parts)
    return obstacles


def _fraction(printed: str) -> float:
    """Of printed points; dividing by 100 would move the last digit."""
    return float(f"{printed}e-2")


# Texts


def reproduction_tables(
    files: Sequence[ScoreFile],
    metrics: Mapping[str, str],
    tables: Sequence[PublishedTable],
    confidence: float,
    replicates: Sequence[tuple[str, str]] = (),
    note: str = "",
) -> dict[str, str]:
    """By suffix: the frame of `reproduction` as CSV, and a table for each published one as Markdown, in points.

    `replicates`: (arm or model, replicate of it); `note`: sentences below the tables.
    """
    frame = reproduction(files, metrics, tables, confidence)
    sections = [
        f"**{in_markdown(source)}, {in_markdown(table)}**\n\n{frame_table(_shown(lines))}"
        for (source, table), lines in frame.groupby(["source", "table"], sort=False)
    ]
    notes = (
        _legend(confidence)
        + "".join(_left_out(table, files) + _not_compared(table, files, metrics) for table in tables)
        + _replicates_note(tables, replicates)
        + (f" {note}" if note else "")
        + cut_note(files)
        + dtype_note(files)
    )
    return {".csv": csv_text(frame), ".md": "\n\n".join([*sections, escaped(notes)]) + "\n"}


def _shown(lines: pd.DataFrame) -> pd.DataFrame:
    """The texts of a table: published numbers in italics, so that none is taken for ours."""
    interval = (" [" + lines.low.map(signed_points) + ", " + lines.high.map(signed_points) + "]").where(
        lines.inside.notna(), ""
    )
    failed = (" (" + lines.published_check + ")").where(lines.published_check != "", "")
    columns = {
        "model": lines.model,
        "task": lines.task,
        "published row": lines.row.map(in_markdown),
        "*published*": "*" + lines.printed_points + "*" + failed,
        "ours": list(map(in_points, lines.ours, lines.ours_stderr)),
        "ours - *published*": lines.difference.map(signed_points) + interval,
        "inside": lines.inside.map({True: "yes", False: "**no**"}).fillna("unknown"),
    }
    return pd.DataFrame(columns)


def _legend(confidence: float) -> str:
    return (
        "Points. The numbers in italics are published by the source above each table, not measured here; ours have one "
        f"standard error over items. Difference: ours minus published [low, high], the {100 * confidence:g} % interval "
        "of two independent draws of documents, too wide for the same ones (the published answers would be needed to "
        "pair them), and silent about other seeds of the training and the number of comparisons; inside: it holds 0. A "
        "published share has the error sqrt(p(1 - p)/n), an upper bound for TruthfulQA's MC2; unknown: a mean without "
        f"its cells, or a task whose n is not known here. {MEAN[0].upper()}{MEAN[1:]}: of {', '.join(SIX)}, as the "
        "papers' averages, whatever means other tables here have. Not k/n: no number of right answers to the task's n "
        f"documents rounds or truncates to the printed one (GRIM; checked: {', '.join(DOCUMENTS)}). Cells give: the "
        "mean of the printed cells, if it is off by more than 0.01. Other builds of the harness give other scores: a "
        "difference may be one of evaluation."
    )


def _left_out(published: PublishedTable, files: Sequence[ScoreFile]) -> str:
    """A sentence about the rows of a published table that no model here stands beside; empty where there is none."""
    shown = [row for _, row in published_pairs(published, [file.model for file in files])]
    table = [row for row in read_published(published.file) if row.table == published.table]
    names = [in_markdown(row.name) for row in table if row not in shown]
    return f" {in_markdown(published.table)} also has {', '.join(names)}." if names else ""


def _not_compared(published: PublishedTable, files: Sequence[ScoreFile], metrics: Mapping[str, str]) -> str:
    """A sentence about the cells beside our models that are not compared; empty where there is none."""
    n = {task: result.n for file in files for task, result in file.scores.tasks.items()}
    rows = [row for _, row in published_pairs(published, [file.model for file in files])]
    obstacles = {task: reason for row in rows for task, reason in _obstacles(row, n, metrics).items()}
    names = ", ".join(f"{in_markdown(task)} ({in_markdown(reason)})" for task, reason in obstacles.items())
    return f" Not compared with {in_markdown(published.table)}: {names}." if names else ""


def _replicates_note(tables: Sequence[PublishedTable], replicates: Sequence[tuple[str, str]]) -> str:
    """A sentence about the replicates of what stands beside published rows; empty where there is none."""
    named = {name.split("/")[0] for table in tables for name in table.rows}
    others = [in_markdown(other) for first, other in replicates if first in named and other not in named]
    return f" Ours are of one seed; replicates left out: {', '.join(others)}." if others else ""
