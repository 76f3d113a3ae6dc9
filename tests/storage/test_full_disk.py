"""A write that fails names the path that was to be written, and leaves nothing of it."""

import contextlib
import json
import resource
from functools import partial
from types import SimpleNamespace

import pytest

from wspin.exchange import jsonl
from wspin.generate.answer import Answer
from wspin.generate.sampling import AnswerStore
from wspin.models import folders
from wspin.storage import files, provenance, tables
from wspin.storage.locks import locked
from wspin.train import journal

ROW = {"prompt_id": ["a"], "prompt": ["b"], "response": ["c"], "split": ["train"]}


@contextlib.contextmanager
def full_disk():
    """Files can be created, but not written to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def hold(path):
    with locked(path.with_suffix("")):
        pass


def append_curve(path):
    writer = journal.Journal.__new__(journal.Journal)
    writer.curve = path
    writer.on_log(None, SimpleNamespace(global_step=1), None, {"loss": 1.0})


def copy(source, path):
    with files.whole_folder(path) as folder:
        journal.shutil.copyfile(source, folder / "file")


def export(pair, path):
    with files.whole_file(path) as temporary:
        jsonl.write(temporary, [pair], "tis-dpo")


@pytest.fixture
def writers(model, scratch_model):
    pair = jsonl.Pair("row 1", "prompt", "chosen", "rejected")
    return {
        "a.parquet": lambda path: tables.write(path, "prompts", ROW, {}),
        "a.json": lambda path: files.write_json(path, {}),
        "scores.json": lambda path: files.write_checked_json(path, {}),
        "config.yaml": lambda path: files.write_yaml(path, {"a": 1}),
        "x.provenance.json": lambda path: provenance.write_record(path.with_name("x"), {}),
        "model": lambda path: folders.publish(model, scratch_model, path, path.with_suffix(".json")),
        "manifest.json": partial(folders.write_manifest, scratch_model),
        "digests.json": partial(files.write_digests, scratch_model),
        "metrics.jsonl": append_curve,
        "complete": lambda path: journal.mark_complete(path.parent),
        "pairs.jsonl": partial(export, pair),
        "state.lock": hold,
        "copy": partial(copy, scratch_model / "config.json"),
    }


def test_every_writer_names_its_path_and_leaves_nothing(writers, tmp_path):
    messages = {}
    for name, write in writers.items():
        folder = tmp_path / name
        folder.mkdir()
        with full_disk(), pytest.raises(OSError) as error:
            write(folder / name)
        path = str(error.value.filename)
        assert path == f"{folder}/{name}" or path.startswith(f"{folder}/{name}/"), (name, path)
        messages[name] = error.value.strerror
        left = [file for file in folder.rglob("*") if file.name != "metrics.jsonl"]  # cut back when it is resumed
        assert left == [], name
    assert all("File too large" in text or "is the disk full?" in text for text in messages.values()), messages


def test_answers_that_cannot_be_kept(tmp_path):
    """What was kept before stays."""
    store = AnswerStore(tmp_path, 2, 9)
    store.add(0, Answer([1, 2], "stop"))
    with full_disk(), pytest.raises(OSError) as error:
        store.add(1, Answer([3], "stop"))
    assert error.value.filename == str(tmp_path / "answers.jsonl")
    assert list(AnswerStore(tmp_path, 2, 9).answers) == [0]


def test_a_lock_is_free_after_a_failed_write(tmp_path):
    with full_disk(), pytest.raises(OSError):
        hold(tmp_path / "state.lock")
    with locked(tmp_path / "state", wait=False) as free:
        assert free
        assert json.loads((tmp_path / "state.lock").read_text().split(" on ")[0]) > 0
