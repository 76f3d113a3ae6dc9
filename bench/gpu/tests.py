"""The tests marked `gpu`, in a pytest of their own; this module is also its plugin."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from .. import ROOT
from ..measure import Row
from .steps import Skipped, require

# Not the whole folder: to collect it imports what these tests do not need, and one of its tests runs this check.
FILES = ("tests/whole/test_gpu.py", "tests/train/test_distributed.py", "tests/generate/test_vllm_engine.py")
NEEDED = ("pytest", "hypothesis")
PIPE = "CHECK_GPU_PIPE"  # names the file descriptor that the plugin writes to


def run(quick: bool, device: str) -> Iterator[Row]:
    """Raises `Skipped` if no test could run, and `AssertionError` if one failed."""
    require(NEEDED)
    outcomes = {}
    for name, outcome, reason in _outcomes():
        yield Row("tests", name, "", 0, outcome, reason)
        outcomes[name] = outcome
    failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(outcomes)} tests failed, first {failed[0]}")
    if "passed" not in outcomes.values():
        raise Skipped(f"none of {len(outcomes)} tests can run on this device")


def _outcomes() -> Iterator[list[str]]:
    """(test, outcome, reason) of every test, as it ends."""
    receiving, sending = os.pipe()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "bench.gpu.tests", *FILES]
    environment = os.environ | {PIPE: str(sending)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[sending]) as process:
        os.close(sending)
        with open(receiving) as lines:
            yield from map(json.loads, lines)
    if process.returncode not in (0, 1, 5):  # passed, failed, nothing collected
        raise AssertionError(f"pytest ended with status {process.returncode}")


def pytest_runtest_logreport(report: Any) -> None:
    """Send on how a test ended, and the first line of the reason if it did not pass."""
    if PIPE in os.environ and (report.when == "call" or report.outcome != "passed"):
        entry = [report.nodeid.rpartition("/")[2], report.outcome, _reason(report.longrepr)]
        os.write(int(os.environ[PIPE]), f"{json.dumps(entry)}\n".encode())


def _reason(representation: Any) -> str:
    """The first line of pytest's explanation; empty for a test that passed."""
    if isinstance(representation, tuple):  # of a test that was skipped: file, line, reason
        return str(representation[2]).removeprefix("Skipped: ")
    crash = getattr(representation, "reprcrash", None)
    return (crash.message if crash else str(representation or "")).partition("\n")[0]
