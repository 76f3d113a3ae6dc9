"""Local sources, `path:` in the configuration: the user's own, so links may lead anywhere."""

from collections.abc import Iterable
from pathlib import Path

from wspin.storage.opening import readable


def check_files(paths: Iterable[Path]) -> None:
    """Raises `StudyError` for what is no file: copying a device would never end."""
    for path in paths:
        with open(path, "rb", opener=readable):
            pass
