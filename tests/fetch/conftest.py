"""Fixtures of fetches."""

import pytest


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that packages are taken from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder
