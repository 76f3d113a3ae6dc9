"""Atomic writes of files and folders, and hashes of files."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from wspin.errors import StudyError, first_line
from wspin.progress import with_progress

from . import checksums, strict_json
from .opening import readable
from .permissions import error_line, take_modes


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error.

    It lies beside `path`, in a new folder into which no other user can put a link. What is there at the end gets the
    modes of new files (`take_modes`). A process that is killed leaves the folder, `.{name}.{eight digits}`.
    """
    path = Path(path)
    private = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary = private / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writing(path, private=private):
            private.mkdir(mode=0o700)
            yield temporary
            take_modes(temporary)
            for file in (temporary, *sorted(temporary.rglob("*"))):
                sync(file)
            if temporary.is_dir():
                _remove(path)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder that takes the place of `path` when the block ends without an error, as `whole_file`."""
    with whole_file(path) as temporary:
        temporary.mkdir()
        yield temporary


def _remove(path: Path) -> None:
    """Remove a folder, or a link to one: what the link leads to stays."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        remove_folder(path)


def remove_folder(path: Path) -> None:
    """Remove a folder whole. Raises PermissionError before anything is removed if another user's prevents that."""
    for place, _, _ in os.walk(path):
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.path.join(place, "*"))
    shutil.rmtree(path)


@contextlib.contextmanager
def writing(path: str | Path, *library_errors: type[Exception], private: Path | None = None) -> Iterator[None]:
    """Name the path in the error of a failed write; `library_errors`, raised in place of OSError, become one.

    A copy's target is named, not its source, and in place of anything in the folder `private` what it becomes.
    """
    try:
        yield
    except OSError as error:
        name = os.fspath(error.filename2 or error.filename or path)
        if private:
            name = name.replace(str(private / Path(path).name), str(path)).replace(str(private), str(path))
        error.filename, error.filename2 = name, None
        raise
    except library_errors as error:
        raise OSError(None, f"cannot be written, is the disk full? {first_line(error)}", str(path)) from error


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


def write_checked_json(path: str | Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a checksum of the file's bytes in its entry `checksum`."""
    text = json.dumps({**value, "checksum": ""}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    before, key, after = text.partition('\n  "checksum": "')
    before += key
    entry = checksums.entry(hashlib.sha256((before + after).encode()).hexdigest()).decode()
    with whole_file(path) as temporary:
        temporary.write_text(before + entry + after)


def read_json(path: str | Path, content: str, remedy: str, exact: bool = True) -> dict[str, Any]:
    """The object in a JSON file, without its checksum; `content` and `remedy` stand in the message if there is none.

    `exact`: as `strict_json.parse_exact` reads it, for files of the study's own; else as other programs do. Raises
    `StudyError` if the file is damaged, holds no object or may not be read, and FileNotFoundError.
    """
    try:
        text = checksums.read_checked(path, remedy)
        value = strict_json.parse_exact(text) if exact else strict_json.parse(text, distinct=False)
    except ValueError as error:
        raise StudyError(f"{path}: expected {content}, found no JSON ({first_line(error)}); {remedy}") from None
    except PermissionError as error:
        raise StudyError(error_line(error)) from None
    if not isinstance(value, dict):
        raise StudyError(f"{path}: expected {content}, found a JSON {type(value).__name__}; {remedy}")
    value.pop("checksum", None)
    return value


def write_yaml(path: str | Path, value: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def sha256(path: str | Path) -> str:
    """Hex digest of a file. Raises `StudyError` for a named pipe or a device."""
    with open(path, "rb", opener=readable) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: str | Path, path: str | Path) -> None:
    """Write the sha256 of every file in a folder: what jobs track in its place, as copying it changes its times."""
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    write_checked_json(path, {"files": {file.relative_to(folder).as_posix(): sha256(file) for file in files}})


def check_digests(folder: str | Path) -> None:
    """Compare a folder's files with the hashes in `{folder}.json`, if there is one. Raises `StudyError`."""
    path, remedy = Path(f"{str(folder).rstrip('/')}.json"), "fetch it again"
    if not path.exists():
        return
    hashes = read_json(path, "hashes of files", remedy).get("files")
    if not isinstance(hashes, dict):
        raise StudyError(f"{path}: files: expected an object, found {hashes!r:.60}; {remedy}")
    files = {file.relative_to(folder).as_posix(): file for file in Path(folder).rglob("*") if file.is_file()}
    for name, expected in hashes.items():  # no name becomes a path
        if name not in files or sha256(files[name]) != expected:
            found = "another: it is damaged or changed" if name in files else "none"
            raise StudyError(f"{folder}/{name}: expected the file of {path}, found {found}; {remedy}")


def file_hashes(folder: str | Path, names: Iterable[str]) -> dict[str, str]:
    """sha256 of files in a folder by name, several at a time: a large file takes as long to hash as to read."""
    names = list(names)
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda name: sha256(Path(folder) / name), names)
        return dict(zip(names, with_progress(hashes, len(names), f"checksums: {folder}", "files"), strict=True))


def digest(value: Any) -> str:
    """Hex digest of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
