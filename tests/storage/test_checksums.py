"""A stored file is read back as it was written, or refused: no single bit of it may change without a word."""

import inspect
import json
import random
import re
import shutil
from argparse import Namespace
from functools import partial
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks import attack
from results import SCORES

from wspin import cli
from wspin.data import selection
from wspin.errors import StudyError
from wspin.models import folders
from wspin.report.comparison import read_averages
from wspin.report.scores import read_scores
from wspin.storage import code_hash, provenance, tables
from wspin.storage.files import check_digests, read_json, sha256, write_checked_json, write_digests

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


@pytest.fixture
def many(tmp_path):
    """Generations with more rows than a head."""
    path, count = tmp_path / "00.parquet", 3 * tables.HEAD_ROWS
    rows = {"prompt_id": [f"t-{i}" for i in range(count)], "response": ["x"] * count}
    rows |= {"token_ids": [[i, 7] for i in range(count)], "finish_reason": ["stop"] * count}
    tables.write(path, "generations", rows, {"model": "aa"})
    return path


def test_the_first_rows_are_those_of_the_file(many):
    """Also more than the head has, than the file has, and none; with the metadata."""
    table = tables.read(many, "generations")
    for count in (0, 2, tables.HEAD_ROWS, tables.HEAD_ROWS + 1, 10_000):
        first = tables.read(many, "generations", count=count, model="aa")
        assert first == table.slice(0, count)
        assert tables.metadata(first) == tables.metadata(table)
    with pytest.raises(StudyError, match="model: expected 'bb', found 'aa'"):
        tables.read(many, "generations", count=2, model="bb")
    with pytest.raises(StudyError, match="expected a file of generations, found none"):
        tables.read(many.with_name("01.parquet"), "generations", count=2)


