"""Model folders: loading, checking against the study, publishing with a manifest, small models made from scratch."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from wspin import hub, packages
from wspin.config.sources import Model, Package, Scratch
from wspin.errors import StudyError
from wspin.storage.files import digest, naming, sha256, whole_folder, write_json

# What `from_pretrained` reads. Cards, provenance and pickles beside it are not part of a model.
READ = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
)
# Qwen2's own pre-tokenizer: AutoTokenizer puts it into every tokenizer of a qwen2 model, whatever was saved.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_manifest(folder: str | Path, path: str | Path) -> None:
    """Write the sha256 of every file that `from_pretrained` reads, and one fingerprint of them all.

    Raises `StudyError` if the folder holds no weights as safetensors.
    """
    folder = Path(folder)
    names = sorted({file.name for pattern in READ for file in folder.glob(pattern)})
    if not any(name.endswith(".safetensors") for name in names):
        raise StudyError(f"{folder}: expected weights as safetensors, found none; convert the checkpoint")
    files = {name: sha256(folder / name) for name in names}
    write_json(path, {"model": digest(files), "files": files})


def load_tokenizer(folder: str | Path) -> Any:
    """The fast tokenizer of a model folder, from local files alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise StudyError(f"{folder}: expected a fast tokenizer (tokenizer.json), found a slow one; convert it")
    tokenizer.backend_tokenizer.no_truncation()  # a checkpoint may have saved either; lengths are the study's
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """Fingerprint of what turns text into ids."""
    return digest(tokenizer.backend_tokenizer.to_str())[:16]


def load_model(folder: str | Path, device: Any) -> Any:
    """A causal language model in float32, whatever it was saved in, with dropout off.

    Float32 is the study's: bf16 weights lose most of an update at a learning rate of 5e-7. Scoring and training load
    models here, so that both see the same numbers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, local_files_only=True)
    return model.to(device)


def context(folder: str | Path) -> int:
    """Longest sequence of a model in tokens. Raises `StudyError` if its config does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name in ("max_position_embeddings", "n_positions"):
        if getattr(config, name, None):
            return getattr(config, name)
    raise StudyError(f"{folder}/config.json: expected max_position_embeddings, found none")


def publish(model: Any, tokenizer: Any, output: str | Path, manifest: str | Path, weights: Any = None) -> None:
    """Write a trained model in float32, whole or not at all, and its manifest; `weights` if it holds but a share."""
    with whole_folder(output) as folder, naming(output, Exception):
        model.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)
    write_manifest(output, manifest)


def check_eos(model: Any, eos: int, folder: str | Path) -> None:
    """Generation must stop on the study's EOS and no other; the model's further sampling defaults are dropped.

    Raises `StudyError` if the model's own generation_config disagrees.
    """
    from transformers import GenerationConfig

    stops = model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    if stops != [None] and stops != [eos]:
        raise StudyError(f"{folder}: generation_config.eos_token_id: expected {eos} (dialogue.eos), found {stops}")
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=eos)


def best_device() -> Any:
    """The GPU of this process, or the CPU."""
    import torch

    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


def make_scratch(settings: Scratch, texts: list[str], eos: str, seed: int, folder: Path) -> None:
    """Write a model with random weights and a byte-level BPE trained on `texts` into `folder`.

    Raises `StudyError` if the texts do not hold enough repetition for the vocabulary asked for.
    """
    import torch
    from transformers import GenerationConfig, Qwen2ForCausalLM, Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        tokenizer_object=_byte_level_bpe(texts, settings.vocabulary, eos), eos_token=eos, pad_token=eos, unk_token=None
    )
    if len(tokenizer) != settings.vocabulary:
        raise StudyError(
            f"scratch.vocabulary: expected {settings.vocabulary} tokens, found text for {len(tokenizer)} only"
        )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(scratch_config(settings, tokenizer.eos_token_id))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def scratch_config(settings: Scratch, eos: int | None = None) -> Any:
    """The config of a model made from scratch; `eos` closes answers and pads."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=eos,
    )


def _byte_level_bpe(texts: list[str], vocabulary: int, eos: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


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
            reason = (str(error).splitlines() or [type(error).__name__])[0]
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
