"""What the results took: hours and memory by stage and arm, and by iteration, from the records beside them.

A record is counted once: a job leaves the same one beside each of its outputs, and what arms share lies in one place.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.escaping import in_markdown
from wspin.iteration import Contrast, Iteration, StartAnswers
from wspin.storage.files import whole_file
from wspin.storage.provenance import check_entries, read_record, record_output, records
from wspin.storage.text_tables import csv_text, text_table

Record = dict[str, Any]

SCORERS = "train (scorers)"  # of the pairs that iterations train to weigh their tokens
STAGES = ("fetch", "data", SCORERS, "train", "generate", "logprobs", "weigh", "eval", "report")  # in running order
SHARED = "all arms"
SHARED_ITERATION = "ite0 of all arms"  # what arms of a start share: its answers, and their reference
ITERATION_STAGES = ("generate", SCORERS, "logprobs", "weigh", "train", "eval")
COUNTED = ("started", "command", "cpu_seconds", "peak_memory_mb")  # of a record with a time
LEGEND = (
    "Wall hours are summed over jobs, whether they ran side by side or not, and over all attempts of a training. "
    "GPU-hours are a job's wall hours times its GPUs; a record without GPUs counts as none. CPU-hours are those of "
    "a job's first process, and of a training's last attempt. Memory is the largest of a job, in MB; that of a GPU is "
    "what torch reserved on the first. A result that was made again counts once, as it was made last."
)
ITERATIONS = (
    "Wall hours (GPU-hours) of each iteration. The weights take `logprobs`, `weigh` and, with `weigh.retrain`, "
    f"`{SCORERS}`: the two models that an iteration trains for them; `logprobs` has the reference too. "
    f"{SHARED_ITERATION}: the answers of a start model (with another seed than its own: of that seed) and their "
    "reference. ite0, scored by a model: its log-probabilities of these answers and of the real ones, for the arms "
    "alone that it weighs."
)


class JobRecord(NamedTuple):
    """The record of a job, its stage, whose result it is, and the iteration that needed it, if it was one's."""

    record: Record
    stage: str
    owner: str
    iteration: str | None


class Row(NamedTuple):
    """A line of the table: the jobs of one stage for one arm or registry model, or one iteration."""

    stage: str
    arm: str
    jobs: int
    wall_hours: float
    gpu_hours: float
    cpu_hours: float
    peak_memory_mb: int
    peak_gpu_memory_mb: int


def write_costs(results: Path) -> str:
    """Write `tables/cost.{csv,md}`, `cost_iterations.csv` and `figures/cost.*` of results; returns the Markdown."""
    from wspin.report.style import KINDS, render  # matplotlib is slow to import

    from .cost_figure import hours_by_stage

    jobs, unreadable = job_records(results, set(read_results(results).arms))
    rows, header = table(jobs), [name.replace("_", " ") for name in Row._fields]
    by_iteration = iteration_table(jobs)
    gpus = sorted({job.record["gpus"].get("name", "unnamed") for job in jobs if job.record.get("gpus")})
    cells = [list(map(in_markdown, _cells(row, digits=3))) for row in rows]
    lines = text_table(header, cells, "ll" + "r" * (len(header) - 2))
    markdown = f"{lines}\n\n{LEGEND} GPUs: {', '.join(map(in_markdown, gpus)) or 'none'}.\n"
    markdown += _iterations_markdown(by_iteration)
    markdown += "".join(f"\nNot counted: {in_markdown(str(error))}\n" for error in unreadable)
    columns = ["iteration" if name == "arm" else name for name in Row._fields]
    texts = {"cost.csv": _csv(rows, Row._fields), "cost_iterations.csv": _csv(by_iteration, columns)}
    texts["cost.md"] = markdown
    for name, text in texts.items():
        with whole_file(results / "tables" / name) as temporary:
            temporary.write_text(text)
    figure = hours_by_stage(wall_hours(jobs), STAGES)
    for kind in KINDS:
        with whole_file(path := results / "figures" / f"cost.{kind}") as temporary:
            temporary.write_bytes(render(figure, path))
    return markdown