def test_no_bit_that_the_first_rows_need_changes_unnoticed(many):
    """Pages, the checksums, the footer; only what is not read may be damaged."""
    size, group = many.stat().st_size, pq.ParquetFile(many).metadata.row_group(1).column(0)
    others = range(8 * group.dictionary_page_offset, 8 * many.read_bytes().index(b"wspin-head:"))
    whole = many.read_bytes().index(b"wspin-sha256:")
    bits = [*range(0, others.start, 71), *others[::997], *range(others.stop, 8 * size, 37)]
    silent = unnoticed(many, partial(tables.read, many, "generations", count=3), bits)
    assert [bit for bit in silent if bit not in others and not 0 <= bit // 8 - whole < 83] == []
    assert set(silent) >= set(others[::997])
    assert unnoticed(many, partial(tables.read, many, "generations"), bits[::5]) == []


def test_a_head_of_another_file(many, tmp_path):
    """A cut file, and one whose last bytes give a footer beyond its beginning."""
    content = many.read_bytes()
    for damaged in (content[:-1], content[-500:], content[:-8] + b"\xff" * 4 + content[-4:], b"", b"PAR1"):
        many.write_bytes(damaged)
        with pytest.raises(StudyError, match=r"00\.parquet: expected .*; delete it and run again$"):
            tables.read(many, "generations", count=2)


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


# Models and their manifests


@pytest.fixture
def model(scratch_model, tmp_path):
    """(folder, manifest) of a model of the test's own."""
    folder, manifest = tmp_path / "model", tmp_path / "manifest.json"
    shutil.copytree(scratch_model, folder)
    folders.write_manifest(folder, manifest)
    return folder, manifest


def test_no_bit_of_a_model_changes_unnoticed(model):
    folder, manifest = model
    read = partial(folders.verified_hash, folder, manifest)
    files = sorted(folder.iterdir())
    assert {file.name for file in files} >= {"model.safetensors", "tokenizer.json", "config.json"}
    assert {file.name: unnoticed(file, read, drawn_bits(file, 8)) for file in files} == {f.name: [] for f in files}


def test_no_bit_of_a_manifest_changes_unnoticed(model):
    read = partial(folders.read_manifest, model[1])
    assert unnoticed(model[1], read, range(0, 8 * model[1].stat().st_size, 7)) == []


def test_a_model_with_another_file_than_its_manifest(model):
    """`from_pretrained` would read it."""
    folder, manifest = model
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    count = len(json.loads(manifest.read_text())["files"])
    expected = f"{folder}: expected the {count} files of {manifest}, found "
    with pytest.raises(StudyError) as error:
        folders.verified_hash(folder, manifest)
    assert str(error.value) == f"{expected}another file chat_template.jinja; make the model again"
    (folder / "chat_template.jinja").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(StudyError) as error:
        folders.verified_hash(folder, manifest)
    assert str(error.value) == f"{expected}no file config.json; make the model again"


def test_every_program_that_loads_a_model_compares_it_first():
    """Before the line that loads anything of it."""
    loads = "load_tokenizer(arguments.model)|load_model|load_engine|heldout_documents|harness.evaluate"
    for program in sorted(code_hash.SCRIPTS.glob("*.py")):
        text = program.read_text()
        if first := re.search(loads.replace("(", r"\(").replace(")", r"\)"), text):
            assert 0 < text.find("folders.verified_hash(") < first.start(), program.name
    assert "folders.verify_tokenizer" in inspect.getsource(selection.model_limits)


# Scores and records


def test_no_bit_of_a_score_file_changes_unnoticed(tmp_path):
    path = tmp_path / "sft/scores/demo.json"
    write_checked_json(path, {**SCORES, "model": "aa"})
    assert read_scores(tmp_path, ["sft"], ["demo"])[0].scores.model == "aa"
    read = partial(read_scores, tmp_path, ["sft"], ["demo"])
    assert unnoticed(path, read, range(0, 8 * path.stat().st_size, 11)) == []


def test_no_bit_of_a_record_changes_unnoticed(tmp_path):
    entry = {"program": "train", "code": "c0de", "command": ["train.py", "é"], "seconds": 1.5, "inputs": {}}
    provenance.write_record(tmp_path / "00.parquet", entry)
    path = provenance.record_path(tmp_path / "00.parquet")
    assert provenance.read_record(path) == entry
    assert unnoticed(path, partial(provenance.read_record, path), range(0, 8 * path.stat().st_size, 5)) == []


def test_no_bit_of_a_suites_tasks_changes_unnoticed(tmp_path):
    """Files of other formats have their hashes beside their folder."""
    folder = tmp_path / "tasks/demo"
    folder.mkdir(parents=True)
    (folder / "spell.yaml").write_text("task: spell\n")
    (folder / "rows.jsonl").write_text('{"question": "a"}\n')
    write_digests(folder, tmp_path / "tasks/demo.json")
    check = partial(check_digests, str(folder))
    check()
    for path in (folder / "spell.yaml", folder / "rows.jsonl", tmp_path / "tasks/demo.json"):
        assert unnoticed(path, check, range(0, 8 * path.stat().st_size, 5)) == []
    (folder / "rows.jsonl").unlink()
    with pytest.raises(StudyError, match=r"rows\.jsonl: expected the file of .*demo\.json, found none; fetch"):
        check()


def test_no_bit_of_a_table_of_averages_changes_unnoticed(tmp_path):
    path = tmp_path / "averages.csv"
    path.write_text("model,arm,iteration,average,low,high\nspin/ite0,spin,0,0.5,0.4,0.6\n")
    assert len(read_averages(path)) == 1
    cli.write_records(Namespace(program="report", started=0.0), [str(path)], [])
    assert unnoticed(path, partial(read_averages, path), range(8 * path.stat().st_size)) == []


def test_a_text_that_ends_as_a_checksum_does_is_none(tmp_path):
    """A path such as `nas:wspin/results` stands in the commands of records, before and behind their checksum."""
    path, value = tmp_path / "record.json", {"command": ["--output", "nas:wspin/results"], "at": "nas:wspin"}
    write_checked_json(path, value)
    assert read_json(path, "a record", "") == value
    path.write_text(json.dumps(value))
    assert read_json(path, "a record", "") == value


@attack(
    "paths",
    "hashes of fetched files that name one outside their folder",
    "tasks/../secret: expected the file of tasks.json, found none; fetch it again",
)
def test_hashes_name_no_file_outside_their_folder(tmp_path, monkeypatch, outcome):
    """That file would be read."""
    monkeypatch.chdir(tmp_path)
    Path("tasks").mkdir()
    Path("secret").write_text("x")
    write_checked_json("tasks.json", {"files": {"../secret": sha256("secret")}})
    with pytest.raises(StudyError) as refused:
        check_digests("tasks")
    assert str(refused.value) == outcome
