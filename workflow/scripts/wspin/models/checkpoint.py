"""Whether a model folder holds the tensors of its config, all and no others, without reading them.

transformers fills tensors that a checkpoint lacks with random numbers, and drops those that it does not know. Both are
refused wherever a model is loaded. The checkpoint's headers are loaded into a model on torch's meta device, so that
transformers itself decides what belongs together: renamings, tied heads, buffers of earlier versions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspin.errors import StudyError, first_line

from . import checks

FLOATS = {"F64", "F32", "F16", "BF16"}  # as safetensors calls them
INDEX = "model.safetensors.index.json"
OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")  # other formats, named in messages


@dataclass(frozen=True)
class Header:
    """A tensor of a checkpoint, as the header of its file describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    def read(self, name: str) -> Any:
        """The tensor itself."""
        from safetensors import safe_open

        with safe_open(self.file, "pt") as file:
            return file.get_tensor(name)


def check_weights(folder: str | Path) -> Any:
    """The config of a model folder. Raises `StudyError` unless its tensors are there: all, no others, in its shapes.

    A head that is tied to the embedding may be stored too, if it is the same.
    """
    import torch

    config = checks.read_config(folder)
    files = weight_files(Path(folder))
    place = files[0] if len(files) == 1 else Path(folder) / INDEX
    headers = _headers(files)
    model, info = _load_headers(config, headers, folder)
    check_complete(info, type(model).__name__, place)
    _check_dtypes(model, headers, place)
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    stored = [name for name, weight in model.named_parameters() if id(weight) in ends and name in headers]
    tied = config.get_text_config().tie_word_embeddings and len(stored) == 2
    if tied and not torch.equal(*(headers[name].read(name) for name in stored)):
        found = f"found {' and '.join(stored)}, which differ; correct it in config.json"
        raise StudyError(f"{place}: tie_word_embeddings: expected one tensor for embedding and head, {found}")
    return config


def _check_dtypes(model: Any, headers: dict[str, Header], place: Path) -> None:
    """Quantised numbers have scales that a plain load ignores. Buffers, which transformers does not load, are free."""
    names = {name.removeprefix(f"{model.base_model_prefix}.") for name, _ in model.named_parameters()}
    for name, header in headers.items():
        if header.dtype not in FLOATS and name.removeprefix(f"{model.base_model_prefix}.") in names:
            found = f"found {header.dtype} in {name}; take the model before quantisation, or dequantise it"
            raise StudyError(f"{place}: expected weights in float32, bfloat16 or float16, {found}")


def check_complete(info: dict[str, Any], name: str, place: str | Path) -> None:
    """Raise `StudyError` if loading a checkpoint left out tensors: transformers' `output_loading_info` names them.

    `name`: the class that was loaded.
    """
    mismatched = [f"{key} is {_shape(saved)}, not {_shape(own)}" for key, saved, own in info["mismatched_keys"]]
    missing, unknown = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    differences = (("missing", missing), ("unknown", unknown), ("of another shape", sorted(mismatched)))
    found = ", ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in differences if keys)
    if found or info["error_msgs"]:
        found = found or _first(list(info["error_msgs"]))
        remedy = "take a checkpoint saved by transformers with this config.json"
        raise StudyError(f"{place}: expected the tensors of {name}, found {found}; {remedy}")


def _shape(size: Sequence[int]) -> str:
    return "x".join(map(str, size)) or "a number"


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:2]) + ", ..." * (len(keys) > 2)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads. Raises `StudyError` if one is missing, or if others lie beside them."""
    if (folder / "adapter_config.json").exists():
        raise StudyError(f"{folder}: expected a whole model, found adapter_config.json; merge or remove the adapter")
    files, index = sorted(folder.glob("*.safetensors")), folder / INDEX
    single = folder / "model.safetensors"
    if index.exists():
        shards = checks.read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise StudyError(f"{index}: weight_map: expected the file of every tensor, found none; copy the file again")
        present = {file.name: file for file in files if file.is_file()}  # no name of the index becomes a path
        if missing := sorted(set(shards.values()) - present.keys()):
            raise StudyError(f"{index}: expected all its files, found no {_first(missing)}; copy them to the folder")
        files = [present[name] for name in sorted(set(shards.values()))]
        if single.exists() and single not in files:
            raise StudyError(f"{index}: expected the weights once, found model.safetensors too; remove one of the two")
    elif files != [single]:
        others = [file.name for file in files if file != single]
        if not files:
            others = [file.name for pattern in OTHERS for file in sorted(folder.glob(pattern))]
            found = f"{_first(others) or 'none'}; convert the checkpoint"
            raise StudyError(f"{folder}: expected weights as safetensors, found {found}")
        remedy = f"remove what is no part of it, or copy its index {INDEX}"
        raise StudyError(f"{folder}: expected model.safetensors alone, found {_first(others)}; {remedy}")
    return files


def _headers(files: Sequence[Path]) -> dict[str, Header]:
    """The tensors of a checkpoint by name. Raises `StudyError` if a file is broken, or holds what another does."""
    from safetensors import SafetensorError, safe_open

    headers: dict[str, Header] = {}
    for path in files:
        checks.check_stored(path)
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    if name in headers:
                        found = f"found it in {headers[name].file.name} too"
                        raise StudyError(f"{path}: expected {name} in one file, {found}; remove what is no part of it")
                    tensor = file.get_slice(name)
                    headers[name] = Header(path, tuple(tensor.get_shape()), tensor.get_dtype())
        except SafetensorError as error:
            raise StudyError(f"{path}: expected whole safetensors, found {error}; copy the file again") from error
    return headers


def _load_headers(config: Any, headers: dict[str, Header], folder: str | Path) -> tuple[Any, dict[str, Any]]:
    """(model, transformers' loading info) of a checkpoint without its numbers: all is on the meta device."""
    import torch

    weights = {name: torch.empty(header.shape, device="meta") for name, header in headers.items()}
    options = {"device_map": "meta", "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model_class = checks.causal_class(config)
        return model_class.from_pretrained(None, config=config, state_dict=weights, trust_remote_code=False, **options)
    except Exception as error:  # of the model's class, for numbers that contradict each other
        found = f"found {type(error).__name__}: {first_line(error)}"
        raise StudyError(f"{folder}/config.json: expected a model that can be built, {found}") from error
