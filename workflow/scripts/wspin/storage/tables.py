"""Parquet files of the study: schemas, metadata, row ids, and the checks that files belong together.

One row per prompt, `prompt_id` first and unique, rows in prompt order, zstd. The metadata of a file holds what it was
computed from (tokenizer, model, template, settings), but no times or hosts: equal work gives equal bytes. A reader
passes the entries that it expects, and any other value is an error of one line. Every file holds a checksum of its
bytes (`checksums`), ahead of the footer: the format lets readers pass over what no offset points to. The first rows of
a long file are a row group with a checksum of its own, so that they can be read alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wspin.errors import StudyError, first_line

from . import checksums, strict_json
from .files import digest, sha256, whole_file

FORMAT = 1
HEAD_ROWS = 64  # of the row group that can be read alone
SOME_ROWS = 256  # that are in memory together when only a shard is kept
SIDES = ("chosen", "rejected")
WEIGHT_COUNTS = ("tokens", "at_lower", "at_upper", "unread", "unclear", "segments", "mismatched")
IDS, FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())
LOGPROBS = {"token_ids": IDS, "ends": IDS, "logprobs": FLOATS}  # ends: of each token in the text, characters; nats


def logprob_columns(*sides: str) -> dict[str, pa.DataType]:
    """Columns of the log-probabilities of several answers of a row."""
    return {f"{side}_{name}": datatype for side in sides for name, datatype in LOGPROBS.items()}


def replayed_sides(count: int) -> list[str]:
    """`replayed`, or `replayed_1`, `replayed_2`, ... (the latest first) where the data window holds more than two."""
    return ["replayed"] if count == 1 else [f"replayed_{i + 1}" for i in range(count)]


def schema(kind: str, replays: int = 0) -> dict[str, pa.DataType]:
    """Columns of a kind of file, without `prompt_id`, which always comes first."""
    return {
        "prompts": {"prompt": pa.string(), "response": pa.string(), "split": pa.string()},
        "preferences": {"prompt": pa.string(), "chosen": pa.string(), "rejected": pa.string(), "split": pa.string()},
        "generations": {"response": pa.string(), "token_ids": IDS, "finish_reason": pa.string()},
        "reference": logprob_columns("chosen", "rejected", *replayed_sides(replays)),
        "logprobs": LOGPROBS,
        "weights": {"ids_hash": pa.string(), "chosen_weights": FLOATS, "rejected_weights": FLOATS},
    }[kind]


def write(
    path: str | Path, kind: str, columns: dict[str, Sequence[Any]], metadata: dict[str, Any], replays: int = 0
) -> None:
    """Write one file of the study atomically.

    `columns` holds `prompt_id` and the columns of the kind, `metadata` all that a reader may have to check.
    Raises `StudyError` if the ids are not unique, or a number is not finite.
    """
    fields = {"prompt_id": pa.string(), **schema(kind, replays)}
    _unique(path, columns["prompt_id"])
    entries = json.dumps({"format": FORMAT, "kind": kind, **metadata}, sort_keys=True)
    typed = [pa.field(name, datatype, nullable=False) for name, datatype in fields.items()]
    table = pa.table({name: columns[name] for name in fields}, schema=pa.schema(typed, metadata={"wspin": entries}))
    _check_finite(path, table)
    with whole_file(path) as temporary:
        write_parquet(temporary, table, HEAD_ROWS)


def write_parquet(path: str | Path, table: pa.Table, head_rows: int = 0) -> None:
    """Write any table with zstd and a checksum; not atomically. `head_rows`: of a row group with one of its own."""
    head = 0
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        if 0 < head_rows < table.num_rows:
            head = head_rows
            writer.write_table(table.slice(0, head))
        writer.write_table(table.slice(head))
    if head:
        with pq.ParquetFile(path) as file:
            group = file.metadata.row_group(0)
        length = len(b"PAR1") + sum(group.column(i).total_compressed_size for i in range(group.num_columns))
        with open(path, "rb") as file:
            content = file.read(length)
        _add_entry(path, lambda footer: checksums.head_entry(content, footer))
    entry = checksums.entry(sha256(path))
    _add_entry(path, lambda footer: entry)


def _add_entry(path: str | Path, entry: Callable[[bytes], bytes]) -> None:
    """Put an entry, a function of the footer, ahead of the footer of a parquet file."""
    with open(path, "r+b") as file:
        start = file.seek(checksums.footer_start(file))
        footer = file.read()
        file.seek(start)
        file.write(entry(footer) + footer)


def read(path: str | Path, kind: str, replays: int | None = 0, count: int | None = None, **expected: Any) -> pa.Table:
    """Read a file of the study; `replays`: of a reference, None for as many as it holds; `count`: of the first rows.

    Raises `StudyError` if it is missing, damaged, of another kind, format or schema, if a number is not finite, or if
    an entry of its metadata differs from the one `expected` under that name. With `count` all of this is checked of
    what is read, not of the other rows.
    """
    with _missing_as_error(path, kind):
        table = read_parquet(path) if count is None else _read_first(path, count)
    _check(path, table, kind, replays, lambda: table["prompt_id"], **expected)
    return table


def read_shard(path: str | Path, kind: str, index: int, size: int) -> pa.Table:
    """The rows of one shard: a fixed number of prompts, the last one shorter. Raises as `read`.

    The others' ids are checked, but they are never in memory together: what a job takes does not grow with the study.
    """
    ids: list[pa.Array] = []
    with _missing_as_error(path, kind):
        table = _parse(path, checksums.read_checked(path), lambda file: _shard_rows(file, index * size, size, ids))
    _check(path, table, kind, 0, lambda: pa.chunked_array(ids, pa.string()))
    return table


def _shard_rows(file: pq.ParquetFile, start: int, size: int, ids: list[pa.Array]) -> pa.Table:
    """Rows from `start` on, at most `size`; all rows' ids are added to `ids`."""
    kept, first = [], 0
    for batch in file.iter_batches(batch_size=SOME_ROWS):
        ids += [batch.column("prompt_id")] if "prompt_id" in batch.schema.names else []
        begin, end = (min(max(place - first, 0), len(batch)) for place in (start, start + size))
        kept += [batch.slice(begin, end - begin)] if begin < end else []
        first += len(batch)
    return pa.Table.from_batches(kept, file.schema_arrow)


