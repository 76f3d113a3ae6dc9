"""A finished study to look at."""

from pathlib import Path

import pytest


@pytest.fixture
def here(study, monkeypatch):
    """A finished study as the current folder; nothing of a run is left in it."""
    monkeypatch.chdir(study.folder)
    assert not list(Path(".snakemake/incomplete").iterdir())
    return study
