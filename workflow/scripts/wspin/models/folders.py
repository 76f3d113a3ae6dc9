"""Model folders: load, fingerprint, publish with a manifest."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from wspin.config.base import Precision
from wspin.errors import StudyError, first_line
from wspin.storage.files import digest, file_hashes, read_json, whole_folder, write_json, writing
from wspin.templates import CHAT_FILE

from . import checkpoint, checks

# Files that `from_pretrained` reads (an adapter is refused). Cards and pickles beside them are not part of a model.
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
TOKENIZER_FILES += ("chat_template*",)
MODEL_FILES = ("config.json", "generation_config.json", "adapter_config.json", *TOKENIZER_FILES)
MODEL_FILES += ("*.safetensors", "*.safetensors.index.json")


def write_manifest(folder: str | Path, path: str | Path) -> None:
    """Write the sha256 of every file that `from_pretrained` reads, and one fingerprint of them all.

    Raises `StudyError` if the folder holds no weights as safetensors.
    """
    names = _file_names(folder)
    if not any(name.endswith(".safetensors") for name in names):
        raise StudyError(f"{folder}: expected weights as safetensors, found none; convert the checkpoint")
    files = file_hashes(folder, names)
    write_json(path, {"model": digest(files), "files": files})


def _file_names(folder: str | Path) -> list[str]:
    return [file.name for file in model_files(folder)]


def model_files(folder: str | Path) -> list[Path]:
    """The files of a folder that `from_pretrained` reads, sorted by name."""
    return sorted({file for pattern in MODEL_FILES for file in Path(folder).glob(pattern) if not file.is_dir()})


def verified_hash(folder: str | Path, manifest: str | Path, weights: bool = True) -> str:
    """Fingerprint of a model that is about to be loaded; every file is compared with its hash in the manifest.

    `weights`: False leaves out the weights, for a program that loads the tokenizer alone. Raises `StudyError` if a file
    is missing, damaged or another, or not in the manifest.
    """
    entries = read_manifest(manifest)
    expected, present = entries["files"], _file_names(folder)
    if names := sorted(expected.keys() ^ set(present)):
        found = f"found {'another' if names[0] in present else 'no'} file {names[0]}"
        raise StudyError(f"{folder}: expected the {len(expected)} files of {manifest}, {found}; make the model again")
    compared = [name for name in present if weights or not name.endswith(".safetensors")]
    for name, found in file_hashes(folder, compared).items():
        if found != expected[name]:
            difference = f"expected the file of {manifest}, found another: it is damaged or changed"
            raise StudyError(f"{folder}/{name}: {difference}; make the model again")
    return entries["model"]


def verify_tokenizer(folder: str | Path) -> None:
    """Compare a model's files, its weights aside, with the `manifest.json` beside its folder, if there is one."""
    manifest = Path(folder).with_name("manifest.json")
    if manifest.exists():
        verified_hash(folder, manifest, weights=False)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """`model`, the fingerprint, and `files`, the hash of every file. Raises `StudyError` without a whole manifest."""
    content, remedy = "a model's manifest", "make the model again"
    try:
        manifest = read_json(path, content, remedy)
    except FileNotFoundError:
        raise StudyError(f"{path}: expected {content}, found no file; {remedy}") from None
    if not isinstance(manifest.get("files"), dict) or manifest.get("model") != digest(manifest["files"]):
        found = "found another or none: it is damaged"
        raise StudyError(f"{path}: model: expected the fingerprint of the manifest's files, {found}; {remedy}")
    return manifest


