"""Files of the study come back as they were written, or not at all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wspin.errors import StudyError
from wspin.storage import tables
from wspin.storage.files import sha256, whole_file, whole_folder, write_json, writing

METADATA = {"tokenizer": "aa", "model": "bb", "template": "zephyr", "settings": {"top_p": 1.0}}
TEXTS = {"prompt": ["Hi", "日本\r\n", ""], "response": ["a", "", "\x00"], "split": ["train"] * 3}
SCORED = {"token_ids": [[1, 2], [0], [7]], "ends": [[1, 1], [0], [4]], "logprobs": [[-0.5, -1.25], [0.0], [-3.0]]}
KINDS = {
    "prompts": (TEXTS, 0),
    "preferences": ({"prompt": TEXTS["prompt"], "chosen": ["a"] * 3, "rejected": ["b"] * 3, "split": ["t"] * 3}, 0),
    "generations": ({"response": ["a"] * 3, "token_ids": SCORED["token_ids"], "finish_reason": ["stop"] * 3}, 0),
    "reference": (("chosen", "rejected"), 0),
    "reference with replays": (("chosen", "rejected", "replayed"), 1),
    "reference with more": (("chosen", "rejected", "replayed_1", "replayed_2"), 2),
}


def columns(kind):
    """Three rows of a kind, and the number of its replays."""
    content, replays = KINDS[kind]
    if isinstance(content, tuple):
        content = {f"{side}_{part}": values for side in content for part, values in SCORED.items()}
    return {"prompt_id": ["t-2", "t-0", "t-1"], **content}, replays


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prompts.parquet"


def write(path, metadata=METADATA, **changes):
    tables.write(path, "prompts", {**columns("prompts")[0], **changes}, metadata)
    return path


def stops(path, *parts, **expected):
    """Reading stops with one line that names the file and contains these parts."""
    with pytest.raises(StudyError) as error:
        tables.read(path, "prompts", **expected)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    for part in ("expected", *parts):
        assert part in str(error.value)


# Reading and writing


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_as_it_was(tmp_path, kind):
    (content, replays), name = columns(kind), kind.split()[0]
    tables.write(tmp_path / "a.parquet", name, content, METADATA, replays)
    table = tables.read(tmp_path / "a.parquet", name, replays, **METADATA)
    assert table.to_pydict() == content
    assert table.column_names[0] == "prompt_id"
    assert tables.metadata(table) == {"format": tables.FORMAT, "kind": name, **METADATA}
    assert not any(field.nullable for field in table.schema)
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_replays_have_columns_of_their_own():
    assert tables.replayed_sides(1) == ["replayed"]
    assert tables.replayed_sides(3) == ["replayed_1", "replayed_2", "replayed_3"]
    parts = ["token_ids", "ends", "logprobs"]
    sides = ["chosen", "rejected", "replayed_1", "replayed_2"]
    assert list(tables.schema("reference", 2)) == [f"{side}_{part}" for side in sides for part in parts]
    assert list(tables.schema("reference", 0)) == [f"{side}_{part}" for side in sides[:2] for part in parts]


def test_equal_content_gives_equal_bytes(tmp_path):
    """Whatever the order in which columns and metadata were given."""
    first = write(tmp_path / "a.parquet")
    content, backward = columns("prompts")[0], dict(reversed(METADATA.items()))
    tables.write(tmp_path / "b.parquet", "prompts", dict(reversed(content.items())), backward)
    assert sha256(first) == sha256(tmp_path / "b.parquet")
    assert sha256(first) != sha256(write(tmp_path / "c.parquet", response=["a", "", "\x01"]))
    assert sha256(first) != sha256(write(tmp_path / "d.parquet", {**METADATA, "model": "cc"}))


def test_shards_are_read_in_their_order(tmp_path):
    ids = [["a", "b"], ["c"], ["d", "e"]]
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    for path, some in zip(paths, ids, strict=True):
        tables.write(path, "prompts", {"prompt_id": some, **dict.fromkeys(TEXTS, ["x"] * len(some))}, METADATA)
    assert tables.read_shards(paths, "prompts", **METADATA)["prompt_id"].to_pylist() == list("abcde")
    assert tables.read_shards(paths[::-1], "prompts")["prompt_id"].to_pylist() == list("decab")
    with pytest.raises(StudyError, match=r"prompt_id: expected every id once, found 'a' more than once"):
        tables.read_shards([*paths, paths[0]], "prompts")
    paths[1].unlink()
    with pytest.raises(StudyError, match=r"1\.parquet: expected a file of prompts, found none; is a shard missing\?"):
        tables.read_shards(paths, "prompts")


@given(rows=st.integers(1, 40), size=st.integers(1, 40))
def test_trap_04_shards_hold_every_row_once(rows, size):
    table = pa.table({"prompt_id": list(map(str, range(rows)))})
    shards = [tables.shard(table, i, size)["prompt_id"].to_pylist() for i in range(-(-rows // size))]
    assert [one for shard in shards for one in shard] == table["prompt_id"].to_pylist()
    assert all(len(shard) == size for shard in shards[:-1])
    assert shards[-1]


# What a reader refuses


def test_a_missing_file(path):
    stops(path, "expected a file of prompts, found none")


def test_another_kind(path):
    tables.write(path, "generations", columns("generations")[0], METADATA)
    stops(path, "kind: expected 'prompts', found 'generations'")


def test_another_format(path, monkeypatch):
    monkeypatch.setattr(tables, "FORMAT", 2)
    write(path)
    monkeypatch.undo()
    stops(path, "format: expected 1, found 2")


def test_a_file_that_is_not_the_studys(path):
    pq.write_table(pa.table(columns("prompts")[0]), path)
    stops(path, "format: expected 1, found None")


@pytest.mark.parametrize("key", ["tokenizer", "model", "template"])
def test_another_origin(path, key):
    stops(write(path), f"{key}: expected 'other', found {METADATA[key]!r}", **{**METADATA, key: "other"})


def test_missing_metadata(path):
    """Missing metadata is an error, it is not defaulted."""
    stops(write(path), "autocast: expected 'float32', found None", **METADATA, autocast="float32")


@pytest.mark.parametrize("damage", ["half", "empty", "text", "no footer"])
def test_a_damaged_file(path, damage):
    whole = write(path).read_bytes()
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "empty": b"", "text": b"a,b\n1,2\n", "no footer": whole[:-8]}[damage]
    )
    expected = "the bytes of its checksum, found others" if damage in ("half", "no footer") else "a parquet file, found"
    stops(path, f"expected {expected}", "delete it and run again")


def rewritten(path, change):
    """The file with another table in it, and the metadata as it was."""
    table = pq.read_table(write(path))
    pq.write_table(change(table), path)
    return path


def test_a_missing_column(path):
    stops(rewritten(path, lambda table: table.drop_columns(["response"])), "columns: expected", "wrong: response")


def test_a_column_too_many(path):
    stops(rewritten(path, lambda table: table.append_column("extra", pa.array([1, 2, 3]))), "wrong: extra")


def test_columns_in_another_order(path):
    stops(rewritten(path, lambda table: table.select(table.column_names[::-1])), "wrong: order")


def test_a_column_of_another_type(tmp_path):
    """int64 ids would do for Python, but they are not what was agreed."""
    content, path = columns("generations")[0], tmp_path / "00.parquet"
    tables.write(path, "generations", content, METADATA)
    table = pq.read_table(path)
    wide = table["token_ids"].cast(pa.list_(pa.int64()))
    pq.write_table(table.set_column(2, "token_ids", wide), path)
    with pytest.raises(StudyError, match=r"00\.parquet: columns: expected prompt_id, .*; wrong: token_ids$"):
        tables.read(path, "generations")


def test_another_number_of_replays(path):
    content, replays = columns("reference with replays")
    tables.write(path, "reference", content, METADATA, replays)
    with pytest.raises(StudyError, match="wrong: replayed_token_ids, replayed_ends, replayed_logprobs"):
        tables.read(path, "reference", replays=0)


def test_duplicated_ids(path):
    with pytest.raises(StudyError, match="prompt_id: expected every id once, found 'b' more than once"):
        write(path, prompt_id=["a", "b", "b"])
    assert not path.exists()
    rewritten(path, lambda table: table.set_column(0, table.schema.field(0), pa.array(["a", "b", "b"])))
    stops(path, "prompt_id: expected every id once, found 'b' more than once")


@pytest.mark.parametrize(
    ("other", "place"), [(["a", "c", "b"], "row 1"), (["a", "b"], "length"), (["a", "b", "c", "d"], "length")]
)
def test_other_rows(other, place):
    tables.check_same_rows("first", ["a", "b", "c"], "second", ["a", "b", "c"])
    with pytest.raises(StudyError) as error:
        tables.check_same_rows("first", ["a", "b", "c"], "second", other)
    expected = f"second: expected the 3 rows of first, found {len(other)}; they differ in {place}"
    assert str(error.value) == expected


# Outputs whole or not at all


class Stop(Exception):
    pass


def test_a_duplicate_among_many_ids_is_found_in_one_pass(path):
    """Counting every id would take hours."""
    ids = [*map(str, range(300_000)), "299999"]
    with pytest.raises(StudyError, match="found '299999' more than once"):
        tables._unique(path, ids)


def test_trap_04_a_file_replaces_the_old_one_whole(path):
    path.write_text("old")
    with pytest.raises(Stop), whole_file(path) as temporary:
        temporary.write_text("half of the new")
        raise Stop
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    folder = tmp_path / "model"
    for name in ("old", "new"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(Stop), whole_folder(folder) as temporary:
            (temporary / "half").touch()
            raise Stop
        assert sorted(tmp_path.rglob("*")) == before
        with whole_folder(folder) as temporary:
            (temporary / name).touch()
    assert sorted(tmp_path.rglob("*")) == [folder, folder / "new"]


def test_a_failed_write_leaves_what_was_there(path):
    before = write(path).read_bytes()
    for split in (["train"], ["train", None, "train"]):
        with pytest.raises(pa.ArrowInvalid):
            write(path, split=split)
    with pytest.raises(TypeError):
        write(path, {"seed": object()})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("message", "reason"), [("no space\nat all", "no space"), ("", "RuntimeError")])
def test_a_write_that_fails_names_the_file(path, message, reason):
    """Even if the library's error has no message."""
    with pytest.raises(OSError) as error, writing(path, RuntimeError):
        raise RuntimeError(message)
    assert error.value.filename == str(path)
    assert error.value.strerror == f"cannot be written, is the disk full? {reason}"
    with pytest.raises(OSError) as error, whole_file(path):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(path)


