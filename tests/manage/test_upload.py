"""What is uploaded, what never is, and what is refused; the hub is a server on loopback."""

import json
import os
import re
import subprocess
import sys

import pytest
import results as made
import torch
import workflow
from attacks import attack
from hub import Hub
from safetensors.torch import load

from wspin.config.sources import Push
from wspin.errors import StudyError
from wspin.manage import upload

MODEL, TO = "wspin/ite3", "me/wspin-ite3"


@pytest.fixture
def hub():
    with Hub() as server:
        yield server


@pytest.fixture
def push(root, tmp_path, scratch_model, hub):
    """Runs the program on a study with a finished model; returns its exit code and what it told."""
    results = tmp_path / "results"

    def run(token=hub.token, **asked):
        section = {"model": MODEL, "to": TO, **asked} if asked.get("model", "") is not None else None
        made.study(root, results, **({"push": section} if section else {}))
        if not (results / MODEL).exists():
            made.put_model(results, MODEL, scratch_model)
            made.put_scores(results, MODEL)
        ours = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), **({"HF_TOKEN": token} if token else {})}
        command = [sys.executable, root / "workflow/scripts/manage.py", "push", "--results", results]
        environment = {**workflow.environment(), **ours}
        done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, timeout=120)
        assert not token or token not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    run.results = results
    return run


def test_the_model_goes_up_with_its_card(push, hub):
    code, told = push()
    assert (code, told) == (0, f"push: {MODEL} is at {hub.url}/{TO}\n")
    repo, folder = hub.repos[f"model/{TO}"], push.results / MODEL / "model"
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert repo.private
    assert set(repo.files) == {*manifest["files"], "README.md", "provenance.json"}
    assert all(repo.files[name] == (folder / name).read_bytes() for name in manifest["files"])
    assert b"50.00 \xc2\xb1 2.50" in repo.files["README.md"]
    assert not (push.results / ".state/push").exists() or os.listdir(push.results / ".state/push") == []


def test_weights_of_an_earlier_upload_go(push, hub):
    """Those in several files would be left beside the one file, and be loaded in its place."""
    earlier = hub.add("model", TO, private=True)
    earlier.files |= {"model-00001-of-00002.safetensors": b"old", "model.safetensors": b"old", "LICENSE": b"mine"}
    assert push()[0] == 0
    assert "model-00001-of-00002.safetensors" not in earlier.files
    assert earlier.files["model.safetensors"] == (push.results / MODEL / "model/model.safetensors").read_bytes()
    assert earlier.files["LICENSE"] == b"mine"


def test_nothing_of_this_machine_goes_along(push, hub):
    push()
    files = hub.repos[f"model/{TO}"].files
    record = json.loads(files["provenance.json"])
    assert record["inputs"] == {"data/prompts.parquet": "11", "given.parquet": "22"}
    assert {"code", "commit", "versions", "settings"} <= set(record)
    for name in ("provenance.json", "README.md", "config.json"):
        assert not re.search(rf"node17|/elsewhere|train\.py|{re.escape(str(push.results))}", files[name].decode()), name


def test_no_pickle_goes_along(push, hub):
    push()
    (push.results / MODEL / "model/training_args.bin").write_bytes(b"x")
    push()
    assert "training_args.bin" not in hub.repos[f"model/{TO}"].files


def test_bfloat16_goes_up_as_a_copy(push, hub):
    push()
    own = (push.results / MODEL / "model/model.safetensors").read_bytes()
    assert push(dtype="bfloat16")[0] == 0
    files = hub.repos[f"model/{TO}"].files
    assert {weight.dtype for weight in load(files["model.safetensors"]).values()} == {torch.bfloat16}
    assert json.loads(files["config.json"])["dtype"] == "bfloat16"
    assert b"rounded to bfloat16" in files["README.md"]
    assert (push.results / MODEL / "model/model.safetensors").read_bytes() == own
    assert json.loads((push.results / MODEL / "model/config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": None}, "found no section `push`"),
        ({"model": "wspin/ite9"}, "expected one of base, .* found 'wspin/ite9'"),
        ({"model": "wspin/ite2"}, "found no wspin/ite2 yet; make it first"),
        ({"token": None}, "expected HF_TOKEN, a token that may write"),
        ({"token": "hf_wrong"}, "check"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_in_one_line(push, hub, asked, said):
    code, told = push(**asked)
    assert code == 1 and told.count("\n") == 1 and re.search(said, told), told
    assert hub.repos == {}


def test_a_public_repository_is_not_taken_for_a_private_one(push, hub):
    hub.add("model", TO)
    code, told = push()
    assert code == 1 and "expected a private repository, found a public one" in told
    assert hub.repos[f"model/{TO}"].files == {}
    assert push(private=False)[0] == 0


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_that_does_not_exist_is_created(hub, tmp_path, monkeypatch, private):
    hub.connect(monkeypatch, hub.token)
    (tmp_path / "config.json").write_text("{}")
    upload.upload(tmp_path, Push(model=MODEL, to=TO, private=private))
    assert hub.repos[f"model/{TO}"].private is private
    assert hub.repos[f"model/{TO}"].files == {"config.json": b"{}"}


def test_a_model_that_is_not_its_manifests_is_refused(push, hub):
    push()
    (push.results / MODEL / "model/config.json").write_text("{}")
    code, told = push()
    assert code == 1 and "config.json: expected the file of the manifest" in told


@pytest.mark.parametrize("step", ["/commit/", "/store/", "/preupload/", "/repos/create"])
def test_an_upload_that_is_forbidden_is_told_and_can_be_given_again(push, hub, step):
    hub.forbidden = step
    code, told = push()
    assert code == 1 and "found HTTP status 403 (HF_TOKEN is set); check what HF_TOKEN allows" in told
    hub.forbidden = ""
    assert push()[0] == 0


@attack(
    "malformed",
    "a hub that answers push with HTML, 200,000 brackets or other JSON than its protocol has",
    "one line with the repository; no commit is asked for",
)
@pytest.mark.parametrize("step", ["/api/models/", "/preupload/", "/repos/create"])
@pytest.mark.parametrize("content", [b"<html>", b"[" * 200_000, b"[1]", b'{"files": 7}'])
def test_a_malformed_response_is_one_line(hub, tmp_path, monkeypatch, step, content):
    hub.connect(monkeypatch, hub.token)
    hub.hostile[step] = lambda handler: handler.body(200, content, {})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StudyError) as refused:
        upload.upload(tmp_path, Push(model=MODEL, to=TO))
    assert str(refused.value).startswith(f"{TO}@main: expected ")
    assert not [request for request in hub.requests if "/commit/" in request]
