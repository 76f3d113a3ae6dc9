"""Local sources, `path:` in the configuration: the user's own, so links may lead anywhere."""

import stat
from collections.abc import Iterable
from pathlib import Path

from wspin.errors import StudyError

KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}


def check_files(paths: Iterable[Path]) -> None:
    """Raises `StudyError` for what is no file: reading a FIFO waits for its writer, reading a device may never end."""
    for path in paths:
        try:
            kind = stat.S_IFMT(path.stat().st_mode)
        except FileNotFoundError:
            raise StudyError(f"{path}: expected a file, found a link to none; correct the link") from None
        if kind != stat.S_IFREG:
            raise StudyError(f"{path}: expected a file, found a {KINDS.get(kind, 'device')}; remove or rename it")
