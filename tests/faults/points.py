"""Programs in forked processes that kill themselves at a chosen operation on the file system.

A run that ends by itself lists its operations; every one of them is a point at which another run can be killed, just
before it. What native code (safetensors, pyarrow, torch) writes between two operations passes no hook of Python's: at a
torn point the last file that changed is cut off first, as if the kill had come in the middle of that write.
"""

import importlib
import multiprocessing.forkserver
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hub
import pytest

from wspin import cli

TESTS = Path(__file__).parents[1]
SCRIPTS = TESTS.parent / "workflow/scripts"

# Audit events, and which argument of each is the open folder that a relative path is in, if it has one
CHANGES = {"rename": 2, "remove": 1, "mkdir": 2, "rmdir": 1, "link": 2, "symlink": 2, "chmod": 2, "truncate": 2}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["faults.warm"])


@dataclass(frozen=True)
class Point:
    """Just before the operation of this number, from 1 on; `torn`: with the last write cut off; what comes there."""

    operation: int
    torn: bool = False
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.operation}{' torn' * self.torn}"


@dataclass(frozen=True)
class Operation:
    """An operation on a path of the study, and whether any file had changed since the one before."""

    kind: str
    path: str
    written: bool


def points(operations: Sequence[Operation]) -> list[Point]:
    """Before each operation, and in the midst of each write before one."""
    numbered = list(enumerate(operations, 1))
    return [*(Point(i) for i, _ in numbered), *(Point(i, torn=True) for i, one in numbered if one.written)]


@dataclass(frozen=True)
class Run:
    """How a program ended and what it printed; if it ended by itself, its operations and the files that it read."""

    code: int
    output: str
    operations: list[Operation]
    read: set[Path]


class Watch:
    """Lists the operations of this process on paths in `folder`, and kills it at a point."""

    def __init__(self, folder: Path, point: Point | None):
        self.folder, self.point = str(folder), point
        self.operations: list[Operation] = []
        self.read: set[Path] = set()
        self.active = True
        self.before = contents(folder)
        sys.addaudithook(self._audit)
        for name in ("fsync", "write"):
            setattr(os, name, self._hooked(getattr(os, name), name))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            if arguments[2] & WRITING:
                self._operation("open", arguments[0], -1)
            else:
                self.read.add(Path(self._place(arguments[0], -1)))
        elif (kind := event.removeprefix("os.")) in CHANGES:
            self._operation(kind, arguments[0], dict(enumerate(arguments)).get(CHANGES[kind], -1))

    def _hooked(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def hooked(fd: int, *arguments: Any) -> Any:
            if self.active:
                self._operation(name, fd, -1)
            return function(fd, *arguments)

        return hooked

    def _operation(self, kind: str, path: Any, fd: int) -> None:
        self.active = False
        try:
            place = self._place(path, fd)
            if place.startswith(self.folder + "/"):
                now = contents(Path(self.folder))
                known = set(self.before.values())
                changed = [name for name, state in now.items() if state not in known]
                self.operations.append(Operation(kind, os.path.relpath(place, self.folder), bool(changed)))
                if self.point and self.point.operation == len(self.operations):
                    self._die(changed)
                self.before = now
        finally:
            self.active = True

    def _place(self, path: Any, fd: int) -> str:
        """The absolute path of an operation on a path, beside an open folder if it is relative to one, or a file."""
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        folder = os.readlink(f"/proc/self/fd/{fd}") if fd >= 0 else os.getcwd()
        return os.path.abspath(os.path.join(folder, os.fsdecode(path)))

    def _die(self, changed: Sequence[str]) -> None:
        if self.point.torn and changed:
            last = max(changed, key=lambda name: os.stat(name).st_mtime_ns)
            size = os.stat(last).st_size
            os.truncate(last, random.Random(f"{self.point}").randrange(size) if size else 0)
        os.kill(os.getpid(), self.point.signal)


def delayed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments)

    return slow


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """(inode, size, time of change) of every file in a folder, so that a renamed file has not changed."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def warm_up() -> None:
    """Start the process that `run` forks from; Python 3.11 gives it no other path than the environment's."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (TESTS, SCRIPTS)))):
        multiprocessing.forkserver.ensure_running()


@dataclass(frozen=True)
class Program:
    """A command line, the folder in which it runs, the folder of its results, and the address of its hub, if any.

    `clock`: seconds by which the machine's clock is wrong. `flush`: seconds that its disk takes to flush a file.
    """

    argv: Sequence[str]
    study: Path
    results: Path
    hub: str = ""
    clock: float = 0.0
    flush: float = 0.0

    def run(self, point: Point | None = None) -> Run:
        """Run it in a fork, to its end or to a point."""
        with tempfile.TemporaryDirectory() as folder:
            log, seen = Path(folder, "log"), Path(folder, "watch")
            process = forks.Process(target=self._run, args=(point, log, seen))
            process.start()
            process.join()
            watched = pickle.loads(seen.read_bytes()) if seen.exists() else ([], set())
            return Run(process.exitcode, log.read_text(errors="replace"), *watched)

    def _run(self, point: Point | None, log: Path, seen: Path) -> None:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        watch = self.run_here(point)
        seen.write_bytes(pickle.dumps((watch.operations, watch.read)))

    def run_here(self, point: Point | None = None) -> Watch:
        """Run it in this process, which is for nothing else."""
        os.chdir(self.study)
        sys.argv = list(self.argv)
        program = importlib.import_module(Path(self.argv[0]).stem)
        if self.hub:
            hub.Hub(url=self.hub).connect(pytest.MonkeyPatch(), hub.Hub.token)
        if self.clock:
            now = time.time
            time.time = lambda: now() + self.clock
        if self.flush:
            os.fsync = delayed(os.fsync, self.flush)
        watch = Watch(self.results, point)
        cli.run(program.main, online=bool(self.hub))
        watch.active = False
        return watch
