"""Paths from foreign names: the one place where a name from a hub, an archive or a file becomes a path."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from wspin.errors import StudyError
from wspin.escaping import escaped

LONGEST = 255  # bytes of a part of a path, on every common file system
SHOWN = 80  # characters of a refused name


def path_below(folder: str | Path, name: str) -> Path:
    """The path of a foreign name below a folder.

    Raises `StudyError` for a name that leaves the folder or has no one meaning on every file system: absolute, with an
    empty part, `.` or `..`, with a part that begins with a dot (`.git`), backslashes, colons or invisible characters,
    with a part that is too long, or that is no text. Links below the folder are followed: the folder is the study's.
    """
    if reason := _unsafe(name):
        expected = "expected the name of a file below its folder"
        raise StudyError(f"{_shown(name)}: {expected}, found {reason}; use no such file")
    return Path(folder, *PurePosixPath(name).parts)


def check_distinct(names: Iterable[str]) -> None:
    """Raises `StudyError` if two names are one on some file system: equal but for case or Unicode's forms.

    A file that is another's folder is refused too.
    """
    seen: dict[str, str] = {}
    names = list(names)
    for name in names:
        key = _folded(name)
        if key in seen:
            found = f"found {_shown(seen[key])} too, which is the same name on some file systems"
            raise StudyError(f"{_shown(name)}: expected every name once, {found}; use no such files")
        seen[key] = name
    for name in names:
        if file := next((seen[str(path)] for path in PurePosixPath(_folded(name)).parents if str(path) in seen), None):
            raise StudyError(f"{_shown(name)}: expected its folder, found the file {_shown(file)}; use no such files")


def _shown(name: object) -> str:
    return (escaped(name) if isinstance(name, str) else repr(name))[:SHOWN]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _unsafe(name: object) -> str:
    """What is wrong with a name; empty for a safe one."""
    if not isinstance(name, str):
        return f"a {type(name).__name__}"
    parts = name.split("/")
    reasons = {
        "no name": not name,
        "an absolute path": name.startswith("/") or bool(re.match(r"[A-Za-z]:", name)),
        "`..`": ".." in parts,
        "an empty part": "" in parts,
        "a hidden file or folder": any(part.startswith(".") for part in parts),
        "a backslash": "\\" in name,
        "a colon": ":" in name,
        "an invisible character": not name.isprintable(),
        "a part that ends in a dot or blank": any(part.endswith((".", " ")) for part in parts),
        f"a part of more than {LONGEST} bytes": any(len(part.encode(errors="replace")) > LONGEST for part in parts),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
