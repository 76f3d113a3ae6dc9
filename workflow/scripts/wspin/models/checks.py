"""Whether a model folder's config, tokenizer and generation settings are those of a causal language model."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wspin.errors import StudyError, first_line
from wspin.storage.files import read_json
from wspin.storage.opening import readable

PARTS = re.compile(r"n(um)?_\w*(layer|expert|block|label)|head_dim")  # numbers of modules, names or sines in memory
MOST_PARTS = 10_000
CONTEXTS = ("max_position_embeddings", "n_positions")  # names of the longest sequence in a config
# What transformers itself computes attention and experts with; other names are downloaded as compiled code
IMPLEMENTATIONS = {
    "attn_implementation": (None, "eager", "sdpa", "flex_attention"),
    "experts_implementation": (None, "eager", "batched_mm", "grouped_mm"),
}
SAMPLE = "The quick brown fox jumps over 13 lazy dogs."


def read_config(folder: str | Path) -> Any:
    """The config of a model folder. Raises `StudyError` unless it is that of a causal model of transformers itself."""
    from transformers import AutoConfig

    path = Path(folder) / "config.json"
    if not path.is_file():
        raise StudyError(f"{folder}: expected a model folder with config.json, found none")
    entries = read_object(path)
    _check_kind(path, entries)
    _check_parts(str(path), entries)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of transformers, of a config class or of its fields
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise StudyError(f"{path}: expected a config that transformers can read, found {found}") from error
    _check_class(path, entries, config)
    return config


def check_files(paths: Iterable[Path]) -> None:
    """Raise `StudyError` for a file that is empty, a pointer of Git LFS, or not the JSON object it says."""
    for path in paths:
        (read_object if path.suffix == ".json" else check_stored)(path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `StudyError` if the file holds no such thing."""
    check_stored(path)
    return read_json(path, "a JSON object", "copy the file again", exact=False)


