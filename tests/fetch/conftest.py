"""Fixtures of fetches."""

import hub as loopback
import pytest

from wspin.fetch import downloads
from wspin.fetch.hub import Repository, snapshot

CONTENT = b"{}" * 8


@pytest.fixture
def tiny(monkeypatch):
    """A hub with `lab/tiny`, a data set of one small file and one of ten kilobytes; a fetch begins again at once."""
    monkeypatch.setattr(downloads, "PAUSE", 0)
    with loopback.Hub() as hub:
        hub.add("dataset", "lab/tiny").files |= {"config.json": CONTENT, "rows.txt": b"0123456789" * 1000}
        hub.connect(monkeypatch)
        yield hub


@pytest.fixture
def fetched(tmp_path):
    """Fetches `lab/tiny`; returns {path: content}."""

    def run(*patterns):
        repository = Repository("lab/tiny", "dataset", loopback.REVISION)
        with snapshot(repository, patterns or ["*"], tmp_path / "state") as folder:
            files = [file for file in folder.rglob("*") if file.is_file()]
            return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}

    return run


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that packages are taken from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder
