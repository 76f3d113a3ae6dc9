"""Data sets of the hub: which files belong to a split, what is read of them, and what is refused."""

import gzip
import json
import os
import re
import tempfile
from functools import partial
from pathlib import Path

import hub as loopback
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks import attack

from wspin.config.sources import Model, TaskSource
from wspin.data import records
from wspin.errors import StudyError
from wspin.fetch import cards, datasets, models, readers, tasks

NAME = "lab/chats"
PLACE = f"{NAME}@{loopback.REVISION}"
ROWS = [{"prompt": f"p{i}", "response": f"r{i}"} for i in range(3)]
CSV = "prompt,response\n" + "".join(f"p{i},r{i}\n" for i in range(3))
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def server():
    """A hub on loopback, to which huggingface_hub goes in this process."""
    from huggingface_hub import constants

    with loopback.Hub() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    """Fetches a split of a data set of such files; returns its rows."""

    def run(files, split="train"):
        server.add("dataset", NAME).files |= files
        server.downloads.clear()
        out = Path(tempfile.mkdtemp(dir=tmp_path))
        datasets.from_hub(NAME, loopback.REVISION, [split], out, str(out / "state"))
        return list(records.read_split(out, split, dict))

    return run


def refusal(fetch, files, split="train"):
    """The one line with which a fetch ends."""
    with pytest.raises(StudyError) as error:
        fetch(files, split)
    assert "\n" not in str(error.value)
    return str(error.value)


@attack(
    "data sets",
    "the card or the name gives a split a file of another kind: `.arrow`, `.txt`, `.py`, `.zip`, `.gz`",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: data/train.{kind}: expected a file of parquet, json, jsonl or "
    "csv, or one with .gz or .zst behind it, found another; set `path:` to a converted copy",
)
@pytest.mark.parametrize("kind", ["arrow", "txt", "py", "zip", "xlsx", "gz", "jsonl.bz2", "JSONL"])
def test_other_kinds_of_files_are_refused(fetch, server, kind, outcome):
    """`load_dataset` takes a suffix that it does not know for the name of a data set on the hub, at any commit."""
    line = refusal(fetch, {"README.md": card(f"data/train.{kind}"), f"data/train.{kind}": LINES})
    assert line == outcome.format(kind=kind)
    assert not [path for path in server.downloads if path != "README.md"]


@pytest.mark.parametrize(("suffix", "codec"), [("gz", "gzip"), ("zst", "zstd")])
def test_compressed_files_are_read(fetch, suffix, codec):
    table = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), table)
    texts = {"jsonl": LINES, "json": json.dumps(ROWS).encode(), "parquet": table.getvalue(), "csv": CSV.encode()}
    for kind, text in texts.items():
        content = pa.compress(text, codec, asbytes=True) if codec == "zstd" else gzip.compress(text)
        assert fetch({"README.md": card("x"), "x": b"", f"data/{kind}-0.{kind}.{suffix}": content}, kind) == ROWS


def test_a_csv_file_keeps_its_texts(fetch):
    """As pandas reads them: quoted lines, and `NA` for no value."""
    lines = 'prompt,response,n\n"a, ""b""\nc",NA,1\n2024-05-01,7 x ,\n'
    rows = [{"prompt": 'a, "b"\nc', "response": None, "n": 1}, {"prompt": "2024-05-01", "response": "7 x ", "n": None}]
    assert fetch({"train.csv": lines.encode()}) == rows


def test_an_array_may_lack_keys_in_its_first_row(fetch):
    rows = [{"prompt": "a"}, {"prompt": "2024-05-01", "response": "b"}]
    assert fetch({"train.json": b"\xef\xbb\xbf" + json.dumps(rows).encode()}) == [
        {**rows[0], "response": None},
        rows[1],
    ]


@attack(
    "data sets",
    "a split of files of several kinds",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: expected files of one kind in a split, found csv and jsonl; "
    "set `path:` to a copy with one of them",
)
def test_kinds_are_not_mixed(fetch, outcome):
    assert refusal(fetch, {"train.jsonl": LINES, "train.csv": b"prompt,response\na,b\n"}) == outcome


def test_the_files_of_a_split_are_of_one_form(fetch):
    line = refusal(fetch, {"train-0.jsonl": LINES, "train-1.jsonl": b'{"prompt": 1}\n'})
    assert line.startswith(f"{PLACE}: expected files of one form in split 'train', found Unable to merge: Field prompt")


