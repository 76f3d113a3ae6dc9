"""Opens files whose names are known in advance, and which others in a shared folder may have put there before."""

import os
import stat
from pathlib import Path

from wspin.errors import StudyError

KINDS = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def regular(path: str | os.PathLike[str], flags: int) -> int:
    """An opener for `open`: never through a link, and never of what is no file; a named pipe would wait for ever.

    Raises `StudyError` for these. A new file gets the mode of the umask.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError:
        if os.path.lexists(path):
            check_kind(path)
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    check_kind(path)
    raise StudyError(f"{path}: expected a file, found another thing that is gone; run again")


def readable(path: str | os.PathLike[str], flags: int) -> int:
    """An opener of files to read, as `regular`, but through links: inputs of a study may lie elsewhere."""
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind == stat.S_IFREG:
        return handle
    os.close(handle)
    raise StudyError(f"{path}: expected a file, found {KINDS.get(kind, 'a device')}; remove it")


def check_kind(path: str | os.PathLike[str], *others: int) -> None:
    """Raises `StudyError` unless the path is itself a file, or of one of the kinds `others`, such as `stat.S_IFDIR`."""
    kind = stat.S_IFMT(os.lstat(path).st_mode)
    if kind not in (stat.S_IFREG, *others):
        found = KINDS.get(kind, "a device") + (f" to {os.readlink(path)}" if kind == stat.S_IFLNK else "")
        expected = "a file or folder" if others else "a file"
        raise StudyError(f"{path}: expected {expected} of the study, found {found}; remove it")


def lock_file(path: str | os.PathLike[str], flags: int) -> int:
    """An opener of files to lock, as `regular`: for reading alone where the file is another user's.

    That suffices for a lock, except for an exclusive one on NFS.
    """
    try:
        return regular(path, flags)
    except PermissionError:
        if not os.path.lexists(path):
            raise
        return regular(path, os.O_RDONLY)


def check_tree(folder: Path) -> None:
    """Raises `StudyError` if there are links, or no files, in a folder in which libraries are going to write."""
    for place, folders, files in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in (*folders, *files))):
            check_kind(path, stat.S_IFDIR)
