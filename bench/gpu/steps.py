"""Runs the steps of the check one after the other, each in a process of its own that is stopped when its time is over.

A step's time is its share of the whole and what the steps before it left over. It fails, is skipped or runs out of time
alone: the next one starts whatever happened, and the numbers that a stopped step had measured are kept.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from .. import ROOT
from ..measure import Row

OUTCOMES = ("ok", "failed", "skipped", "out of time")
T = TypeVar("T")


class Skipped(Exception):
    """A step that cannot run here, with the reason."""


def require(packages: Iterable[str]) -> None:
    """Raise `Skipped` if one of the packages is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise Skipped(f"not installed: {', '.join(missing)}")


@dataclass(frozen=True)
class Step:
    name: str
    share: float  # of the whole time


STEPS = (
    Step("tests", 0.15),
    Step("attention", 0.17),
    Step("study", 0.28),
    Step("training", 0.22),
    Step("evaluation", 0.13),
)


@dataclass(frozen=True)
class Ending:
    """How a step's process ended: one of `OUTCOMES`, a line that says why, and the rows that it had written."""

    outcome: str
    reason: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Result:
    """A step that has run."""

    name: str
    seconds: float
    ending: Ending

    @property
    def line(self) -> str:
        reason = f": {self.ending.reason}" if self.ending.reason else ""
        return f"{self.name}: {self.ending.outcome}, {self.seconds:.0f} s{reason}"


def run_steps(
    steps: Sequence[Step],
    total: float,
    start: Callable[[str, float], Ending],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result]:
    """The results of all steps within `total` seconds; `start(name, limit)` runs one for at most `limit` seconds."""
    deadline = clock() + total
    for number, step in enumerate(steps):
        began, reserved = clock(), total * sum(later.share for later in steps[number + 1 :])
        limit = deadline - reserved - began
        if limit > 0:
            ending = start(step.name, limit)
        else:
            ending = Ending("out of time", "the steps before it took all of the time", ())
        yield Result(step.name, clock() - began, ending)


def start_step(name: str, limit: float, device: str, quick: bool, scratch: Path) -> Ending:
    """Run a step in a new process, which is killed with all that it started after `limit` seconds.

    All temporary files, compiled kernels among them, lie in `scratch`: a killed process removes none of its own.
    """
    report = scratch / f"{name}.jsonl"
    command = [sys.executable, "-m", "bench.gpu.step", name, device, str(report), *["quick"] * quick]
    environment = os.environ | {"TMPDIR": str(scratch)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        kill_group(process)  # so that nothing is written any more
        return Ending("out of time", f"stopped after {limit:.0f} s", read_report(report)[0])
    finally:
        kill_group(process)
    rows, ending = read_report(report)
    return ending or Ending("failed", f"its process ended with status {process.returncode}", rows)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started, which share its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_report(path: Path) -> tuple[tuple[Row, ...], Ending | None]:
    """The rows of a step's report, and how it ended if it came that far; a last line may be half written."""
    text = path.read_text() if path.exists() else ""
    entries: list[Any] = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    rows = tuple(Row(*entry) for entry in entries if isinstance(entry, list))
    last = next((entry for entry in entries if isinstance(entry, dict)), None)
    return rows, last and Ending(last["outcome"], last["reason"], rows)


def each(cases: Iterable[T], measure: Callable[[T], Iterable[Row]]) -> Iterator[Row]:
    """The rows of all cases, also of those after one that fails; the first error is raised at the end."""
    errors = []
    for case in cases:
        try:
            yield from measure(case)
        except Exception as error:
            traceback.print_exc()
            errors.append(error)
    if errors:
        raise errors[0]