def load_tokenizer(folder: str | Path) -> Any:
    """The fast tokenizer of a model folder, from local files alone.

    Raises `StudyError` if it cannot be read, and as `checks.check_tokenizer`.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of transformers, tokenizers or the libraries of other formats
        found = f"{type(error).__name__}: {first_line(error)}"
        if Path(folder, "tokenizer.model").exists() and not Path(folder, "tokenizer.json").exists():
            found = (
                "tokenizer.model alone; write tokenizer.json with `save_pretrained` where sentencepiece is installed"
            )
        raise StudyError(f"{folder}: expected a tokenizer that transformers can read, found {found}") from error
    checks.check_tokenizer(tokenizer, folder)
    tokenizer.backend_tokenizer.no_truncation()  # a checkpoint may have saved either; the study sets its own lengths
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """Fingerprint of everything that turns text into ids."""
    return digest(tokenizer.backend_tokenizer.to_str())[:16]


def load_model(folder: str | Path, device: Any, dtype: Precision = "float32") -> Any:
    """A causal language model whose weights have this dtype, whatever it was saved in, with dropout off.

    Float32 for what is trained, because bfloat16 weights lose most of an update at a learning rate of 5e-7. Scoring and
    training both load models here, and so get the same numbers. Raises `StudyError` for what `checks` refuses.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = checkpoint.check_weights(folder)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    options = {"dtype": getattr(torch, dtype), "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, trust_remote_code=False, **options).to(device)
    for key, weight in model.named_parameters():
        if not weight.isfinite().all():
            found = f"found NaN or infinity in {key}; take another checkpoint"
            raise StudyError(f"{folder}: expected finite weights, {found}")
    return model


def context_length(folder: str | Path) -> int:
    """Longest sequence of a model, in tokens. Raises `StudyError` as `checks.read_config`."""
    return checks.context_length(checks.read_config(folder))


def vocabulary_size(folder: str | Path) -> int:
    """Ids that a model can generate; its tokenizer may know fewer. Raises `StudyError` as `checks.read_config`."""
    return checks.read_config(folder).get_text_config().vocab_size


def publish(
    model: Any,
    start: str | Path,
    output: str | Path,
    manifest: str | Path,
    chat_template: str | None = None,
    weights: Any = None,
) -> None:
    """Publish a model trained from the folder `start` in float32 atomically, and write its manifest.

    The files of the tokenizer are copied, because `save_pretrained` drops settings that decide ids (Llama's `legacy`).
    `chat_template`: takes the place of theirs. `weights`: the full state dict, where `model` holds only a shard of it.
    """
    with whole_folder(output) as folder, writing(output, Exception):
        model.save_pretrained(folder, state_dict=weights)
        for file in sorted({file for pattern in TOKENIZER_FILES for file in Path(start).glob(pattern)}):
            shutil.copyfile(file, folder / file.name)
        if chat_template is not None:
            _replace_chat_template(folder, chat_template)
    write_manifest(output, manifest)


def _replace_chat_template(folder: Path, template: str) -> None:
    """Give a tokenizer's files one chat template, wherever they had others."""
    for file in folder.glob("chat_template*"):
        file.unlink()
    (folder / CHAT_FILE).write_text(template, encoding="utf-8")
    config = folder / "tokenizer_config.json"  # where earlier versions of transformers kept it
    if config.exists() and "chat_template" in (entries := checks.read_object(config)):
        del entries["chat_template"]
        config.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_eos(model: Any, eos: int, folder: str | Path) -> None:
    """Make generation stop at the study's EOS and no other token; the model's own sampling defaults are dropped.

    Greedy, or sampled at temperature 1, unless the caller decides: a pipeline of transformers would sample at 0.7.
    Raises `StudyError` if the model's generation_config names other tokens alone.
    """
    from transformers import GenerationConfig

    stops = checks.as_list(model.generation_config.eos_token_id)
    if stops and eos not in stops:
        raise StudyError(f"{folder}: generation_config.eos_token_id: expected {eos} (dialogue.eos), found {stops}")
    model.generation_config = GenerationConfig(do_sample=False, temperature=1.0, eos_token_id=eos, pad_token_id=eos)


def best_device() -> Any:
    """The GPU of this process, or the CPU."""
    import torch

    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
