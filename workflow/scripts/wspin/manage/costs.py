"""What the results took: hours and memory by stage and arm, from the records beside them.

A record is counted once: a job leaves the same one beside each of its outputs, and what arms share lies in one place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from wspin.config.load import read_results
from wspin.storage.files import whole_file
from wspin.storage.provenance import record_output, records
from wspin.storage.text_tables import csv_text, text_table

STAGES = ("fetch", "data", "train", "generate", "logprobs", "weigh", "eval", "report")
SHARED = "all arms"
LEGEND = (
    "Wall hours are the sum over jobs, whether they ran beside each other or not, of a training over all its attempts; "
    "GPU-hours are a job's wall hours times its GPUs, none where a record tells of none. CPU-hours are those of a "
    "job's first process, of a training those of its last attempt. Memory is the largest of a job, in MB; of GPUs that "
    "which torch held on the first. What was made again counts once, as it was made last."
)


class Row(NamedTuple):
    """A line of the table: the jobs of one stage for one arm or registry model."""

    stage: str
    arm: str
    jobs: int
    wall_hours: float
    gpu_hours: float
    cpu_hours: float
    peak_memory_mb: int
    peak_gpu_memory_mb: int


def write_tables(results: Path) -> str:
    """Write `tables/cost.csv` and `tables/cost.md` of a folder of results; returns the latter."""
    arms = set(read_results(results).arms)
    rows = table(results, arms)
    markdown = as_markdown(rows, hardware(results, arms))
    for kind, text in (("csv", as_csv(rows)), ("md", markdown)):
        with whole_file(results / f"tables/cost.{kind}") as temporary:
            temporary.write_text(text)
    return markdown


def table(results: Path, arms: Iterable[str]) -> list[Row]:
    """The rows of a folder of results: every stage and arm, each stage's total, and the total of all."""
    known, groups = set(arms), {}
    for entry, owner in jobs(results, known):
        groups.setdefault((stage(entry["program"]), owner), []).append(entry)
    order = {name: number for number, name in enumerate(STAGES)}
    keys = sorted(groups, key=lambda key: (order.get(key[0], len(order)), key))
    rows = []
    for name in dict.fromkeys(key[0] for key in keys):
        own = [key for key in keys if key[0] == name]
        rows += [_row(*key, groups[key]) for key in own]
        rows += [_row(name, "total", [one for key in own for one in groups[key]])] if len(own) > 1 else []
    return [*rows, _row("total", "", [one for group in groups.values() for one in group])]


def jobs(results: Path, arms: set[str]) -> list[tuple[dict[str, Any], str]]:
    """(record, arm) of every job, once."""
    found = {}
    for path in records(results):
        entry = json.loads(path.read_text())
        if "seconds" in entry and record_output(path).exists():
            place = record_output(path).relative_to(results)
            found.setdefault((entry["program"], entry["started"], *entry["command"]), (entry, owner(place, arms)))
    return list(found.values())


def owner(place: Path, arms: set[str]) -> str:
    """Whose a result is: the arm in its path, the model of the registry that it is or scores, or all arms'."""
    parts = place.parts[2:] if place.parts[0] == "logprobs" else place.parts
    if parts[0] in arms:
        return parts[0]
    return parts[0] if len(parts) > 1 and parts[1] in ("model", "scores") else SHARED


def stage(program: str) -> str:
    """The stage that a program belongs to: it has the stage's name, or begins with it, as `weigh_given` does."""
    name = program.split("_")[0]
    return name if name in STAGES else "report"


def _row(stage: str, arm: str, entries: list[dict[str, Any]]) -> Row:
    gpus = [entry.get("gpus") or {} for entry in entries]
    hours = [entry["seconds"] / 3600 for entry in entries]
    return Row(
        stage,
        arm,
        len(entries),
        sum(hours),
        sum(time * gpu.get("count", 0) for time, gpu in zip(hours, gpus, strict=True)),
        sum(entry["cpu_seconds"] for entry in entries) / 3600,
        max((entry["peak_memory_mb"] for entry in entries), default=0),
        max((gpu.get("peak_memory_mb", 0) for gpu in gpus), default=0),
    )


def as_csv(rows: Iterable[Row]) -> str:
    """Hours with six digits after the point: a second is 0.00028."""
    lines = ([f"{value:.6f}" if isinstance(value, float) else value for value in row] for row in rows)
    return csv_text(Row._fields, lines)


def as_markdown(rows: Iterable[Row], hardware: Iterable[str]) -> str:
    """The table to be read, hours with three digits, and on which machines' GPUs the jobs ran."""
    header = [re.sub("_", " ", name) for name in Row._fields]
    lines = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    shown = text_table(header, lines, "ll" + "r" * (len(header) - 2))
    return f"{shown}\n\n{LEGEND} GPUs: {', '.join(hardware) or 'none'}.\n"


def hardware(results: Path, arms: set[str]) -> list[str]:
    """The names of the GPUs that the records tell of."""
    return sorted({entry["gpus"]["name"] for entry, _ in jobs(results, arms) if entry.get("gpus")})