def test_missing_folders_are_made(tmp_path):
    write_json(tmp_path / "a/b/c.json", {"z": 1, "a": ["é"]})
    assert (tmp_path / "a/b/c.json").read_text() == '{\n  "a": [\n    "é"\n  ],\n  "z": 1\n}\n'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path, number):
    """The line names the first prompt that has one."""
    content, _ = columns("reference")
    path, tail = tmp_path / "a.parquet", f"expected finite numbers, found {number}; make the file again, from finite"
    wrong = {**content, "rejected_logprobs": [[-0.5, -1.25], [0.0], [number]]}
    with pytest.raises(StudyError, match=f"^{path}: t-1: rejected_logprobs: {tail}"):
        tables.write(path, "reference", wrong, METADATA)
    assert not path.exists()
    tables.write(path, "reference", content, METADATA)
    table = tables.read(path, "reference")
    place = table.schema.get_field_index("rejected_logprobs")
    changed = pa.array(wrong["rejected_logprobs"], type=tables.FLOATS)
    pq.write_table(table.set_column(place, table.schema.field(place), changed), path)
    with pytest.raises(StudyError, match=f"^{path}: t-1: rejected_logprobs: {tail}"):
        tables.read(path, "reference")


def test_rows_of_several_shards_are_views_of_their_columns():
    """So that a training has the answers of all shards in memory once."""
    shards = [[[1, 2], [], [3]], [[4], [5, 6]]]
    table = pa.table({"ids": pa.chunked_array(shards, tables.IDS)})
    rows = tables.row_arrays(table, "ids")
    assert [row.tolist() for row in rows] == [*shards[0], *shards[1]]
    for row, chunk in zip((rows[0], rows[4]), table["ids"].chunks, strict=True):
        assert np.shares_memory(row, chunk.flatten().to_numpy())
    assert tables.row_arrays(table.slice(1, 3), "ids")[2].tolist() == [4]
    assert tables.row_arrays(table.slice(0, 0), "ids") == []