def check_stored(path: Path) -> None:
    """Raise `StudyError` for an empty file, or a pointer of Git LFS, a named pipe or a device in place of a file."""
    with open(path, "rb", opener=readable) as file:
        start = file.read(40)
    if not start:
        raise StudyError(f"{path}: expected content, found an empty file; copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise StudyError(f"{path}: expected the file itself, found a pointer of Git LFS; run `git lfs pull` there")


def _check_parts(place: str, entries: dict[str, Any]) -> None:
    """Refuse numbers of layers or experts that no model has: transformers would fill the memory with them."""
    for key, value in entries.items():
        if isinstance(value, dict):
            _check_parts(f"{place}: {key}", value)
        elif PARTS.match(key) and isinstance(value, (int, float)) and value > MOST_PARTS:
            found = f"expected at most {MOST_PARTS}, found {value!r:.60}"
            raise StudyError(f"{place}: {key}: {found}; copy the file again")


def _check_kind(path: Path, entries: dict[str, Any]) -> None:
    """Refuse what `AutoConfig` would guess, or leave to code or to libraries that the study does not use."""
    from transformers import CONFIG_MAPPING

    kind, auto_map = entries.get("model_type"), _auto_map(path, entries)
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        code = "; code in its folder is not run" if auto_map else ""
        raise StudyError(f"{path}: model_type: expected an architecture of transformers, found {kind!r}{code}")
    if quantization := entries.get("quantization_config") or entries.get("compression_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        found = f"expected plain weights, found {method or 'quantised ones'}"
        raise StudyError(f"{path}: quantization_config: {found}; take the model before quantisation, or dequantise it")
    if other := entries.get("transformers_weights"):
        raise StudyError(f"{path}: transformers_weights: expected none, found {other!r}; rename it model.safetensors")


def _check_class(path: Path, entries: dict[str, Any], config: Any) -> None:
    """The class that transformers loads must be causal, and the one that the checkpoint was saved from."""
    model_class = causal_class(config)
    if model_class is None or getattr(config, "is_encoder_decoder", False):
        kind = "an encoder-decoder" if getattr(config, "is_encoder_decoder", False) else "none of its type"
        raise StudyError(f"{path}: expected a causal language model, found {kind}: {config.model_type}")
    saved = entries.get("architectures") or [model_class.__name__]
    if not isinstance(saved, list):
        raise StudyError(f"{path}: architectures: expected a list of names, found {saved!r:.60}; copy the file again")
    if _folded(model_class.__name__) not in map(_folded, saved):
        found = f"expected {model_class.__name__}, found {', '.join(map(str, saved))}"
        raise StudyError(f"{path}: architectures: {found}; take a checkpoint with a language model's head")
    own_classes = {"AutoConfig": type(config).__name__, "AutoModelForCausalLM": model_class.__name__}
    for auto, code in _auto_map(path, entries).items():
        if auto in own_classes and _folded(str(code).rpartition(".")[2]) != _folded(own_classes[auto]):
            found = f"expected {own_classes[auto]} or none, found {code}"
            remedy = "code in a model's folder is not run; take a model of transformers' own"
            raise StudyError(f"{path}: auto_map.{auto}: {found}; {remedy}")
    for key, names in IMPLEMENTATIONS.items():
        for part in (config, config.get_text_config()):
            if (name := getattr(part, f"_{key}", None)) not in names:
                raise StudyError(f"{path}: {key}: expected none, found {name!r}; remove it: code of a hub is not run")
    context = context_length(config)
    if context is None or context < 1:
        raise StudyError(f"{path}: max_position_embeddings: expected the longest sequence in tokens, found {context}")


def _folded(name: Any) -> str:
    """A class's name as its authors and transformers may both write it: `PhiMoE` is `Phimoe`."""
    return str(name).lower().replace("_", "")


def _auto_map(path: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """What a config says of code in its folder: classes by the auto class that would load them."""
    auto_map = entries.get("auto_map") or {}
    if isinstance(auto_map, list) and path.name == "tokenizer_config.json":  # an early form
        return {"AutoTokenizer": auto_map}
    if not isinstance(auto_map, dict):
        raise StudyError(f"{path}: auto_map: expected an object, found {auto_map!r}; copy the file again")
    return auto_map


def context_length(config: Any) -> int | None:
    """Longest sequence of a model, in tokens, or None."""
    return next((getattr(config, name) for name in CONTEXTS if getattr(config, name, None) is not None), None)


def causal_class(config: Any) -> Any:
    """The class of transformers that loads a causal model with this config, or None."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def check_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Raise `StudyError` unless a tokenizer is a fast one that turns text into tokens of its own.

    Without its files, transformers makes an empty tokenizer of the model's type.
    """
    config = Path(folder) / "tokenizer_config.json"
    code = _auto_map(config, read_object(config)).get("AutoTokenizer") if config.exists() else None
    names = [str(name).rpartition(".")[2].removesuffix("Fast") for name in (code if isinstance(code, list) else [code])]
    if code and type(tokenizer).__name__.removesuffix("Fast") not in names:
        found = f"found {code}; code in a model's folder is not run; take a tokenizer of transformers' own"
        raise StudyError(f"{config}: auto_map.AutoTokenizer: expected none, {found}")
    if not tokenizer.is_fast:
        raise StudyError(f"{folder}: expected a fast tokenizer (tokenizer.json), found a slow one; convert it")
    try:
        ids, unknown = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"], tokenizer.unk_token_id
    except Exception as error:  # of settings that have other types
        ids, unknown, found = [], None, f"{type(error).__name__}: {first_line(error)}"
    else:
        found = "unknown tokens alone" if ids else "none"
    if not set(ids) - {unknown}:
        files = "copy tokenizer.json and tokenizer_config.json there"
        raise StudyError(f"{folder}: expected a tokenizer that turns text into tokens, found {found}; {files}")


def check_ids(tokenizer: Any, config: Any, rendered: Iterable[int], folder: str | Path) -> None:
    """Raise `StudyError` if the tokenizer has ids for which the model has no embedding.

    Special tokens that no text becomes are free, such as that of Gemma 3 for images, unless they have a role or are
    among the ids `rendered` with the template.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    roles = (getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "unk"))
    free = special.difference(roles, rendered)
    ids = {token: i for token, i in tokenizer.get_vocab().items() if i not in free}
    token, largest = max(ids.items(), key=lambda item: item[1])
    rows = config.get_text_config().vocab_size
    if largest >= rows:
        found = f"found id {largest} ({token!r}) in its tokenizer; resize the embedding, or remove the token"
        raise StudyError(f"{folder}/config.json: vocab_size: expected ids below {rows}, {found}")


def stop_ids(folder: str | Path, config: Any) -> list[int]:
    """Ids at which a model's generation ends by its own files. Raises `StudyError` if they cannot be read."""
    from transformers import GenerationConfig

    path = Path(folder) / "generation_config.json"
    stops = config.eos_token_id
    if path.exists():
        read_object(path)
        try:
            stops = GenerationConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ).eos_token_id
        except Exception as error:  # of its validation
            raise StudyError(f"{path}: expected settings of generation, found {first_line(error)}") from error
    for stop in (stops := as_list(stops)):
        if not isinstance(stop, int) or not 0 <= stop < 2**31:
            raise StudyError(f"{path}: eos_token_id: expected ids of tokens, found {stop!r:.60}; correct it")
    return stops


def as_list(stops: int | list[int] | None) -> list[int]:
    """The ids of `eos_token_id`, which may be one, several or none."""
    return stops if isinstance(stops, list) else [] if stops is None else [stops]


def check_end(tokenizer: Any, stops: Sequence[int], eos: int, folder: str | Path) -> None:
    """Raise `StudyError` unless the study's EOS is one of the tokens at which the model's own generation ends.

    `stops`: as `stop_ids`; none is free. Generation here ends at the study's EOS alone.
    """
    if stops and eos not in stops:
        names = ", ".join(repr(tokenizer.convert_ids_to_tokens(stop) or stop) for stop in stops)
        expected = f"expected {tokenizer.convert_ids_to_tokens(eos)!r} (dialogue.eos), found {names}"
        raise StudyError(f"{folder}: generation_config.eos_token_id: {expected}; set dialogue.eos to one of them")
