"""Packages of tests: wheels and sdists with given files."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(index: Path, files: dict[str, str | bytes], requires_python: str = ">=3.99") -> dict[str, str]:
    """A wheel with these files, for a Python that is not this one; returns its entry in a configuration."""
    archive = index / "texts-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: texts\nVersion: 1.0\nRequires-Python: {requires_python}\n"
    metadata += "Requires-Dist: what-nobody-has\n"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
        opened.writestr("texts-1.0.dist-info/METADATA", metadata)
        opened.writestr("texts-1.0.dist-info/WHEEL", WHEEL)
    return package_entry(archive, next(iter(files)))


def sdist(index: Path, files: dict[str, bytes], members: Iterable[tarfile.TarInfo] = ()) -> dict[str, str]:
    """An sdist with these files, then these members without content; returns its entry in a configuration."""
    archive = index / "texts-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
        for member in members:
            opened.addfile(member)
    return package_entry(archive, next(iter(files), ""))


def package_entry(archive: Path, file: str) -> dict[str, str]:
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    return {"name": "texts", "version": "1.0", "sha256": checksum, "file": file}