@attack(
    "data sets",
    "a split's name matches the files of several splits: `train_sft`, `train_gen`",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: expected one set of files for split 'train', found "
    "data/train_gen, data/train_sft; name one of them, or set `path:` to a copy",
)
def test_files_of_several_splits_are_not_joined(fetch, outcome):
    names = ("train_sft-00000-of-00002", "train_sft-00001-of-00002", "train_gen-00000-of-00001")
    assert refusal(fetch, {f"data/{name}.jsonl": LINES for name in names}) == outcome
    assert len(fetch({f"data/{name}.jsonl": LINES for name in names}, "train_sft")) == 2 * len(ROWS)
    line = refusal(fetch, {"latest.jsonl": LINES}, "test")
    assert "expected split 'test', found no file with that in its name" in line


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["train.jsonl", "train_gen.jsonl", "my_train.jsonl"], 1),
        (["data/train-00000-of-00002-3f5e9c11aa027b4d.jsonl", "data/train-00001-of-00002-07c2d9e8f5a1b360.jsonl"], 2),
        (["train/0000.jsonl", "train/0001.jsonl", "test/0000.jsonl"], 2),
        (["train_0.jsonl", "train_1.jsonl", "train.md"], 2),
        (["train.jsonl", "data/.ipynb_checkpoints/train.jsonl"], 1),
        (["alpaca_train.jsonl.gz"], 1),
    ],
)
def test_the_files_of_a_split_by_name(fetch, names, read):
    contents = {name: gzip.compress(LINES) if name.endswith(".gz") else LINES for name in names}
    assert len(fetch(contents)) == read * len(ROWS)


# What would exhaust the memory, or end the process


@attack(
    "data sets",
    "a few kB of JSONL, gzipped, that become gigabytes",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: train.jsonl.gz: expected at most 0.00391 GiB of rows, found "
    "more; take another file, or a part of it in a copy (`path:`)",
)
def test_a_decompressed_file_has_a_limit(fetch, monkeypatch, outcome):
    monkeypatch.setattr(readers, "LARGEST", 2**22)
    assert refusal(fetch, {"train.jsonl.gz": gzip.compress(bytes(2**24))}) == outcome


@attack("data sets", "a parquet file of a few kB in which a long text stands a million times", "refused in one line")
def test_rows_have_a_limit(fetch, monkeypatch):
    monkeypatch.setattr(readers, "LARGEST", 2**22)
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": ["x" * 10_000] * 2000}), table)
    assert "train.parquet: expected at most 0.00391 GiB of rows" in refusal(
        fetch, {"train.parquet": table.getvalue().to_pybytes()}
    )


@attack("data sets", "rows of which each has a key of its own: a table of terabytes", "refused in one line")
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_rows_times_columns_have_a_limit(fetch, monkeypatch, kind):
    monkeypatch.setattr(readers, "MOST_CELLS", 10_000)
    rows = {"jsonl": "".join(f'{{"k{i}": 1}}\n' for i in range(200)), "csv": ",".join("abc" * 50) + "\n" + "1\n" * 200}
    message = "expected at most 1e\\+04 values in rows, found 20. with [12].. different keys; leave out columns"
    assert re.search(message, refusal(fetch, {f"train.{kind}": rows[kind].encode()}))


@attack(
    "malformed",
    "200,000 brackets in each other in JSON, at which pyarrow ends the process",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: train.jsonl: expected at most 100 lists and objects in each "
    "other, found more; take another file, or a flat copy (`path:`)",
)
def test_brackets_without_end_are_refused(fetch, outcome):
    closed = b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    for line in (closed, b'{"a":\n' * 200_000, b'{"\\"": "\\\\", "a": ' + b"[" * 200_000):
        assert refusal(fetch, {"train.jsonl": LINES + line}) == outcome
    assert fetch({"train.jsonl": LINES + json.dumps({"prompt": "[" * 200_000 + '"{'}).encode()})[3]["response"] is None


# Cards


def card(path):
    return f"---\nconfigs:\n- data_files:\n  - split: train\n    path: {path}\n---\n".encode()


