"""Uploads a model to the hub: its files, its card, and the part of its record needed to reproduce it.

HF_TOKEN is read by the hub's library alone. Nothing about this machine is uploaded: no host, no command, no path.
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from wspin.config.load import read_results
from wspin.config.sources import Push
from wspin.credentials import without_credentials
from wspin.errors import StudyError
from wspin.fetch.hub import Missing, Repository, as_study_errors, client, link_or_copy, repository_info
from wspin.fetch.models import MODEL_FILES
from wspin.storage.files import read_json, remove_folder, sha256, write_json
from wspin.storage.locks import discard_state, locked
from wspin.storage.names import path_below
from wspin.storage.opening import check_kind
from wspin.storage.provenance import read_record, record_path
from wspin.study.paths import StudyPaths

from . import model_card

REMEDY = "make the model again"
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]  # of an earlier upload, which `from_pretrained` might prefer
REPRODUCES = ("program", "code", "commit", "versions", "settings", "threads")
ROUNDED = "> The weights are rounded to bfloat16; the scores below are of the float32 model."


def push_model(results: str | Path) -> str:
    """Upload the model that the study's section `push` names; returns a line with the address of its repository.

    Raises `StudyError` without the section, a finished model or a token, if a file changed or the repository is public.
    """
    paths = StudyPaths(read_results(results))
    settings = paths.study.push
    if settings is None:
        example = """--config 'push={"model": "wspin/ite3", "to": "me/wspin-ite3"}'"""
        raise StudyError(f"push: expected what to upload and where to, found no section `push`; add {example}")
    check(paths, settings)
    folder = Path(f"{paths.results}/.state/push") / settings.model.replace("/", "--")
    with locked(folder):
        export(paths, settings, folder)
        address = upload(folder, settings)
    discard_state(folder)
    return f"push: {settings.model} is at {address}"


def check(paths: StudyPaths, settings: Push) -> None:
    models = [*paths.study.models, *paths.iteration_models()]
    if settings.model not in models:
        raise StudyError(f"push.model: expected one of {', '.join(models)}, found {settings.model!r}")
    if not model_card.is_finished(paths, settings.model):
        raise StudyError(f"push.model: expected a finished model, found no {settings.model} yet; make it first")
    if not client().get_token():
        raise StudyError("push: expected HF_TOKEN, a token that may write, in the environment; found none")


def export(paths: StudyPaths, settings: Push, folder: Path) -> None:
    """Put what is uploaded into `folder`, anew. Raises `StudyError` if the model is not its manifest's."""
    source = Path(paths.model(settings.model))
    manifest = read_json(paths.manifest(settings.model), "a model's manifest", REMEDY)
    if folder.exists():  # of an upload that failed
        remove_folder(folder)
    folder.mkdir(parents=True)
    if not isinstance(manifest.get("files"), dict):
        raise StudyError(f"{paths.manifest(settings.model)}: files: expected their hashes, found none; {REMEDY}")
    for name, expected in manifest["files"].items():
        file = model_file(source, name)
        if not file.exists() or sha256(file) != expected:
            message = "expected the file of the manifest, found another or none; make the model again"
            raise StudyError(f"{file}: {message}")
        link_or_copy(file, folder / name)
    rounded = settings.dtype == "bfloat16"
    if rounded:
        round_weights(folder)
    (folder / "README.md").write_text(model_card.card(paths, settings.model, ROUNDED if rounded else ""))
    record = read_record(record_path(source))
    write_json(folder / "provenance.json", {**public(record, paths.results), "manifest": manifest})


def model_file(folder: Path, name: str) -> Path:
    """The file that a manifest names. Raises `StudyError` for what is no part of a model, and for links."""
    file = path_below(folder, name)
    if file.parent != folder or not any(fnmatch(name, pattern) for pattern in MODEL_FILES):
        raise StudyError(f"{folder}: expected a manifest of a model's files, found {name}; make the model again")
    if file.is_symlink():
        check_kind(file)
    return file


def public(record: dict[str, Any], results: str) -> dict[str, Any]:
    """What reproduces the result of a record: no host, no command, no times, no path outside the results."""
    inputs = {
        str(Path(path).relative_to(results)) if Path(path).is_relative_to(results) else Path(path).name: checksum
        for path, checksum in record["inputs"].items()
    }
    return {**{key: record[key] for key in REPRODUCES if key in record}, "inputs": inputs}


def round_weights(folder: Path) -> None:
    """Round the weights in a folder to bfloat16, and set its config's dtype; the model itself is unchanged."""
    import torch
    from safetensors.torch import load_file, save_file

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        rounded = {name: w.to(torch.bfloat16) if w.is_floating_point() else w for name, w in load_file(file).items()}
        file.unlink()  # it may be a link to the model's file
        save_file(rounded, file, metadata={"format": "pt"})
        total += sum(weight.nbytes for weight in rounded.values())
    for file in folder.glob("*.safetensors.index.json"):
        index = read_json(file, "an index of weights", REMEDY, exact=False)
        write_json(file, {**index, "metadata": {**index.get("metadata", {}), "total_size": total}})
    config = read_json(folder / "config.json", "a model's config", REMEDY, exact=False)
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", {**config, "dtype": "bfloat16"})


def upload(folder: Path, settings: Push) -> str:
    """Create the repository if it does not exist and commit the files to it at once; returns its address."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # they would fill the log
    repository, api = Repository(settings.to, "model", None), client().HfApi()
    try:
        is_private = repository_info(repository).private
    except Missing:
        with as_study_errors(repository):
            api.create_repo(settings.to, private=settings.private)
    else:
        if settings.private and not is_private:
            message = "expected a private repository, found a public one; set `private: false` to publish the model"
            raise StudyError(f"push.to: {settings.to}: {message}")
    with as_study_errors(repository):
        try:
            subject = f"{settings.model} of a WSPIN study"
            api.upload_folder(repo_id=settings.to, folder_path=folder, commit_message=subject, delete_patterns=WEIGHTS)
        except RuntimeError as error:  # the library wraps the error of a large file
            raise error.__cause__ or error from None
    return without_credentials(f"{constants.ENDPOINT}/{settings.to}")