def _csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    return csv_text(pd.DataFrame([_cells(row, digits=6) for row in rows], columns=columns))  # a second: 0.00028 hours


def _iterations_markdown(rows: Sequence[Row]) -> str:
    """Wall hours of iterations by stages, with GPU-hours; empty without any."""
    if not rows:
        return ""
    hours = {(row.arm, row.stage): f"{row.wall_hours:.3f} ({row.gpu_hours:.3f})" for row in rows}
    names = dict.fromkeys(row.arm for row in rows)
    lines = [[in_markdown(name), *(hours.get((name, stage), "-") for stage in ITERATION_STAGES)] for name in names]
    table = text_table(["iteration", *ITERATION_STAGES], lines, "l" + "r" * len(ITERATION_STAGES))
    return f"\n{table}\n\n{ITERATIONS}\n"


def _cells(row: Row, digits: int) -> list[str]:
    return [f"{value:.{digits}f}" if isinstance(value, float) else str(value) for value in row]


def job_records(results: Path, arms: set[str]) -> tuple[list[JobRecord], list[StudyError]]:
    """Every job once, as far as its result still exists; errors of records that cannot be read."""
    jobs: dict[tuple[str, ...], JobRecord] = {}
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
                place = output.relative_to(results)
                entry = JobRecord(record, stage(record["program"], place), owner(place, arms), iteration(place))
                jobs.setdefault(job, entry)
        except StudyError as error:
            unreadable.append(error)
    return list(jobs.values()), unreadable


def owner(output: Path, arms: set[str]) -> str:
    """Whose a result is: the arm in its path, the model of the registry that it is or scores, or all arms'."""
    if found := _iteration(output):
        return found.arm
    parts = output.parts[2:] if output.parts[0] == "logprobs" else output.parts
    of_model = len(parts) > 1 and parts[1] in ("model", "scores")
    return parts[0] if parts[0] in arms or of_model else SHARED


def iteration(output: Path) -> str | None:
    """The iteration that a result is of; of what several first ones share, whose answers or scorer; or None."""
    if found := _iteration(output):
        return found.name
    folder, *below = output.parts
    if folder == "logprobs" and below:
        return None if any(part.startswith("preferences") for part in below) else f"ite0, scored by {below[0]}"
    if not {"generations", "reference"} & {*below}:
        return None
    replicate = StartAnswers.parse("/".join(output.parts[:2]))
    return f"{SHARED_ITERATION}, seed {replicate.seed}" if replicate else SHARED_ITERATION


def _iteration(output: Path) -> Iteration | None:
    """The last iteration in a path: of log-probabilities that of the answers, not of the scorer."""
    pairs = (Iteration.parse("/".join(pair)) for pair in pairwise(output.parts))
    return next(filter(None, reversed(list(pairs))), None)


def stage(program: str, output: Path) -> str:
    """The first word of a program's name if that is a stage, else the program; a pair of scorers has its own stage."""
    word = program.partition("_")[0]
    if word == "train" and Contrast.parse("/".join(output.parts[:3])):
        return SCORERS
    return word if word in STAGES else program


def wall_hours(jobs: Iterable[JobRecord]) -> dict[tuple[str, str], float]:
    """(iteration, or owner of what belongs to none, stage) -> wall hours of its jobs."""
    summed: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        summed[job.iteration or job.owner, job.stage] += job.record["seconds"] / 3600
    return summed


def iteration_table(jobs: Iterable[JobRecord]) -> list[Row]:
    """Every iteration and stage; what arms share in their first one comes first."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for job in jobs:
        if job.iteration and job.stage in ITERATION_STAGES:
            groups.setdefault((job.iteration, job.stage), []).append(job.record)
    order = sorted(groups, key=lambda group: (group[0], ITERATION_STAGES.index(group[1])))
    order.sort(key=lambda group: Iteration.parse(group[0]) is not None)
    return [_row(name, of, groups[of, name]) for of, name in order]


def table(jobs: Iterable[JobRecord]) -> list[Row]:
    """Every stage and owner, the total of every stage with several owners, and the total of all."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for job in jobs:
        groups.setdefault((job.stage, job.owner), []).append(job.record)
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
