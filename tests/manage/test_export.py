"""An upload holds the model's own files, and nothing of the machine, whatever lies in a shared folder of results."""

import json
import os
import platform
import time

import pytest
import results as made
from attacks import attack

from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.manage import upload
from wspin.models import folders
from wspin.storage import provenance
from wspin.storage.files import sha256
from wspin.study.paths import StudyPaths

MODEL = "wspin/ite3"


@pytest.fixture
def export(root, tmp_path, scratch_model, monkeypatch):
    """Puts what is uploaded into a folder; `export.model` is the model's."""
    home = tmp_path / "planted-home"
    results = made.study(root, home / "results", push={"model": MODEL, "to": "me/it"})
    model = made.put_model(results, MODEL, scratch_model)
    monkeypatch.chdir(results)

    def run():
        paths = StudyPaths(read_results(results))
        upload.export(paths, paths.study.push, tmp_path / "upload")
        return {path.name: path.read_bytes() for path in (tmp_path / "upload").rglob("*")}

    run.model, run.home = model, home
    return run


def put_in_manifest(model, name, file):
    path = model.with_name("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["files"][name] = sha256(file)
    path.write_text(json.dumps(manifest))


@attack("secrets", "`.env`, a pickle, a link and a folder beside the files of a model that is pushed", "they stay")
def test_other_files_of_the_folder_stay(export):
    secret = export.home / "secret"
    secret.write_text("secret")
    (export.model / ".env").write_text("secret")
    (export.model / "training_args.bin").write_text("secret")
    (export.model / "notes.txt").symlink_to(secret)
    (export.model / "logs").mkdir()
    (export.model / "logs/model.safetensors").write_text("secret")
    manifest = json.loads(export.model.with_name("manifest.json").read_text())
    assert export().keys() == {*manifest["files"], "README.md", "provenance.json"}


def test_what_other_programs_need_goes_along(export):
    for name in ("chat_template.jinja", "generation_config.json"):
        (export.model / name).write_text("{}")
        put_in_manifest(export.model, name, export.model / name)
    manifest = export.model.with_name("manifest.json")
    files = json.loads(manifest.read_text())["files"]
    folders.write_manifest(export.model, manifest)
    assert json.loads(manifest.read_text())["files"] == files
    assert export()["chat_template.jinja"] == b"{}"


@attack(
    "secrets",
    "a manifest in a shared folder that names `.env` as a file of the model that is pushed",
    ".env: expected the name of a file below its folder, found a hidden file or folder; use no such file",
)
def test_a_hidden_file_is_not_uploaded(export, outcome):
    (export.model / ".env").write_text("secret")
    assert refusal(export, ".env", export.model / ".env") == outcome


@attack(
    "paths",
    "a manifest that names a file of another folder",
    "../../../secret: expected the name of a file below its folder, found `..`; use no such file",
)
def test_a_file_of_another_folder_is_not_uploaded(export, outcome):
    (export.home / "results/secret").write_text("secret")
    assert refusal(export, "../../../secret", export.home / "results/secret") == outcome
    assert not (export.home.parent.parent / "secret").exists()


@attack(
    "secrets",
    "a manifest that names a file which is no part of a model",
    "wspin/ite3/model: expected a manifest of a model's files, found notes.txt; make the model again",
)
def test_a_file_that_is_no_part_of_a_model_is_not_uploaded(export, outcome):
    (export.model / "notes.txt").write_text("secret")
    assert refusal(export, "notes.txt", export.model / "notes.txt") == outcome


@attack(
    "secrets",
    "a link to a file elsewhere in place of a model's chat template, with its checksum in the manifest",
    "wspin/ite3/model/chat_template.jinja: expected a file of the study, found a link to ../../../secret; remove it",
)
def test_a_link_is_not_uploaded(export, outcome):
    (export.home / "results/secret").write_text("secret")
    (export.model / "chat_template.jinja").symlink_to("../../../secret")
    assert refusal(export, "chat_template.jinja", export.model / "chat_template.jinja") == outcome


def refusal(export, name, file):
    put_in_manifest(export.model, name, file)
    with pytest.raises(StudyError) as error:
        export()
    return str(error.value).replace(f"{export.home}/results/", "")


@attack("secrets", "a user's name, host, home and environment in the record of a model that is pushed", "they stay")
def test_nothing_of_the_machine_is_uploaded(export, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "planted-host")
    for name in ("USER", "LOGNAME", "HOME", "HF_TOKEN"):
        monkeypatch.setenv(name, f"planted-{name}")
    outside = export.home / "rows.parquet"
    outside.write_text("rows")
    inputs, command = [str(outside), "config.yaml"], [f"{export.home}/train.py", "--output", str(export.model)]
    entry = provenance.record(command, "train", time.time(), inputs, settings=made.SETTINGS)
    assert json.dumps(entry).count("planted") > 3
    provenance.write_record(export.model, entry)
    uploaded = export()
    assert json.loads(uploaded["provenance.json"])["inputs"].keys() == {"rows.parquet", "config.yaml"}
    assert [name for name, content in uploaded.items() if b"planted" in content] == []
    assert os.environ["USER"].encode() not in uploaded["README.md"]
