"""Locks on state folders: one writer at a time, released however the writer ends."""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .files import writing


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a state folder; yields False at once if it is busy and `wait` is off.

    The lock is the kernel's (flock) on a file beside the folder: it ends with the process that holds it, however that
    process ends. If the last holder has removed the lock file, a new one is created.
    """
    path = folder.with_name(folder.name + ".lock")
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+") as file:
            if not _acquire(file, folder, wait):
                yield False
                return
            if not _is_current(file, path):
                continue
            _write_holder(file, path)
            yield True
            return


def _write_holder(file: TextIO, path: Path) -> None:
    """Write this process into its lock file; on a full disk the file is removed."""
    try:
        with writing(path):
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()} on {os.uname().nodename}".encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _is_current(file: TextIO, path: Path) -> bool:
    """Whether the open file is still the one at `path`: its last holder may have removed it."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
    return False


def _acquire(file: TextIO, folder: Path, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        file.seek(0)
        holder = file.read().strip() or "?"
        print(f"{folder}: held by process {holder}; waiting for it to end", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return True


def remove_state(folder: Path) -> int:
    """Remove a state folder unless it is locked; returns the bytes freed (0 for no folder), or -1 if it is locked."""
    with locked(folder, wait=False) as free:
        if not free:
            return -1
        freed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(folder.name + ".lock").unlink(missing_ok=True)
        return freed


def show_alive() -> TextIO:
    """Hold a shared lock on `.snakemake/alive` until the file returned is closed, at the latest by the process's end.

    A process that gets this lock exclusively knows that no workflow runs in this directory: any lock of Snakemake's
    there is left from a killed run.
    """
    path = Path(".snakemake/alive")
    path.parent.mkdir(exist_ok=True)
    file = open(path, "a")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_SH)
    return file
