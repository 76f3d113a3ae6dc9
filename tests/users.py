"""Other users of a study: code that runs as one of them, where the tests run as root."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ALICE, BOB, LAB = 48101, 48102, 48100  # two users of a group; this machine has no names for them

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run code as other users")


def as_user(user: int, function: Callable[[], Any], umask: int = 0o022, group: int = LAB) -> Any:
    """What `function` returns, or the exception that it raises, in a forked process of this user.

    A fork, because another user may not read this interpreter's files: all modules must be imported before.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            os.umask(umask)
            try:
                result = function()
            except BaseException as error:
                result = error
            os.write(theirs, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(content)


def give(folder: Path, user: int) -> None:
    """Make a folder and all below it a user's and the group's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, LAB, follow_symlinks=False)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the group, the current one: its members may write, and new files belong to the group (setgid).

    Other users reach it as the current folder alone: pytest closes the folders above.
    """
    folder = tmp_path / "study"
    folder.mkdir()
    give(folder, ALICE)
    folder.chmod(0o2775)
    monkeypatch.chdir(folder)
    return folder
