"""Files that appear whole or not at all, hashes of files, and the lock that keeps a second writer out."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import yaml


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same id
    try:
        with naming(path):
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def naming(path: str | Path, *others: type[Exception]) -> Iterator[None]:
    """Let a failed write name what it was to write, which the libraries do not; `others` are errors of their own."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except others as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(None, f"cannot be written, is the disk full? {reason}", str(path)) from error


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a crash after a rename leaves no empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whose bytes depend on the value alone."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex digest of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a state folder; yields False at once if it is busy and `wait` is off.

    The lock is the kernel's (flock) on a file beside the folder: it ends with the process that holds it, however that
    process ends. A lock file that was removed by the last holder is made anew.
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
            file.truncate(0)
            file.write(f"{os.getpid()} on {os.uname().nodename}")
            file.flush()
            yield True
            return


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
        print(
            f"{folder}: held by process {file.read().strip() or '?'}; waiting for it to end",
            file=sys.stderr,
            flush=True,
        )
        fcntl.flock(file, fcntl.LOCK_EX)
    return True


def remove_state(folder: Path) -> int:
    """Remove a state folder that nobody holds; returns the bytes freed, -1 if it is busy. Already gone is no error."""
    with locked(folder, wait=False) as free:
        if not free:
            return -1
        freed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(folder.name + ".lock").unlink(missing_ok=True)
        return freed


def show_alive() -> TextIO:
    """Hold a shared lock on `.snakemake/alive` until the file returned is closed, at the latest by the process's end.

    Whoever gets that lock exclusively knows that no workflow runs in this directory, so that a lock of Snakemake's own
    found there is a dead run's.
    """
    path = Path(".snakemake/alive")
    path.parent.mkdir(exist_ok=True)
    file = open(path, "a")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_SH)
    return file
