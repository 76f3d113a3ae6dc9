"""Runs of a study that can be watched and killed, and what they leave."""

import contextlib
import glob
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import workflow
import yaml

DEMO = "results/demo"
SMALL = [
    workflow.ROOT / file for file in ("config/config.yaml", "config/overlays/demo.yaml", "tests/configs/small.yaml")
]


class Run:
    """A command in a session of its own, so that it can be killed with all its children."""

    def __init__(self, folder: Path, command: Sequence[str], environment: dict[str, str] | None = None):
        self.log = folder / f"run-{time.time_ns()}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment or workflow.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def told(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], Any], seconds: float = 120) -> Any:
        """The first true value of a condition."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            assert self.process.poll() is None, self.told()
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s: {self.told()}")

    def finish(self, expect: int = 0, seconds: float = 900) -> None:
        """Wait for the end. Raises `AssertionError` with what was told if it is another than expected."""
        code = self.process.wait(timeout=seconds)
        assert bool(code) == bool(expect), self.told()

    def members(self, word: str = "") -> list[psutil.Process]:
        """Living processes of the session, the oldest first; those with such a word in their command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):  # it has just ended
                of_session = os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE
                if of_session and (not word or word in process.cmdline()):
                    found.append(process)
        return sorted(found, key=psutil.Process.create_time)

    def kill(self) -> None:
        """kill -9 of everything, the oldest first; returns when all is gone."""
        while members := self.members():
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()
            psutil.wait_procs(members, timeout=10)


def results(folder: Path) -> dict[str, str]:
    """Hash of every result: all but logs, what is hidden, and the records and cards that tell how it was made."""
    names = {file: str(file.relative_to(folder / DEMO)) for file in (folder / DEMO).rglob("*") if file.is_file()}
    how, told = ("logs/", "benchmarks/"), ("provenance.json", "README.md")
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file, name in sorted(names.items())
        if not f"/{name}".count("/.") and not name.startswith(how) and not name.endswith(told)
    }


def in_training(folder: Path, model: str = "**") -> bool:
    """Whether a training has gone on from a state that it has saved."""
    marks = glob.glob(f"{folder}/{DEMO}/.state/train/{model}/**/complete", recursive=True)  # as Path.glob, but folders
    saved = [Path(mark).parent for mark in marks]  # may go while it looks: the training is running
    steps = {state: (state.parent / "metrics.jsonl").read_text().count("\n") for state in saved}
    return any(steps[state] > int(state.name.removeprefix("checkpoint-")) for state in saved)


def small_demo(folder: Path) -> workflow.Repository:
    """A copy of the repository whose `make demo` is the small one."""
    copy = workflow.checkout(folder)
    demo = [yaml.safe_load(file.read_text()) for file in SMALL[1:]]
    (folder / "config/overlays/demo.yaml").write_text(yaml.safe_dump(nested(*demo), sort_keys=False))
    return copy


def nested(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Mappings merged as `configfile` does, but nulls stay: they delete what config.yaml holds."""
    below = {key: nested(first[key], value) for key, value in second.items() if isinstance(first.get(key), dict)}
    return {**first, **second, **below}
