"""Reads foreign files of rows: a fixed list of kinds, none of which can name other files, addresses or code.

What would exhaust the memory or the stack of the libraries that parse these files is refused before they see it.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from wspin.errors import StudyError, first_line

CODECS = {"gz": "gzip", "zst": "zstd"}
LARGEST = 2**33  # bytes of a file's content or of its rows in memory, decompressed
MOST_CELLS = 10**9  # rows (or objects) times columns (or keys): a file of a few MB may otherwise ask for terabytes
DEEPEST = 100  # lists and objects in each other; pyarrow's parser of JSON ends the process at some 10,000
ROWS = 1000  # of a batch
LONGEST_ROW = 2**28  # bytes, of JSON
# A string, with the colon behind it if it is a key, or a bracket. Nothing is tried twice: linear time in any text.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+(\s*+:)?|[\[\]{}]', re.DOTALL)


def kind(path: str) -> str:
    """`parquet`, `json`, `jsonl` or `csv`, from a file's name; empty for any other."""
    name = re.sub(rf"\.({'|'.join(CODECS)})$", "", path)
    suffix = Path(name).suffix[1:]
    return suffix if suffix in READERS else ""


def check_kinds(paths: list[str], place: str) -> None:
    """Raises `StudyError` unless files are of one kind, which `read` reads."""
    if other := next((path for path in paths if not kind(path)), ""):
        expected = "expected a file of parquet, json, jsonl or csv, or one with .gz or .zst behind it"
        raise StudyError(f"{place}: {other}: {expected}, found another; set `path:` to a converted copy")
    if len(kinds := sorted(set(map(kind, paths)))) > 1:
        found = f"{' and '.join(kinds)}; set `path:` to a copy with one of them"
        raise StudyError(f"{place}: expected files of one kind in a split, found {found}")


def read(path: Path, place: str) -> pa.Table:
    """The rows of a file; texts that look like times stay texts. `place` stands for the file in messages.

    Raises `StudyError` for a file that is not of its kind, and for more than the limits of this module.
    """
    try:
        table = READERS[kind(path.name)](_content(path, place), place).replace_schema_metadata()
    except StudyError:
        raise
    except Exception as error:  # of any of the parsers
        message = f"expected rows of {kind(path.name)}, found {type(error).__name__}: {first_line(error)}"
        raise StudyError(f"{place}: {message}; correct the file in a copy (`path:`)") from error
    if repeated := sorted(name for name, count in Counter(table.column_names).items() if count > 1):
        raise StudyError(f"{place}: columns: expected every name once, found {repeated[0]} twice; rename it in a copy")
    return table


def _content(path: Path, place: str) -> pa.Buffer:
    """A file's bytes, decompressed."""
    if not (codec := CODECS.get(path.suffix[1:])):
        return pa.memory_map(str(path)).read_buffer() if path.stat().st_size else pa.py_buffer(b"")
    content = pa.BufferOutputStream()
    with pa.input_stream(str(path), compression=codec) as stream:
        while chunk := stream.read(2**20):
            _check_size(content.tell() + len(chunk), place)
            content.write(chunk)
    return content.getvalue()


def _check_size(size: int, place: str) -> None:
    if size > LARGEST:
        found = "found more; take another file, or a part of it in a copy (`path:`)"
        raise StudyError(f"{place}: expected at most {LARGEST / 2**30:.3g} GiB of rows, {found}")


def _check_cells(rows: int, columns: int, place: str) -> None:
    if rows * columns > MOST_CELLS:
        found = f"found {rows} with {columns} different keys; leave out columns in a copy (`path:`)"
        raise StudyError(f"{place}: expected at most {MOST_CELLS:.3g} values in rows, {found}")


def _read_parquet(content: pa.Buffer, place: str) -> pa.Table:
    import pyarrow.parquet as pq

    size, batches = 0, []
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        _check_cells(file.metadata.num_rows, max(1, file.metadata.num_columns), place)
        for batch in file.iter_batches(ROWS):
            size += batch.nbytes  # a page of a few bytes may repeat one long text
            _check_size(size, place)
            batches.append(batch)
        return pa.Table.from_batches(batches, file.schema_arrow)


def _read_csv(content: pa.Buffer, place: str) -> pa.Table:
    import pandas

    columns = pandas.read_csv(pa.BufferReader(content), nrows=0).columns
    _check_cells(content.to_pybytes().count(b"\n"), len(columns), place)
    frame = pandas.read_csv(pa.BufferReader(content), low_memory=False)
    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError("rows longer than the header")
    return pa.Table.from_pandas(frame, preserve_index=False)


def _read_json(content: pa.Buffer, place: str) -> pa.Table:
    """The rows of an array, or of one object a line."""
    if bytes(memoryview(content)[:100]).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        rows = json_rows(content.to_pybytes(), place)
        content = pa.py_buffer("\n".join(map(json.dumps, rows)).encode())
    return _read_lines(content, place)


def json_rows(content: bytes, place: str) -> list[Any]:
    """The rows of a JSON array, or of one value a line. Raises `StudyError` for anything else."""
    try:
        content = content.removeprefix(codecs.BOM_UTF8)
        is_array = content.lstrip().startswith(b"[")
        lines = [content] if is_array else [line for line in content.splitlines() if line.strip()]
        values = [json.loads(line) for line in lines]
    except RecursionError:
        found = "brackets nested without end"
    except ValueError as error:
        found = first_line(error)
    else:
        return values[0] if is_array else values
    raise StudyError(f"{place}: expected a JSON array, or one object a line, found {found}; take another file")


def _read_lines(content: pa.Buffer, place: str) -> pa.Table:
    """The rows of JSONL; what looks like a time stays text, and objects without a key anywhere are left out.

    Raises `StudyError` if a line holds no object, or if the rows are not of one form.
    """
    import pyarrow.json

    _check_json(content, place)
    longest = pyarrow.json.ReadOptions(block_size=LONGEST_ROW)
    try:
        table = pyarrow.json.read_json(pa.BufferReader(content), longest)
        schema = pa.schema(_stored_fields(table.schema))
        if schema != table.schema:
            options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            table = pyarrow.json.read_json(pa.BufferReader(content), longest, options)
    except pa.ArrowException as error:
        for number, line in enumerate(content.to_pybytes().splitlines(), 1):
            if line.strip() and not _is_object(line):
                found = line.decode(errors="replace")[:60]
                raise StudyError(
                    f"{place}:{number}: expected one JSON object a line, found {found}; correct it"
                ) from None
        found = f"found {first_line(error)}; correct that row"
        raise StudyError(f"{place}: expected rows of one form, {found}") from None
    return table


def _check_json(content: pa.Buffer, place: str) -> None:
    """Raises `StudyError` for brackets nested without end, and for more keys than rows of that number can have."""
    text, keys, depth, objects = memoryview(content), set(), 0, 0
    for token in TOKEN.finditer(text):
        first = text[token.start()]
        if first == ord('"'):
            if token.lastindex:
                keys.add(token[0])
        elif first in b"[{":
            depth += 1
            objects += first == ord("{")
            if depth > DEEPEST:
                found = "found more; take another file, or a flat copy (`path:`)"
                raise StudyError(f"{place}: expected at most {DEEPEST} lists and objects in each other, {found}")
        else:
            depth -= 1
    _check_cells(objects, len(keys), place)


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


READERS = {"parquet": _read_parquet, "json": _read_json, "jsonl": _read_lines, "csv": _read_csv}
