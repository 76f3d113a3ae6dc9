"""Uploads a model to the hub: what `from_pretrained` reads, its card, and of its record what reproduces it.

HF_TOKEN is read by the hub's library alone. Nothing of this machine goes along: no host, no command, no path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wspin.config.load import read_results
from wspin.config.sources import Push
from wspin.errors import StudyError
from wspin.fetch.hub import Repository, as_study_errors, client, link_or_copy
from wspin.storage.files import sha256, write_json
from wspin.storage.locks import locked, remove_state
from wspin.storage.provenance import record_path
from wspin.study.paths import StudyPaths

from . import model_card

WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]  # of an earlier upload, which `from_pretrained` might prefer
REPRODUCES = ("program", "code", "commit", "versions", "settings", "threads")
ROUNDED = "> The weights are rounded to bfloat16; the scores below are of the float32 model."


def push_model(results: str | Path) -> str:
    """Upload the model that the study's section `push` names; returns a line with the address of its repository."""
    layout = StudyPaths(read_results(results))
    if layout.study.push is None:
        example = """--config 'push={"model": "wspin/ite3", "to": "me/wspin-ite3"}'"""
        raise StudyError(f"push: expected what to upload and where to, found no section `push`; add {example}")
    return f"push: {layout.study.push.model} is at {push(layout, layout.study.push)}"


def push(layout: StudyPaths, asked: Push) -> str:
    """Upload a model; returns the address of its repository.

    Raises `StudyError` with what to do: no such model, not made yet, changed since, no token, a public repository.
    """
    check(layout, asked)
    folder = Path(f"{layout.results}/.state/push") / asked.model.replace("/", "--")
    with locked(folder):
        export(layout, asked, folder)
        address = upload(folder, asked)
    remove_state(folder)
    return address


def check(layout: StudyPaths, asked: Push) -> None:
    known = [*layout.study.models, *layout.iteration_models()]
    if asked.model not in known:
        raise StudyError(f"push.model: expected one of {', '.join(known)}, found {asked.model!r}")
    if not model_card.made(layout, asked.model):
        raise StudyError(f"push.model: expected a finished model, found no {asked.model} yet; make it first")
    if not client().get_token():
        raise StudyError("push: expected HF_TOKEN, a token that may write, in the environment; found none")


def export(layout: StudyPaths, asked: Push, folder: Path) -> None:
    """Put what is uploaded into `folder`, anew."""
    source, manifest = Path(layout.model(asked.model)), json.loads(Path(layout.manifest(asked.model)).read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():  # by an upload that failed
        left.unlink()
    for name, expected in manifest["files"].items():
        if not (source / name).exists() or sha256(source / name) != expected:
            told = "expected the file that the manifest tells of, found another or none; make the model again"
            raise StudyError(f"{source / name}: {told}")
        link_or_copy(source / name, folder / name)
    if asked.dtype == "bfloat16":
        round_weights(folder)
    note = ROUNDED if asked.dtype == "bfloat16" else ""
    (folder / "README.md").write_text(model_card.card(layout, asked.model, note))
    record = json.loads(record_path(source).read_text())
    write_json(folder / "provenance.json", {**public(record, layout.results), "manifest": manifest})


def public(record: dict[str, Any], results: str) -> dict[str, Any]:
    """Of a record what reproduces the result: no host, no command, no times, paths inside the results alone."""
    inputs = {
        str(Path(path).relative_to(results)) if Path(path).is_relative_to(results) else Path(path).name: checksum
        for path, checksum in record["inputs"].items()
    }
    return {**{key: record[key] for key in REPRODUCES if key in record}, "inputs": inputs}


def round_weights(folder: Path) -> None:
    """Replace the weights in a folder by their bfloat16, and say so in its config; the model itself stays as it is."""
    import torch
    from safetensors.torch import load_file, save_file

    sizes = 0
    for file in sorted(folder.glob("*.safetensors")):
        rounded = {
            name: weight.to(torch.bfloat16) if weight.is_floating_point() else weight
            for name, weight in load_file(file).items()
        }
        file.unlink()  # it may be a link to the model's own
        save_file(rounded, file, metadata={"format": "pt"})
        sizes += sum(weight.nbytes for weight in rounded.values())
    for file in folder.glob("*.safetensors.index.json"):
        index = json.loads(file.read_text())
        write_json(file, {**index, "metadata": {**index.get("metadata", {}), "total_size": sizes}})
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("torch_dtype", None)
    write_json(folder / "config.json", {**settings, "dtype": "bfloat16"})


def upload(folder: Path, asked: Push) -> str:
    """Make the repository if it is new, and put the files into it in one commit; returns its address."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # a log has no use for them
    with as_study_errors(Repository(asked.to, "model", None)):
        api = client().HfApi()
        try:
            found = api.repo_info(asked.to)
        except RepositoryNotFoundError:
            api.create_repo(asked.to, private=asked.private)
        else:
            if asked.private and not found.private:
                told = "expected a private repository, found a public one"
                raise StudyError(f"push.to: {asked.to}: {told}; say `private: false` if everybody may see the model")
        try:
            said = f"{asked.model} of a WSPIN study"
            api.upload_folder(repo_id=asked.to, folder_path=folder, commit_message=said, delete_patterns=WEIGHTS)
        except RuntimeError as error:  # the library's own around the error of a large file
            raise error.__cause__ or error from None
    return f"{constants.ENDPOINT}/{asked.to}"
