"""Locks on state folders: one writer at a time, released however the writer ends."""

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from wspin.errors import StudyError
from wspin.escaping import one_line

from .files import remove_folder, writing
from .opening import check_kind, check_tree, lock_file
from .permissions import check_writable, error_line


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a state folder; yields False at once if it is busy and `wait` is off.

    The lock is the kernel's (flock) on a file beside the folder: it ends with the process that holds it, however that
    process ends. If the last holder has removed the lock file, a new one is created. Raises `StudyError` for links and
    other things than files and folders, in a state that is going to be used.
    """
    path = folder.with_name(folder.name + ".lock")
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", opener=lock_file) as file:
            with writing(path):
                acquired = _acquire(file, folder, wait)
            if not acquired:
                yield False
                return
            if not _is_current(file, path):
                continue
            if wait:
                check_tree(folder)
            _write_holder(file, path)
            yield True
            return


def _write_holder(file: TextIO, path: Path) -> None:
    """Write this process into its lock file; on a full disk the file is removed. Another user's file stays as it is."""
    if not os.access(path, os.W_OK):
        return
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
        holder = one_line(file.read(200).strip()) or "?"
        print(f"{folder}: held by process {holder}; waiting for it to end", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return True


def remove_state(folder: Path) -> int:
    """Remove a state folder unless it is locked; returns the bytes freed (0 for no folder), or -1 if it is locked.

    Raises `StudyError` if the folder is a link, or lies below one within `.state`: what is elsewhere is no state.
    """
    above = folder.parts[::-1].index(".state") if ".state" in folder.parts else 0
    for place in (folder, *folder.parents[:above]):
        if place.is_symlink():
            check_kind(place, stat.S_IFDIR)
    with locked(folder, wait=False) as free:
        if not free:
            return -1
        freed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        if folder.exists():
            remove_folder(folder)
        folder.with_name(folder.name + ".lock").unlink(missing_ok=True)
        return freed


def discard_state(folder: Path) -> None:
    """Remove the state of a result that is complete; a failure is printed and no more: it must not cost the result."""
    try:
        remove_state(folder)
    except (StudyError, OSError) as error:
        print(f"{folder}: the saved state stays: {error_line(error)}", flush=True)


def discard_states(folders: Iterable[str]) -> None:
    """`discard_state` of all states in some folders."""
    for lock in (lock for folder in folders for lock in Path(folder).glob("*.lock")):
        discard_state(lock.with_suffix(""))


def show_driver() -> TextIO:
    """Hold a shared lock on `.snakemake/driver`, which names this process: the Snakemake that starts the jobs.

    Until the file returned is closed, at the latest by the process's end. Snakemake also runs within the jobs of a
    cluster, which may outlive it.
    """
    path = Path(".snakemake/driver")
    file = _shared(path)
    _write_holder(file, path)
    return file


def show_alive() -> TextIO:
    """Hold a shared lock on `.snakemake/alive` until the file returned is closed, at the latest by the process's end.

    A process that gets this lock exclusively knows that no workflow runs in this directory: any lock of Snakemake's
    there is left from a killed run. Raises `StudyError` if this user may not write what Snakemake keeps there.
    """
    folder = Path(".snakemake")
    check_writable(folder / name / "record" for name in ("", "locks", "metadata", "incomplete", "log", "auxiliary"))
    folder.mkdir(exist_ok=True)
    return _shared(folder / "alive")


def _shared(path: Path) -> TextIO:
    """The file of a lock that this process shares until the file is closed."""
    file = open(path, "a+", opener=lock_file)  # noqa: SIM115 (on NFS, LOCK_SH needs a readable one)
    with writing(path):
        fcntl.flock(file, fcntl.LOCK_SH)
    return file
