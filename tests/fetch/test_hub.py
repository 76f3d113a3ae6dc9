"""Fetches from a hub on loopback: complete, resumed, checked, and without a trace of the token."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hub as loopback
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import workflow
import yaml

from wspin.config.sources import Model, TaskSource
from wspin.data import records
from wspin.errors import StudyError
from wspin.fetch import models, tasks
from wspin.models import folders
from wspin.storage.files import sha256

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
MODEL, DATA = "lab/tiny", "lab/chats"
# fetch.py without the checks of a model, which import transformers; they refuse one EOS.
UNCHECKED = f"""
import runpy, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from wspin.errors import StudyError
from wspin.fetch import models
def check(folder, template, eos, place):
    if eos == "<x>":
        raise StudyError(f"{{place}}: refused")
models.check = check
sys.argv[0] = "fetch.py"
runpy.run_path({str(SCRIPTS / "fetch.py")!r}, run_name="__main__")
"""
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train_sft
    path: data/train_sft-*
  - split: test_sft
    path: data/test_sft-*
---
# Chats
"""


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A data set as the study's: splits in several files, and files of other splits beside them."""
    folder = tmp_path_factory.mktemp("chats")
    (folder / "data").mkdir()
    (folder / "README.md").write_text(CARD)
    for name in ("train_sft-00000-of-00002", "train_sft-00001-of-00002", "test_sft-00000-of-00001", "train_gen-00000"):
        rows = [{"prompt": f"{name} {i}", "messages": conversation(f"{name} {i}")} for i in range(40)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{name}.parquet")
    return folder


def conversation(text):
    return [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]


@pytest.fixture
def hub(scratch_model, chats):
    with loopback.Hub() as hub:
        model = hub.add("model", MODEL, scratch_model)
        model.files |= {"onnx/model.safetensors": b"x" * 9, "training_args.bin": b"x" * 9, "README.md": b"# Tiny"}
        hub.add("dataset", DATA, chats)
        yield hub


@pytest.fixture
def fetch(hub, tmp_path):
    """Runs fetch.py against the hub in a process of its own, as the rule does; `checked`: the model is checked too."""

    def run(
        what,
        *flags,
        token=None,
        endpoint=None,
        revision=loopback.REVISION,
        wait=True,
        expect=0,
        offline=False,
        checked=False,
    ):
        program = [str(SCRIPTS / "fetch.py")] if checked else ["-c", UNCHECKED]
        command = [sys.executable, *program, what, "--hub", {"data": DATA}.get(what, MODEL)]
        command += ["--revision", revision, "--state", str(tmp_path / "state"), "--output", str(tmp_path / "out")]
        command += ["--output-manifest", str(tmp_path / "manifest.json")] if what == "model" else []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {**kept, "HF_ENDPOINT": endpoint or hub.url, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_TOKEN": token} if token else {}
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": tmp_path}
        process = subprocess.Popen([*command, *flags], env=environment, **streams)
        if not wait:
            return process
        output = process.communicate(timeout=100)[0]
        assert process.returncode == expect, output
        return output

    return run


def error(output):
    """The error line of a failed fetch."""
    lines = [line for line in output.splitlines() if not line.startswith("fetch: ")]
    assert len(lines) == 1, output
    return lines[0].removeprefix("fetch.py: error: ")


# Models


def test_a_model_comes_whole_and_no_other_file(fetch, hub, tmp_path, scratch_model):
    output = fetch("model", "--template", "human-assistant", "--eos", "<|endoftext|>", checked=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in scratch_model.iterdir()} | {"provenance.json"}
    assert json.loads((tmp_path / "manifest.json").read_text())["files"] == {
        name: sha256(scratch_model / name) for name in names - {"provenance.json"}
    }
    assert folders.load_model(tmp_path / "out", "cpu").num_parameters() > 0
    assert f"fetch: {MODEL}@{loopback.REVISION}: config.json (" in output
    assert "\r" not in output
    assert not list((tmp_path / "state").iterdir())  # partial downloads are removed


MEBIBYTE = 2**20


@pytest.fixture
def large(hub):
    """Weights of four mebibytes."""
    weights = bytes(range(256)) * (4 * MEBIBYTE // 256)
    hub.repos[f"model/{MODEL}"].files["model.safetensors"] = weights
    return weights


def test_a_broken_connection_is_resumed(fetch, hub, large, tmp_path):
    hub.break_after["model.safetensors"] = MEBIBYTE
    output = fetch("model")
    assert hub.ranges == [f"bytes={MEBIBYTE}-"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == large
    assert hub.url not in output  # a storage's address may be signed


def test_a_killed_fetch_is_resumed(fetch, hub, large, tmp_path):
    """After kill -9, complete files are not sent again, nor the downloaded part of the unfinished one."""
    hub.stalled = "model.safetensors"
    process = fetch("model", wait=False)
    size = kill_after_a_mebibyte(process, tmp_path / "state")
    assert not (tmp_path / "out").exists()
    hub.stalled = ""
    fetch("model")
    assert hub.ranges == [f"bytes={size}-"]
    assert hub.downloads["config.json"] == 1
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == large


def test_two_fetches_of_one_model_wait_for_each_other(fetch, hub, large, tmp_path):
    hub.stalled = "model.safetensors"
    first = fetch("model", "--output", str(tmp_path / "one"), wait=False)
    wait_until(lambda: received(tmp_path / "state"))
    second = fetch("model", "--output", str(tmp_path / "two"), wait=False)
    assert "waiting for it to end" in second.stdout.readline()
    hub.stalled = ""
    outputs = [process.communicate(timeout=100)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert all((tmp_path / name / "model.safetensors").read_bytes() == large for name in ("one", "two"))


def received(state):
    """Bytes of the largest unfinished file; 0 if it was finished in between."""
    with contextlib.suppress(FileNotFoundError):
        return max((part.stat().st_size for part in state.rglob("partial/*")), default=0)
    return 0


def kill_after_a_mebibyte(process, state):
    """Kill a fetch when that much of a file has come; returns the bytes that stay."""
    wait_until(lambda: received(state) >= MEBIBYTE)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return received(state)


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_wrong_file_is_refused_and_fetched_again(fetch, hub, tmp_path, path):
    """Small files are checked by git's id, large ones by sha256; a wrong file is deleted."""
    repo = hub.repos[f"model/{MODEL}"]
    repo.corrupted[path] = repo.files[path].swapcase()
    line = error(fetch("model", expect=1))
    assert line.startswith(f"{MODEL}@{loopback.REVISION}: {path}: expected checksum ")
    assert ", found " in line
    assert "run again" in line
    assert not (tmp_path / "out").exists()
    repo.corrupted.clear()
    fetch("model")
    assert (tmp_path / "out" / path).read_bytes() == repo.files[path]


def test_a_model_without_safetensors_is_refused(fetch, hub, tmp_path):
    del hub.repos[f"model/{MODEL}"].files["model.safetensors"]
    assert "expected weights as safetensors, found none; convert the checkpoint" in error(fetch("model", expect=1))
    assert not (tmp_path / "manifest.json").exists()


def test_a_refused_model_is_not_fetched_again(fetch, hub, tmp_path):
    """What was downloaded stays until the checks have passed; their messages name the repository."""
    line = error(fetch("model", "--eos", "<x>", expect=1))
    assert line == f"{MODEL}@{loopback.REVISION}: refused"
    assert not (tmp_path / "out").exists()
    fetch("model", "--eos", "<|endoftext|>")
    assert hub.downloads["model.safetensors"] == 1


def test_a_fetch_needs_a_folder_for_unfinished_downloads(tmp_path):
    with pytest.raises(
        StudyError, match=r"lab/tiny@main: --state: expected a folder for unfinished .*, found none; name one"
    ):
        models.fetch(Model(hub=MODEL, revision=loopback.REVISION).model_copy(update={"revision": None}), tmp_path, None)


# What the hub refuses


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"revision": "f" * 40}, "expected that commit, found none; take one from {url}/lab/tiny/commits/main"),
        ({"gated": True}, {}, "gated repository, found none (no HF_TOKEN is set); accept its terms at {url}/lab/tiny"),
        ({"gated": True, "allowed": False}, {"token": True}, "gated repository, found none (HF_TOKEN is set); accept"),
        ({"private": True}, {}, "expected a model, found none that this account may see (no HF_TOKEN is set); check"),
        ({"gone": True}, {"token": True}, "found none that this account may see (HF_TOKEN is set); check its name"),
        ({}, {"endpoint": "http://127.0.0.1:9"}, "expected to reach http://127.0.0.1:9, found ConnectError; check"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(fetch, hub, tmp_path, change, options, message):
    repo = hub.repos[f"model/{MODEL}"]
    repo.gated, repo.private = change.get("gated", False), change.get("private", False)
    hub.allowed = change.get("allowed", True)
    if change.get("gone"):
        hub.repos.clear()
    options = {**options, **({"token": hub.token} if options.get("token") else {})}
    line = error(fetch("model", expect=1, **options))
    assert message.format(url=hub.url) in line
    assert hub.token not in line
    assert not (tmp_path / "out").exists()


def test_offline_is_one_line(fetch):
    assert "HF_HUB_OFFLINE is set; unset it where the hub can be reached" in error(
        fetch("model", offline=True, expect=1)
    )


# The token


def test_the_token_reaches_the_hub_and_nothing_else(fetch, hub, tmp_path):
    """Not the output, a file or the list of processes, even if the hub quotes it in an error."""
    hub.repos[f"model/{MODEL}"].gated = True
    process, commands = fetch("model", token=hub.token, wait=False), []
    while process.poll() is None:
        try:
            commands.append(" ".join(psutil.Process(process.pid).cmdline()))
        except psutil.Error:
            break
        time.sleep(0.01)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert hub.token in hub.tokens
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for text in (*files, output.encode(), *map(str.encode, commands)):
        assert hub.token.encode() not in text
    hub.allowed = False
    assert hub.token not in fetch("model", token=hub.token, expect=1)


# Data sets


def test_a_killed_fetch_of_a_data_set_is_resumed(fetch, hub, tmp_path):
    """Its card is fetched again, and does not remove the partial download."""
    path, noise = "data/train_sft-00000-of-00001.parquet", os.urandom(2 * MEBIBYTE)
    table = pa.table({"prompt": [noise[i : i + 10_000].hex() for i in range(0, len(noise), 10_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    hub.repos[f"dataset/{DATA}"].files = {"README.md": CARD.encode(), path: sink.getvalue().to_pybytes()}
    hub.stalled = path
    process = fetch("data", "--splits", "train_sft", wait=False)
    size = kill_after_a_mebibyte(process, tmp_path / "state")
    hub.stalled = ""
    fetch("data", "--splits", "train_sft")
    assert hub.ranges == [f"bytes={size}-"]
    assert pq.read_table(tmp_path / "out/train_sft.parquet")["prompt"].to_pylist() == table["prompt"].to_pylist()


def test_the_splits_of_a_data_set(fetch, hub, tmp_path):
    """Of all files only those that the card names for them; the rows in the order of the files."""
    fetch("data", "--splits", "test_sft", "train_sft")
    rows = records.read_split(tmp_path / "out", "train_sft", records.first_turn)
    assert len(rows) == 80
    assert rows[0] == ("train_sft-00000-of-00002 0", "0 20000-fo-00000-tfs_niart")
    assert rows[79][0] == "train_sft-00001-of-00002 39"
    assert len(records.read_split(tmp_path / "out", "test_sft", records.first_turn)) == 40
    assert not [request for request in hub.requests if "train_gen" in request]
    assert not list((tmp_path / "state").iterdir())


def test_splits_by_the_names_of_files(fetch, hub, tmp_path):
    hub.repos[f"dataset/{DATA}"].files["README.md"] = b"no card at all"
    fetch("data", "--splits", "test_sft")
    assert len(records.read_split(tmp_path / "out", "test_sft", records.first_turn)) == 40


def test_answers_of_lines_that_look_like_dates_stay_texts(fetch, hub, tmp_path):
    rows = [{"prompt": f"When? {i}", "response": f"2024-05-0{i}"} for i in (1, 2)]
    lines = {f"data/train_sft-{i}.jsonl": json.dumps(row).encode() + b"\n" for i, row in enumerate(rows)}
    hub.repos[f"dataset/{DATA}"].files = {"README.md": CARD.encode(), **lines}
    fetch("data", "--splits", "train_sft")
    assert list(records.read_split(tmp_path / "out", "train_sft", dict)) == rows


def test_files_of_lines_may_differ_in_what_a_row_lacks(fetch, hub, tmp_path):
    """pyarrow infers the types of each file by itself."""
    names, scores, tags = (None, "a"), (1, 0.5), ([], ["x"])
    rows = [
        {"messages": [{"role": role, "content": role, "name": name} for role in ("user", "assistant")]}
        for name in names
    ]
    rows = [row | {"score": score, "tags": tag} for row, score, tag in zip(rows, scores, tags, strict=True)]
    lines = {f"data/train_sft-{i}.jsonl": json.dumps(row).encode() + b"\n" for i, row in enumerate(rows)}
    hub.repos[f"dataset/{DATA}"].files = {"README.md": CARD.encode(), **lines}
    fetch("data", "--splits", "train_sft")
    assert list(records.read_split(tmp_path / "out", "train_sft", dict)) == rows


def test_an_unknown_split_is_one_line(fetch, hub):
    line = error(fetch("data", "--splits", "validation", expect=1))
    assert line.endswith("expected split 'validation', found test_sft, train_sft; correct the split in the config")


# Tasks


def test_the_data_of_lm_evals_own_tasks(fetch, hub, tmp_path):
    """A folder named as the data set, with its card and its files but no script."""
    others = {"chats.py": b"print()", ".ipynb_checkpoints/rows.json": b"{}", "data/.rows.json": b"{}"}
    hub.repos[f"dataset/{DATA}"].files |= others
    fetch("tasks", "--hub", DATA)
    paths = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    names = hub.repos[f"dataset/{DATA}"].files.keys() - others
    assert paths == {"provenance.json", *(f"{DATA}/{name}" for name in names)}


def test_a_local_copy_of_that_data(chats, tmp_path):
    source = TaskSource(hub=DATA, path=str(chats))
    tasks.fetch(source, tmp_path / "out", "nowhere")
    assert (tmp_path / "out" / DATA / "README.md").read_text() == CARD
    with pytest.raises(StudyError, match=r"expected a folder with \*.parquet, .* found none"):
        tasks.fetch(source.model_copy(update={"path": str(tmp_path / "state")}), tmp_path / "other", "nowhere")


# The lock file


def test_missing_commits_are_looked_up_once(hub, tmp_path, repository):
    """A name without a revision is refused until its commit is known, and has that one from then on."""
    study = repository.copy(tmp_path / "study").overlay({"models": {"base": {"hub": MODEL, "revision": None}}})
    target = "results/base/manifest.json"
    assert "`make revisions` looks up missing commits" in study.run("-n", target).stdout
    environment = {**workflow.environment(), "HF_ENDPOINT": hub.url}
    command = [sys.executable, "workflow/scripts/manage.py", "revisions", "--configfile", *study.configfiles]
    for flags, count in (((), 1), ((), 1), (("--renew", MODEL), 2)):
        result = subprocess.run([*command, *flags], env=environment, cwd=study.folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert len([request for request in hub.requests if "/api/models/" in request]) == count
    lock = study.folder / "config" / "revisions.lock.yaml"
    assert yaml.safe_load(lock.read_text()) == {"model": {MODEL: loopback.REVISION}}
    assert f"--hub {MODEL} --revision {loopback.REVISION}" in study.run("-n", target).stdout
    lock.write_text("model: {lab/tiny: main}\n")
    assert "config/revisions.lock.yaml: expected names with the 40 hex digits of a commit" in study.run("-n").stdout