@contextmanager
def _missing_as_error(path: str | Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise StudyError(f"{path}: expected a file of {kind}, found none; is a shard missing?") from None


def _check(
    path: str | Path,
    table: pa.Table,
    kind: str,
    replays: int | None,
    ids: Callable[[], pa.ChunkedArray],
    **expected: Any,
) -> None:
    """Raises `StudyError` as `read`; `ids`: those that must differ, once there is such a column."""
    check_metadata(path, table, format=FORMAT, kind=kind, **expected)
    if replays is None:
        replays = sum(name.startswith("replayed") and name.endswith("_token_ids") for name in table.column_names)
    fields = {"prompt_id": pa.string(), **schema(kind, replays)}
    present = dict(zip(table.column_names, table.schema.types, strict=True))
    if list(present.items()) != list(fields.items()):
        wrong = [name for name in (*fields, *present) if present.get(name) != fields.get(name)]
        raise StudyError(
            f"{path}: columns: expected {', '.join(fields)}; wrong: {', '.join(dict.fromkeys(wrong)) or 'order'}"
        )
    _unique(path, ids())
    _check_finite(path, table)


def read_parquet(
    path: str | Path, columns: list[str] | None = None, remedy: str = "delete it and run again"
) -> pa.Table:
    """A parquet file as a table. `pyarrow.parquet.read_table` reads folders too, and imports pandas for it.

    Raises `StudyError` if it is none, or damaged, FileNotFoundError and PermissionError.
    """
    return _parse(path, checksums.read_checked(path, remedy), lambda file: file.read(columns), remedy)


def _read_first(path: str | Path, count: int) -> pa.Table:
    """The first rows, at most `count`, which keep no memory of the others; read alone if the file's head has them."""
    head = checksums.read_head(path)
    table = _parse(path, head, lambda file: file.read_row_group(0)) if head else read_parquet(path)
    if head and table.num_rows < count:
        table = read_parquet(path)
    return table.take(np.arange(min(count, table.num_rows)))


def _parse(
    path: str | Path,
    content: bytes | bytearray,
    read_rows: Callable[[pq.ParquetFile], pa.Table],
    remedy: str = "delete it and run again",
) -> pa.Table:
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            table = read_rows(file)
    except (pa.ArrowException, OSError) as error:
        raise StudyError(f"{path}: expected a parquet file, found {first_line(error)}; {remedy}") from None
    try:
        entries = metadata(table)
    except ValueError as error:
        entries = first_line(error)
    if not isinstance(entries, dict):
        raise StudyError(f"{path}: metadata: expected a JSON object under `wspin`, found {entries}; {remedy}")
    return table


def check_metadata(path: str | Path, table: pa.Table, **expected: Any) -> None:
    """Raises `StudyError` if an entry of a file's metadata differs from the one expected under that name."""
    entries = metadata(table)
    for key, value in expected.items():
        if (found := entries.get(key)) != value:
            difference = f"expected {value!r}, found {found!r}"
            raise StudyError(f"{path}: {key}: {difference}; it comes from other inputs or settings")


def read_shards(paths: Iterable[str | Path], kind: str, replays: int | None = 0, **expected: Any) -> pa.Table:
    """The rows of all shards, in the order given. Arguments and errors as of `read`."""
    paths = list(paths)
    table = pa.concat_tables([read(path, kind, replays, **expected).replace_schema_metadata(None) for path in paths])
    _unique(paths[0], table["prompt_id"])
    return table


def read_reference(path: str | Path, count: int | None = None, **expected: Any) -> pa.Table:
    """Read a file of reference log-probabilities with as many replayed sides as it holds. Raises as `read`."""
    return read(path, "reference", None, count, **expected)


def row_arrays(table: pa.Table, column: str) -> list[np.ndarray]:
    """A column of lists as one array per row, without copies."""
    split = (np.split(of.flatten().to_numpy(), np.cumsum(of.value_lengths()))[:-1] for of in table[column].chunks)
    return list(chain.from_iterable(split))


def metadata(table: pa.Table, *keys: str) -> dict[str, Any]:
    """What a file was computed from; with keys, these entries alone."""
    entries = strict_json.parse((table.schema.metadata or {}).get(b"wspin", b"{}"), distinct=False)
    return {key: entries[key] for key in keys} if keys else entries


def texts_hash(prompts: Sequence[str], answers: Sequence[str]) -> str:
    """Fingerprint of the texts that a model has scored."""
    return digest([list(prompts), list(answers)])


def ids_hashes(reference: pa.Table, rejected: str) -> list[str]:
    """For each row, the fingerprint of the token ids that its weights belong to: those of the pair, each EOS included.

    `rejected` is the side of the generated answers: `rejected`, or one of the replayed ones.
    """
    pairs = zip(row_arrays(reference, "chosen_token_ids"), row_arrays(reference, f"{rejected}_token_ids"), strict=True)
    return [hashlib.sha256(b"|".join(ids.astype("<i4").tobytes() for ids in pair)).hexdigest()[:16] for pair in pairs]


def check_same_rows(first: str | Path, first_ids: Sequence[str], second: str | Path, second_ids: Sequence[str]) -> None:
    """Two files must hold the same prompts in the same order. Raises `StudyError`."""
    if list(first_ids) == list(second_ids):
        return
    differ = next((i for i, (a, b) in enumerate(zip(first_ids, second_ids, strict=False)) if a != b), None)
    place = "length" if differ is None else f"row {differ}"
    raise StudyError(
        f"{second}: expected the {len(first_ids)} rows of {first}, found {len(second_ids)}; they differ in {place}"
    )


def check_weighted_ids(path: str | Path, weights: pa.Table, reference: pa.Table, rejected: str = "rejected") -> None:
    """Raises `StudyError` unless the weights in `path` belong to the token ids of `reference`; see `ids_hashes`."""
    hashes = zip_longest(weights["ids_hash"].to_pylist(), ids_hashes(reference, rejected))
    for row, (found, expected) in enumerate(hashes):
        if found != expected:
            difference = f"expected weights of token ids {expected}, found those of {found}"
            raise StudyError(f"{path}: row {row}, {rejected}: {difference}; weigh the answers again")


def shard(table: pa.Table, index: int, size: int) -> pa.Table:
    """Rows of one shard, as `read_shard`, of a table that is in memory."""
    return table.slice(index * size, size)


def _unique(path: str | Path, ids: Sequence[str] | pa.ChunkedArray) -> None:
    column = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids], pa.string())
    if len(column.unique()) < len(column):
        repeated = next(prompt_id for prompt_id, count in Counter(column.to_pylist()).items() if count > 1)
        raise StudyError(f"{path}: prompt_id: expected every id once, found {repeated!r} more than once")


def _check_finite(path: str | Path, table: pa.Table) -> None:
    """Raises `StudyError` with the first prompt that has a log-probability or weight which is no finite number."""
    for name in (field.name for field in table.schema if field.type == FLOATS):
        if pc.all(pc.is_finite(pc.list_flatten(table[name])), min_count=0).as_py():
            continue
        for prompt_id, values in zip(table["prompt_id"].to_pylist(), row_arrays(table, name), strict=True):
            if not np.isfinite(values).all():
                found = f"expected finite numbers, found {values[~np.isfinite(values)][0]}"
                raise StudyError(f"{path}: {prompt_id}: {name}: {found}; make the file again, from finite numbers")