@attack(
    "data sets",
    "a card with aliases that multiply (a YAML bomb)",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: README.md: expected at most 200000 keys and values, found "
    "1.65e+12 behind aliases; write them out",
)
def test_aliases_of_a_card_do_not_multiply(fetch, outcome):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 20)}]" for i in range(1, 10))]
    assert refusal(fetch, {"README.md": "\n".join(["---", *lines, "---"]).encode(), "train.jsonl": LINES}) == outcome


@attack("malformed", "a card that is not of the form that `datasets` documents", "refused in one line")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]", "expected keys with values, found a list"),
        ("text", "expected keys with values, found 'text'"),
        ("configs: {a: b}", "configs: expected a list, found keys with values"),
        ("configs: 5", "configs: expected a list, found 5"),
        ("configs: [5]", "configs: expected keys with values, found 5"),
        ("configs: [{data_files: 5}]", "data_files: expected `split` and `path` of text, found 5"),
        ("configs: [{data_files: {train: a}}]", "data_files: expected `split` and `path` of text, found keys with"),
        ("configs: [{data_files: [{split: train}]}]", "data_files: expected `split` and `path` of text, found keys"),
        ("configs: [{data_files: [{path: a}]}]", "data_files: expected `split` and `path` of text, found keys"),
        ("configs: [{data_files: [{split: train, path: 5}]}]", "data_files: expected `split` and `path` of text"),
        ("configs: [{data_files: [{split: train, path: [[a]]}]}]", "data_files: expected `split` and `path` of text"),
        ("configs: [{data_files: [{split: [a], path: a}]}]", "data_files: expected `split` and `path` of text"),
        ("configs: [{data_files: [null]}]", "data_files: expected `split` and `path` of text, found nothing"),
        ("configs: [{data_files: [{split: a, path: a}, {split: a, path: b}]}]", "expected a split once, found a twice"),
        ("configs: &a [*a]", "expected at most 200000 keys and values, found no end of them behind aliases"),
        ("a: !!python/object/apply:os.system [true]", "expected YAML: could not determine a constructor for the tag"),
        ("a: 2024-13-45", "expected YAML, found month must be in 1..12"),
        ("a: " + "9" * 5000, "expected YAML, found a number of more than 40"),
        ("a: [b", "expected YAML: expected ',' or ']'"),
        ("a: \x07", "expected YAML, found unacceptable character #x0007"),
        ("a: " + "[" * 20_000, "expected YAML a few levels deep, found brackets nested without end"),
        ("? [a]\n: b", "expected YAML: found unhashable key"),
        ("a: b\n" * 500_000, "expected at most 2 MiB of YAML, found more"),
        ("\udcff: a", "expected UTF-8, found other bytes; take another commit"),
    ],
)
def test_a_card_of_the_wrong_form_is_one_line(fetch, text, message):
    content = f"---\n{text}\n---\n".encode(errors="surrogateescape")
    line = refusal(fetch, {"README.md": content, "train.jsonl": LINES})
    assert re.match(rf"{PLACE}: README.md(:\d+)?: ", line)
    assert message in line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "configs:",
        "configs: []",
        "license: mit",
        "configs: [{data_files: []}]",
        "configs: [{data_dir: data}]",
    ],
)
def test_a_card_without_splits_is_passed_over(fetch, capsys, text):
    assert fetch({"README.md": f"---\n{text}\n---\n\xff".encode("latin1"), "train.jsonl": LINES}) == ROWS
    assert (
        f"fetch: {PLACE}: README.md: no files of splits are named; they are taken by their names"
        in capsys.readouterr()[0]
    )


