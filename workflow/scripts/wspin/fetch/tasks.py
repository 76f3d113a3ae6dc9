"""Fetches the tasks of an evaluation suite: task files of lm-eval's format, or the data that its own tasks read."""

import shutil
from pathlib import Path

from wspin.config.sources import TaskSource
from wspin.data.task_files import check_task_files
from wspin.errors import StudyError

from . import cards, hub, local, packages

# Files of a task: its definition, the templates it includes (`_default_yaml`), its functions, its data. A template may
# also have a name without a dot.
TASK_FILES = ("yaml", ".yml", ".py", ".jsonl", ".parquet", ".json", ".csv", "README.md")
# Files of a data set that `datasets` reads: the card maps them to splits. It refuses a folder with a script.
DATA_FILES = ("README.md", "*.parquet", "*.json", "*.jsonl", "*.csv", "*.tsv", "*.txt", "*.zst", "*.gz", "*.zip")


def fetch(source: TaskSource, folder: Path, state: str) -> list[Path]:
    """Put a suite's files into `folder`: a hub data set as {org}/{name}/, or task files with their data.

    Returns the local files. Raises `StudyError` as `check_task_files` and `cards.check_card`, unless the source allows
    code.
    """
    for card in sorted(Path(source.path).rglob(cards.CARD)) if source.path and not source.code else ():
        cards.check_card(card, str(card))
    if source.hub and source.path:
        if other := next(Path(source.path).rglob(".huggingface.yaml"), None):
            raise StudyError(f"{other}: expected the card of data in {cards.CARD}, found another; write it there")
        return _copy(Path(source.path), folder / source.hub, "*.parquet", "*.json", "*.jsonl", "*.csv")
    if source.hub:
        repository = hub.Repository(source.hub, "dataset", source.revision)
        hub.fetch(repository, DATA_FILES, state, folder / source.hub)
        if (card := folder / source.hub / cards.CARD).exists():
            cards.check_card(card, f"{repository}: {cards.CARD}")
        return []
    if not source.code:
        check_task_files(source.path)
    files = _copy(Path(source.path), folder, "*.yaml")
    if source.package:
        packages.extract_file(source.package, folder)
    return files


def _copy(source: Path, folder: Path, *required: str) -> list[Path]:
    """Copy task files with their subfolders; returns them.

    Raises `StudyError` if none matches one of the `required` patterns.
    """
    files = [file for file in sorted(source.rglob("*")) if not file.is_dir()]
    files = [file for file in files if file.name.endswith(TASK_FILES) or "." not in file.name]
    local.check_files(files)
    if not any(file.match(pattern) for file in files for pattern in required):
        expected = f"expected a folder with {', '.join(required)}"
        raise StudyError(f"{source}: {expected}, found none; correct the suite's path")
    hub.copy_files(source, files, folder, shutil.copyfile)
    return files
