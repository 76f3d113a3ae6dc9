"""Who may read and write a study's files: modes of what is written, and messages that name the owner of a file.

A study may lie in a folder that several users share. Then all of them work with `umask 002`, or under a default ACL.
"""

import errno
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from wspin.errors import StudyError

from .opening import check_kind


def take_modes(path: str | Path) -> None:
    """Give a file or folder, and all below it, the modes of new ones: libraries write some for their owner alone.

    Bits that the kernel inherits (setgid) stay. What is another user's, such as a hard link to a download, stays as it
    is; so do the targets of links.
    """
    path = Path(path)
    file_mode, folder_mode = _new_modes(path.parent)
    below = [Path(folder, name) for folder, *names in os.walk(path) for name in (*names[0], *names[1])]
    for entry in (path, *below):
        status = entry.lstat()
        mode = {stat.S_IFREG: file_mode, stat.S_IFDIR: folder_mode}.get(stat.S_IFMT(status.st_mode))
        permissions = stat.S_IMODE(status.st_mode)
        if mode is not None and permissions & 0o777 != mode and status.st_uid == os.geteuid():
            entry.chmod(permissions & 0o7000 | mode if stat.S_ISDIR(status.st_mode) else mode)


def _new_modes(folder: Path) -> tuple[int, int]:
    """Permissions of a new file and of a new folder below `folder`, by the umask or the folder's default ACL."""
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as private:
        probes = Path(private, "file"), Path(private, "folder")
        probes[0].touch()
        probes[1].mkdir()
        file_mode, folder_mode = (probe.stat().st_mode & 0o777 for probe in probes)
    return file_mode, folder_mode


def check_job(replaced: Iterable[str | Path], benchmark: str | Path | None) -> None:
    """Raises `StudyError` unless what a job writes can be written: files that Snakemake replaces, and its benchmark.

    The latter it writes as it stands: a link would be written where it leads to, a named pipe would be waited for.
    """
    check_writable([*replaced, *([benchmark] if benchmark else [])])
    if benchmark and os.path.lexists(benchmark):
        check_kind(benchmark)


def check_writable(paths: Iterable[str | Path]) -> None:
    """Raises `StudyError` for the first path that this user may not write, or may not put another file in place of."""
    for path in map(Path, paths):
        folder = next(place for place in path.parents if os.path.lexists(place))
        if folder.is_symlink() and not os.path.exists(folder):
            found = f"found a link to {os.readlink(folder)}, which cannot be reached"
            raise StudyError(f"{folder}: expected a folder, {found}; make that, or remove the link")
        for place in (folder, path) if os.path.exists(path) and not path.is_symlink() else (folder,):
            if not os.access(place, os.W_OK | (os.X_OK if os.path.isdir(place) else 0)):
                line = error_line(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)))
                raise StudyError(f"{line} (docs/cluster.md: a study that several people share)")


def error_line(error: Exception) -> str:
    """The line that a program ends with: a `StudyError` as it is, an OSError with its file, or as its `denial`."""
    if not isinstance(error, OSError):
        return str(error)
    return denial(error) or f"{error.filename or 'system'}: {error.strerror or error}"


def denial(error: OSError) -> str | None:
    """A line with the file or folder that is in the way, its owner and what to ask of them.

    None if `error` is not for want of permission, or nothing is found in the way.
    """
    if error.errno not in (errno.EACCES, errno.EPERM) or not isinstance(error.filename, (str, os.PathLike)):
        return None
    path = Path(error.filename)
    parents = [above for above in reversed(path.parents) if os.path.lexists(above)] or [path]
    if error.errno == errno.EPERM and os.path.exists(path):
        own = path.lstat().st_uid == os.geteuid()
        return None if own else _request(path, "change it, which its owner alone may", "")
    links = (place for place in (*parents, path) if os.path.islink(place) and not os.path.exists(place))
    if link := next(links, None):
        return denial(PermissionError(error.errno, error.strerror, str(link.parent / os.readlink(link))))
    closed = [above for above in parents if not os.access(above, os.X_OK)]
    if closed:
        return _request(closed[0], "enter it", "x")
    if os.path.exists(path) and not os.access(path, os.R_OK):
        return _request(path, "read it", "rx" if path.is_dir() else "r")
    if not os.access(parents[-1], os.W_OK):
        return _request(parents[-1], "write there", "w")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        return _request(path, "write it", "w")
    return None


def _request(path: Path, purpose: str, missing: str) -> str:
    status = path.stat()
    place = path if path.parts else Path.cwd()
    if missing == "w" and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{place}: expected permission to {purpose}, found a read-only file system; use another folder"
    kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
    owner, group = _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid)
    found = f"found a {kind} of {owner} (mode {stat.S_IMODE(status.st_mode):04o}, group {group})"
    if status.st_uid == os.geteuid():
        remedy = f"run `chmod u+{missing}` on it"
    elif not missing:
        remedy = f"ask {owner} to do it"
    else:
        member = status.st_gid in (os.getegid(), *os.getgroups())
        remedy = f"ask {owner} for `chmod g+{missing}`" + ("" if member else " and a group of yours (`chgrp`)")
        remedy += ", and begin studies with `umask 002`" if missing == "w" else ""
    return f"{place}: expected permission to {purpose}, {found}; {remedy}"


def _name(lookup: Callable[[int], tuple], number: int) -> str:
    """The name of a user or group; its number if it has none on this machine."""
    try:
        return lookup(number)[0]
    except KeyError:
        return str(number)