@pytest.mark.parametrize(
    "path", ["data/*.jsonl", "./data/a.jsonl", "[data/a.jsonl]", "data/**", "'**/a.jsonl'", "'*/*'"]
)
def test_the_patterns_of_a_card(fetch, path):
    """As `datasets` reads them: `*` stays in its folder, and files that are no rows do not count."""
    others = {"data/README.md": b"x", "data/.a": b"x", "data/dataset_info.json": b"{}", "train.txt": b"x"}
    others |= {"a/b/c.jsonl": b"", "data/b/c.txt": b""} if "*/" not in path and "**" not in path else {}
    assert fetch({"README.md": card(path), "data/a.jsonl": LINES, **others}) == ROWS


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        ("[{config_name: x, data_files: b/*}, {config_name: y, default: true, data_files: a/*}]", "a/x.jsonl"),
        (
            "[{config_name: x, data_files: b/*}, {config_name: default, data_files: [a/x.jsonl, a/y.jsonl]}]",
            "a/x.jsonl",
        ),
        ("[{config_name: x, data_files: '*.jsonl'}]", "x.jsonl"),
        ("[{config_name: x, data_files: 'x[1].jsonl'}]", "x[1].jsonl"),
        ("[{config_name: x, data_files: '**/*.jsonl'}]", "x.jsonl"),
    ],
)
def test_the_default_configuration_of_a_card(fetch, capsys, configs, name):
    """Files without a split are of `train`, whatever they are called."""
    files = {name: LINES, "b/train.txt": b"x", "b/z.txt": b"x"}
    assert fetch({"README.md": f"---\nconfigs: {configs}\n---\n".encode(), **files}) == ROWS
    assert "configurations" not in capsys.readouterr()[0]


@attack(
    "data sets",
    "a card with 50,000 patterns for a listing of as many files, whose comparison takes days",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: README.md: data_files: expected at most 5 comparisons, found "
    "2 patterns for 3 files; take another commit, or set `path:` to a copy of its files",
)
def test_patterns_times_files_have_a_limit(fetch, monkeypatch, outcome):
    monkeypatch.setattr(cards, "MOST_PAIRS", 5)
    files = {"README.md": card("['a*', 'b*', a.jsonl]"), "x": b"", "y": b"", "a.jsonl": LINES}
    assert refusal(fetch, files) == outcome


def test_files_of_a_card_that_are_not_there_are_not_replaced(fetch):
    line = refusal(fetch, {"README.md": card("data/train-*"), "other/train.jsonl": LINES})
    assert "expected split 'train', found no file like data/train-*; correct the split in the config" in line


def test_several_configurations_without_a_default(fetch, capsys):
    configs = "[{config_name: main, data_files: a/*}, {config_name: other, data_files: b/*}]"
    assert fetch({"README.md": f"---\nconfigs: {configs}\n---\n".encode(), "a/x.jsonl": LINES}) == ROWS
    assert "of 2 configurations without a default the first is read: main\n" in capsys.readouterr()[0]


@attack(
    "data sets",
    "a card whose files are elsewhere: `../../etc/passwd`, `/etc/passwd`, `https://...`",
    "lab/chats@0123456789abcdef0123456789abcdef01234567: README.md: data_files: {path}: expected the name of a file "
    "below its folder, found {found}; use no such file",
)
@pytest.mark.parametrize(
    ("path", "found"),
    [("../x.jsonl", "`..`"), ("/tmp/x.jsonl", "an absolute path"), ("https://x.jsonl", "an empty part")],
)
def test_the_files_of_a_card_lie_in_its_repository(fetch, tmp_path, path, found, outcome):
    """`datasets`, with which tasks are read, opens any file and any address that a card names."""
    files = {"README.md": card(path), "train.jsonl": LINES}
    message = outcome.format(path=path, found=found)
    assert refusal(fetch, files) == message
    with pytest.raises(StudyError) as error:
        tasks.fetch(TaskSource(hub=NAME, revision=loopback.REVISION), tmp_path / "tasks", str(tmp_path / "state"))
    assert str(error.value) == message


# Local folders


@attack(
    "data sets",
    "a local file that is a named pipe or leads to a device, which would be read for ever",
    "{name}: expected a file, found a {kind}; remove it",
)
@pytest.mark.parametrize(("kind", "make"), [("named pipe", os.mkfifo), ("device", partial(os.symlink, "/dev/zero"))])
def test_local_sources_are_files(tmp_path, monkeypatch, kind, make, outcome):
    monkeypatch.chdir(tmp_path)
    sources = {
        "train.jsonl": lambda: datasets.from_folder(".", ["train"], tmp_path / "out"),
        "train.parquet": lambda: datasets.from_folder(".", ["train"], tmp_path / "out"),
        "config.json": lambda: models.fetch(Model(path="."), tmp_path / "out", ""),
        "tasks.yaml": lambda: tasks.fetch(TaskSource(path="."), tmp_path / "out", ""),
    }
    for name, read in sources.items():
        make(name)
        with pytest.raises(StudyError) as error:
            read()
        assert str(error.value) == outcome.format(name=name, kind=kind)
        os.unlink(name)
