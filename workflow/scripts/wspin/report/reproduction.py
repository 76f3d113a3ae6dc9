"""Published numbers beside ours: differences with unpaired intervals, and the published cells that fail a check.

A published share p of n documents has the standard error sqrt(p (1 - p) / n), n of our evaluation of the task: the
tables print none. For TruthfulQA's MC2, a mean of values between 0 and 1, that is an upper bound.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from .frame import chosen_scores
from .grim import DOCUMENTS, SIX, failed_average, failed_share
from .scores import AVERAGE, ScoreFile, cut_note, dtype_note, split_pairs
from .tables import in_points, mean_error, signed_points


class Line(NamedTuple):
    """A cell of a published table beside our score; shares and errors are fractions, NaN where they are unknown."""

    model: str
    source: str
    table: str
    row: str
    task: str
    printed: str
    check: str  # what the printed number fails
    published: float
    published_stderr: float
    ours: float
    stderr: float


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
    `beside` and `chosen_scores`, and at a published cell that is no percentage.
    """
    scores = chosen_scores(files, metrics).set_index(["model", "task"])[["value", "stderr", "n"]]
    models = list(dict.fromkeys(file.model for file in files))
    pairs = [pair for table in tables for pair in beside(table, models)]
    lines = (line for model, row in pairs for line in _lines(model, row, scores.loc[model], list(metrics)))
    frame = pd.DataFrame(lines, columns=Line._fields)
    width = NormalDist().inv_cdf((1 + confidence) / 2) * np.hypot(frame.stderr, frame.published_stderr)
    frame["difference"] = frame.ours - frame.published
    frame["low"], frame["high"] = frame.difference - width, frame.difference + width
    frame["inside"] = (abs(frame.difference) <= width).astype("boolean").where(width.notna())
    return frame


def beside(table: PublishedTable, models: Sequence[str]) -> list[tuple[str, PublishedRow]]:
    """(model, published row beside it), without the iterations that an arm of this study does not have.

    Raises `StudyError` as `table_rows`, and for a name in `rows` that is neither one of `models` nor an arm of them.
    """
    arms: dict[str, list[Iteration]] = {}
    for iteration in filter(None, map(Iteration.parse, models)):
        arms.setdefault(iteration.arm, []).append(iteration)
    if unknown := [name for name in table.rows if name not in {*models, *arms}]:
        expected = f"expected a model or arm of this study ({', '.join((*models, *arms))})"
        raise StudyError(*(f"{table.file}, {table.table}: {expected}, found {name!r}" for name in unknown))
    pairs = []
    for name, row in table_rows(table, arms):
        last = max(arms[name]) if name in arms else None
        at = last if row.iteration is None else Iteration(name, row.iteration)
        model = at.name if name in arms else name
        pairs += [(model, row)] if model in models else []
    return pairs


def _lines(model: str, row: PublishedRow, scores: pd.DataFrame, tasks: Sequence[str]) -> Iterator[Line]:
    """A line per task, in their order, and one for the average if our study has all of its tasks."""
    place = (model, row.source, row.table, row.name)
    errors = dict.fromkeys(SIX, np.nan)
    for task in tasks:
        if task in row.cells:
            ours, printed = scores.loc[task], row.cells[task]
            share = _fraction(printed)
            if not 0.0 <= share <= 1.0:
                message = f"expected a percentage, found {printed}; correct the cell in its CSV"
                raise StudyError(f"{row.table}, {row.name}: {task}: {message}")
            errors[task] = np.sqrt(share * (1 - share) / ours.n)
            yield Line(*place, task, printed, failed_share(task, printed), share, errors[task], ours.value, ours.stderr)
    if AVERAGE in row.cells and set(SIX) <= set(tasks):
        ours, printed = scores.loc[list(SIX)], row.cells[AVERAGE]
        of = (mean_error(list(errors.values())), ours.value.mean(), mean_error(ours.stderr))
        yield Line(*place, AVERAGE, printed, failed_average(row.cells), _fraction(printed), *of)


def _fraction(printed: str) -> float:
    """Of printed points; dividing by 100 would move the last digit."""
    return float(f"{printed}e-2")


# Texts


def reproduction_tables(
    files: Sequence[ScoreFile], metrics: Mapping[str, str], tables: Sequence[PublishedTable], confidence: float
) -> dict[str, str]:
    """By suffix: the frame of `reproduction` as CSV, and a table for each published one as Markdown, in points."""
    frame = reproduction(files, metrics, tables, confidence)
    models = [file.model for file in files]
    sections = [
        f"**{in_markdown(source)}, {in_markdown(table)}**\n\n{frame_table(_shown(lines))}"
        for (source, table), lines in frame.groupby(["source", "table"], sort=False)
    ]
    notes = (
        _legend(confidence)
        + "".join(_left_out(table, models) for table in tables)
        + cut_note(files)
        + dtype_note(files)
    )
    return {".csv": csv_text(frame), ".md": "\n\n".join([*sections, escaped(notes)]) + "\n"}


def _shown(lines: pd.DataFrame) -> pd.DataFrame:
    """The texts of a table: published numbers in italics, so that none is taken for ours."""
    interval = (" [" + lines.low.map(signed_points) + ", " + lines.high.map(signed_points) + "]").where(
        lines.inside.notna(), ""
    )
    failed = (" (" + lines.check + ")").where(lines.check != "", "")
    columns = {
        "model": lines.model,
        "task": lines.task,
        "published row": lines.row.map(in_markdown),
        "*published*": "*" + lines.printed + "*" + failed,
        "ours": list(map(in_points, lines.ours, lines.stderr)),
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
        "published share has the error sqrt(p(1 - p)/n), an upper bound for TruthfulQA's MC2; unknown: an average "
        "without its cells. Not k/n: no number of right answers to the task's n documents rounds or truncates to the "
        f"printed one (GRIM; checked: {', '.join(DOCUMENTS)}). Cells give: the mean of the printed cells, if it is off "
        "by more than 0.01. Other builds of the harness give other scores: a difference may be one of evaluation."
    )


def _left_out(published: PublishedTable, models: Sequence[str]) -> str:
    """A sentence about the rows of a published table that no model here stands beside; empty where there is none."""
    shown = [row for _, row in beside(published, models)]
    table = [row for row in read_published(published.file) if row.table == published.table]
    names = [in_markdown(row.name) for row in table if row not in shown]
    return f" {in_markdown(published.table)} also has {', '.join(names)}." if names else ""
