"""What Snakemake takes to plan a study from nothing, and to find that nothing is left to do in a finished one.

The study is that of config.yaml in smaller shards, with its own rules and flags. A finished one holds files in place of
results; Snakemake itself records them, so that it compares inputs and flags of every job as after a real run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import ROOT
from .measure import Row, interleaved

sys.path.append(str(ROOT / "tests"))  # where copies of the repository are made

from workflow import Plan, Repository, checkout, environment

# Runs a command and writes what it took to a file; so small that it adds nothing to its child's peak.
WATCH = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
told = {"cpu_seconds": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * 1024}
json.dump(told, open(sys.argv[1], "w"))
sys.exit(done.returncode)
"""
# Snakemake without the tenth of a second that `--touch` waits at every job.
TOUCH = """
from snakemake.cli import main
from snakemake.executors.touch import Executor
Executor.SLEEPING_TIME = 0
main()
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
        "dry run": partial(watched, new, len(planned.jobs)),
        "no-op": partial(watched, finished, 0),
    }
    yield from interleaved("workflow", case.name, contenders, case.rounds)


def finish(study: Repository, planned: Plan) -> None:
    """Make the planned files, and have Snakemake record every job as done."""
    for output in planned.made():
        path = study.folder / output
        path = path if path.suffix else path / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output)
    arguments = study.command("all", "--touch", "--forceall", "--cores", "100000")[3:]  # all that is ready at once
    done = subprocess.run(
        [sys.executable, "-c", TOUCH, *arguments], cwd=study.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def watched(study: Repository, jobs: int) -> dict[str, float]:
    """CPU-seconds and peak memory of a dry run, which must plan so many jobs."""
    report = study.folder / "watched.json"
    planned = study.plan("all", before=(sys.executable, "-c", WATCH, str(report)))
    assert len(planned.jobs) == jobs, f"{len(planned.jobs)} jobs planned, {jobs} expected"
    return json.loads(report.read_text())
