"""Resumable states that no process holds: what an interrupted job would have continued from."""

import os
from collections.abc import Iterator
from pathlib import Path

from wspin.errors import StudyError
from wspin.storage.locks import remove_state
from wspin.storage.permissions import error_line


def clean_states(root: Path) -> Iterator[str]:
    """Remove the states below `root` that no process holds; yields a line for each that stays, and the total."""
    freed = []
    for folder in state_folders(root):
        try:
            size = remove_state(folder)
        except (StudyError, OSError) as error:
            yield error_line(error)
            continue
        if size < 0:
            yield f"{folder}: held by a running process; left alone"
        elif size:
            freed.append(size)
    yield f"states removed: {len(freed)} ({sum(freed) / 1e6:.1f} MB)"


def state_folders(root: Path) -> Iterator[Path]:
    """The folders `{stage}/{model}/{fingerprint}`, known by the lock file beside each; none inside another one."""
    for parent, folders, files in os.walk(root):
        locks = [file for file in files if file.endswith(".lock")]
        folders[:] = [folder for folder in folders if f"{folder}.lock" not in locks]
        yield from (Path(parent) / lock.removesuffix(".lock") for lock in sorted(locks))
