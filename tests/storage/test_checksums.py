"""A stored file is read back as it was written, or refused: no single bit of it may change without a word."""

import random
from functools import partial

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wspin.errors import StudyError
from wspin.storage import tables

ROWS = {"prompt_id": [f"t-{i}" for i in range(40)], "response": ["x"] * 40, "token_ids": [[i, 7] for i in range(40)]}


@pytest.fixture
def generations(tmp_path):
    path = tmp_path / "00.parquet"
    tables.write(path, "generations", {**ROWS, "finish_reason": ["stop"] * 40}, {"model": "aa"})
    return path


def unnoticed(path, read, bits):
    """The bits of a file whose change `read` does not refuse in one line that begins with the file."""
    content, silent = path.read_bytes(), []
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            read()
        except StudyError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            silent.append(bit)
    path.write_bytes(content)
    return silent


def drawn_bits(path, count):
    return random.Random(path.name).sample(range(8 * path.stat().st_size), count)


def test_no_bit_of_a_table_changes_unnoticed(generations):
    """Pages, their headers, the footer, its metadata and the checksum itself."""
    read = partial(tables.read, generations, "generations")
    size = 8 * generations.stat().st_size
    assert unnoticed(generations, read, [*drawn_bits(generations, 200), *range(size - 4000, size, 5)]) == []


def test_no_bit_of_a_data_set_changes_unnoticed(tmp_path):
    path = tmp_path / "train.parquet"
    tables.write_parquet(path, pa.table({"prompt": ["a", "b"], "response": ["c", "d"]}))
    assert unnoticed(path, partial(tables.read_parquet, path), range(0, 8 * path.stat().st_size, 7)) == []


def test_other_readers_open_a_table(generations):
    assert pandas.read_parquet(generations)["prompt_id"].tolist() == ROWS["prompt_id"]
    assert pq.read_table(generations)["token_ids"].to_pylist() == ROWS["token_ids"]
    assert pq.ParquetFile(generations, page_checksum_verification=True).read().num_rows == 40


def test_a_table_without_a_checksum_is_read(generations):
    """Those of earlier versions, and what other programs write."""
    table = pq.read_table(generations)
    pq.write_table(table, generations)
    assert tables.read(generations, "generations") == table


def test_metadata_that_is_no_object(generations):
    table = pq.read_table(generations)
    for text, found in (("[1]", r"\[1\]"), ("{", "Expecting property name"), (b"\xff", "'utf-8' codec")):
        pq.write_table(table.replace_schema_metadata({"wspin": text}), generations)
        with pytest.raises(StudyError, match=rf"metadata: expected a JSON object under `wspin`, found {found}.*; del"):
            tables.read(generations, "generations")
