"""What the results took: hours and memory by stage and arm, from the records beside them.

A record is counted once: a job leaves the same one beside each of its outputs, and what arms share lies in one place.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.escaping import in_markdown
from wspin.storage.files import whole_file
from wspin.storage.provenance import check_entries, read_record, record_output, records
from wspin.storage.text_tables import csv_text, text_table

Record = dict[str, Any]

STAGES = ("fetch", "data", "train", "generate", "logprobs", "weigh", "eval", "report")  # in running order
SHARED = "all arms"
COUNTED = ("started", "command", "cpu_seconds", "peak_memory_mb")  # of a record with a time
LEGEND = (
    "Wall hours are summed over jobs, whether they ran side by side or not, and over all attempts of a training. "
    "GPU-hours are a job's wall hours times its GPUs; a record without GPUs counts as none. CPU-hours are those of "
    "a job's first process, and of a training's last attempt. Memory is the largest of a job, in MB; that of a GPU is "
    "what torch reserved on the first. A result that was made again counts once, as it was made last."
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
    jobs, unreadable = job_records(results, set(read_results(results).arms))
    rows, header = table(jobs), [name.replace("_", " ") for name in Row._fields]
    gpus = sorted({record["gpus"].get("name", "unnamed") for record, _ in jobs if record.get("gpus")})
    cells = [list(map(in_markdown, _cells(row, digits=3))) for row in rows]
    lines = text_table(header, cells, "ll" + "r" * (len(header) - 2))
    markdown = f"{lines}\n\n{LEGEND} GPUs: {', '.join(map(in_markdown, gpus)) or 'none'}.\n"
    markdown += "".join(f"\nNot counted: {in_markdown(str(error))}\n" for error in unreadable)
    cells = [_cells(row, digits=6) for row in rows]  # a second is 0.00028 hours
    csv = csv_text(pd.DataFrame(cells, columns=Row._fields))
    for kind, text in (("csv", csv), ("md", markdown)):
        with whole_file(results / f"tables/cost.{kind}") as temporary:
            temporary.write_text(text)
    return markdown


def _cells(row: Row, digits: int) -> list[str]:
    return [f"{value:.{digits}f}" if isinstance(value, float) else str(value) for value in row]


def job_records(results: Path, arms: set[str]) -> tuple[list[tuple[Record, str]], list[StudyError]]:
    """(record, owner) of every job, once, as far as its result still exists; errors of records that cannot be read."""
    jobs: dict[tuple[str, ...], tuple[Record, str]] = {}
    unreadable = []
    for path in records(results):
        output = record_output(path)
        if not output.exists():
            continue
        try:
            record = read_record(path)
            if "seconds" in record:
                check_entries(path, record, COUNTED)
                job = (record["program"], record["started"], *map(str, record["command"]))
                jobs.setdefault(job, (record, owner(output.relative_to(results), arms)))
        except StudyError as error:
            unreadable.append(error)
    return list(jobs.values()), unreadable


def owner(output: Path, arms: set[str]) -> str:
    """Whose a result is: the arm in its path, the model of the registry that it is or scores, or all arms'."""
    parts = output.parts[2:] if output.parts[0] == "logprobs" else output.parts
    of_model = len(parts) > 1 and parts[1] in ("model", "scores")
    return parts[0] if parts[0] in arms or of_model else SHARED


def stage(program: str) -> str:
    """The stage of a program, the first word of its name; a program of no stage stands under its own name."""
    word = program.partition("_")[0]
    return word if word in STAGES else program


def table(jobs: Iterable[tuple[Record, str]]) -> list[Row]:
    """Every stage and owner, the total of every stage with several owners, and the total of all."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record, name in jobs:
        groups.setdefault((stage(record["program"]), name), []).append(record)
    rows = []
    for name in dict.fromkeys([*STAGES, *sorted(name for name, _ in groups)]):
        owners = {arm: groups[stage, arm] for stage, arm in sorted(groups) if stage == name}
        rows += [_row(name, arm, records) for arm, records in owners.items()]
        if len(owners) > 1:
            rows.append(_row(name, "total", list(chain(*owners.values()))))
    return [*rows, _row("total", "", list(chain(*groups.values())))]


def _row(stage: str, arm: str, records: list[Record]) -> Row:
    gpus = [record.get("gpus") or {} for record in records]
    hours = [record["seconds"] / 3600 for record in records]
    return Row(
        stage,
        arm,
        jobs=len(records),
        wall_hours=sum(hours),
        gpu_hours=sum(time * gpu.get("count", 0) for time, gpu in zip(hours, gpus, strict=True)),
        cpu_hours=sum(record["cpu_seconds"] for record in records) / 3600,
        peak_memory_mb=max((record["peak_memory_mb"] for record in records), default=0),
        peak_gpu_memory_mb=max((gpu.get("peak_memory_mb", 0) for gpu in gpus), default=0),
    )
