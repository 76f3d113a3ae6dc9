"""Reads GGUF files, whose headers come from elsewhere: checked before transformers follows their numbers."""

from pathlib import Path
from typing import Any

from wspin.errors import StudyError, first_line

MOST_VALUES = 5_000_000  # numbers and texts in a header; the largest vocabularies, with their merges, have two million


def read(file: Path, place: str) -> tuple[Any, Any, dict[str, Any]]:
    """(model in float32, tokenizer, how it was loaded) of a GGUF file, `place` in messages.

    Raises `StudyError` for a file that transformers cannot read, and for one whose header promises more than it holds.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        layers, values = _size(file, place)
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        _check_most(place, "layers", getattr(config, "num_hidden_layers", 0), layers)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        # Not to the last one, which is checked after loading: a tied head may count twice.
        _check_most(place, "parameters", sum(weight.numel() for weight in empty.parameters()), 2 * values)
        options = {"gguf_file": file.name, "dtype": torch.float32, "output_loading_info": True}
        model, info = AutoModelForCausalLM.from_pretrained(file.parent, trust_remote_code=False, **options)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except StudyError:
        raise
    except Exception as error:  # of gguf, transformers, tokenizers or numpy, at any number of the header
        found = f"{type(error).__name__}: {first_line(error)}"
        message = f"expected a GGUF model that transformers can read, found {found}; take another file"
        raise StudyError(f"{place}: {message}") from error
    return model, tokenizer, info


def _check_most(place: str, what: str, number: int, most: int) -> None:
    if number > most:
        message = f"expected {what} that its tensors can hold, at most {most}, found {number}"
        raise StudyError(f"{place}: {message}; take another file")


def _size(file: Path, place: str) -> tuple[int, int]:
    """(tensors, their values) of a GGUF file. Raises `StudyError` if something in its header is not inside the file."""
    from gguf import GGUFReader

    class BoundedReader(GGUFReader):
        values = 0

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            self.values += 1
            part = super()._get(offset, dtype, count, override_order)
            if len(part) != count or self.values > MOST_VALUES:
                found = "found a header that promises more than the file holds; take another file"
                raise StudyError(f"{place}: expected a GGUF model, {found}")
            return part

    tensors = BoundedReader(file).tensors
    return len(tensors), sum(tensor.n_elements for tensor in tensors)
