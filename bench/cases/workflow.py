"""Cost of planning with Snakemake: a new study, and a finished study in which nothing is left to do.

The study is that of config.yaml in smaller shards. In the finished one, placeholder files stand for results. Snakemake
itself records them, and so compares inputs and flags of every job as after a real run.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import ROOT
from ..measure import MEASURE, Row, interleaved

sys.path.append(str(ROOT / "tests"))  # for copies of the repository

from workflow import Plan, Repository, checkout, environment

# Snakemake without the tenth of a second that `--touch` sleeps per job.
TOUCH = """
from snakemake.cli import main
from snakemake.executors.touch import Executor
Executor.SLEEPING_TIME = 0
main()
"""
# Runs Snakemake in cProfile and writes how much of the time was spent in the study's functions and in what they call.
PROFILE = """
import cProfile, json, pstats, sys
from snakemake.cli import main

code = 0
with cProfile.Profile() as profile:
    try:
        main(sys.argv[2:])
    except SystemExit as end:
        code = end.code


def of_the_study(function):
    return "/wspin/" in function[0] or function[0].endswith((".smk", "Snakefile"))


total, own = 0.0, 0.0
for function, (_, _, seconds, _, callers) in pstats.Stats(profile).stats.items():
    total += seconds
    if of_the_study(function) and function[2] != "<module>":
        outside = (edge for caller, edge in callers.items() if not of_the_study(caller) or caller[2] == "<module>")
        own += sum(edge[3] for edge in outside)
json.dump({"own_share": own / total}, open(sys.argv[1], "w"))
sys.exit(code)
"""


@dataclass(frozen=True)
class Case:
    name: str
    shard: int  # prompts of a job
    rounds: int


FULL = (Case("1,000 jobs", 2085, 3), Case("10,000 jobs", 187, 3))
QUICK = (Case("minute", 50_000, 1),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        with tempfile.TemporaryDirectory() as folder:
            yield from measure(case, Path(folder))


def measure(case: Case, folder: Path) -> Iterator[Row]:
    shards = {"data": {"sft": {"shard": case.shard}, "preferences": {"shard": case.shard}}}
    new, finished = (checkout(folder / name).overlay(shards) for name in ("new", "finished"))
    planned = new.plan("all")
    finish(finished, planned)
    yield Row("workflow", case.name, "", 0, "jobs", len(planned.jobs))
    contenders: dict[str, Callable[[], dict[str, float]]] = {
        "dry run": partial(plan_cost, new, len(planned.jobs)),
        "no-op": partial(plan_cost, finished, 0),
    }
    yield from interleaved("workflow", case.name, contenders, case.rounds)
    yield Row("workflow", case.name, "", 0, "own_share", own_share(finished))


def finish(study: Repository, planned: Plan) -> None:
    """Write the planned files, and let Snakemake record every job as done."""
    for output in planned.made():
        path = study.folder / output
        path = path if path.suffix else path / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output)
    arguments = study.command("all", "--touch", "--forceall", "--cores", "100000")[3:]  # all jobs at once
    result = subprocess.run(
        [sys.executable, "-c", TOUCH, *arguments], cwd=study.folder, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def plan_cost(study: Repository, jobs: int) -> dict[str, float]:
    """CPU-seconds and peak bytes of a dry run, which must plan this number of jobs."""
    report = study.folder / "plan_cost.json"
    planned = study.plan("all", before=(sys.executable, "-c", MEASURE, str(report)))
    assert len(planned.jobs) == jobs, f"{len(planned.jobs)} jobs planned, {jobs} expected"
    return json.loads(report.read_text())


def own_share(study: Repository) -> float:
    """Of the time of a no-op, the share of the study's own functions, as cProfile counts it."""
    report = study.folder / "own_share.json"
    arguments = study.command("all", "--dry-run")[3:]  # without `python -m snakemake`
    command = [sys.executable, "-c", PROFILE, str(report), *arguments]
    subprocess.run(command, cwd=study.folder, env=environment(), stdout=subprocess.DEVNULL, check=True)
    return json.loads(report.read_text())["own_share"]
