"""GGUF files of packages: damaged and hostile headers end in one line."""

import json
import random
import struct

import numpy as np
import pytest
from attacks import attack

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.fetch import models, packages
from wspin.models import folders

HIDDEN = 8
MORE = "expected a GGUF model, found a header that promises more than the file holds; take another file"
PACKAGE = Package(name="texts", version="1.0", sha256="0" * 64, file="texts/tiny.gguf")


@pytest.fixture(scope="module")
def content(scratch_model, tmp_path_factory):
    """A Llama of one layer and 8 columns, as GGUF."""
    gguf = pytest.importorskip("gguf")
    tokenizer = folders.load_tokenizer(scratch_model)
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    sizes = {"context_length": 16, "embedding_length": HIDDEN, "block_count": 1, "feed_forward_length": HIDDEN}
    for name, value in {**sizes, "head_count": 2, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5}.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_rope_dimension_count(4)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.eos_token_id)
    shapes = {"token_embd": (len(vocabulary), HIDDEN), "output_norm": (HIDDEN,)}
    shapes |= {f"blk.0.{name}": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (HIDDEN, HIDDEN) for name in names}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.full(shape, 0.5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.read_bytes()


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads the model of a file of such bytes; returns the names of its files."""

    def run(content):
        def extract_file(package, folder):
            (folder / "tiny.gguf").write_bytes(content)
            return folder / "tiny.gguf"

        monkeypatch.setattr(packages, "extract_file", extract_file)
        models.from_package(PACKAGE, tmp_path)
        return {path.name for path in tmp_path.iterdir()}

    return run


def place_of(content, name):
    """Where the number of a header's entry lies, or what describes the first tensor."""
    if name in ("tensors", "entries"):
        return {"tensors": 8, "entries": 16}[name]
    first = content.index(b"token_embd.weight")
    tensor = {"length": -8, "shape": 21, "type": 37, "offset": 41}
    return first + tensor[name] if name in tensor else content.index(name.encode()) + len(name) + 4


@attack(
    "malformed",
    "a GGUF header that promises more than the file holds: 2⁶³ entries, a text of 2⁶⁰ bytes, 2³¹ layers",
    "refused in one line that names the file, without asking for the memory",
)
@pytest.mark.parametrize(
    ("name", "number", "size", "message"),
    [
        (
            "tensors",
            2**63,
            8,
            MORE,
        ),
        (
            "entries",
            2**63,
            8,
            MORE,
        ),
        (
            "length",
            2**60,
            8,
            MORE,
        ),
        ("shape", 2**64 - 1, 8, MORE),
        (
            "shape",
            2**40,
            8,
            MORE,
        ),
        ("type", 4000, 4, "4000) is not a valid GGMLQuantizationType"),
        (
            "offset",
            2**50,
            8,
            MORE,
        ),
        ("llama.block_count", 2**31 - 1, 4, "expected layers that its tensors can hold, at most 11, found 2147483647"),
        ("llama.embedding_length", 2**20, 4, "expected parameters that its tensors can hold, at most 5264, found "),
        ("llama.attention.head_count", 0, 4, "ZeroDivisionError: "),
    ],
)
def test_a_header_that_promises_more_is_refused(content, read, name, number, size, message):
    place = place_of(content, name)
    with pytest.raises(StudyError, match=r"^texts/tiny.gguf: expected ") as error:
        read(content[:place] + number.to_bytes(size, "little") + content[place + size :])
    assert message in str(error.value)


def test_an_array_without_end_is_refused(content, read):
    """gguf reads an array of numbers behind the end of the file without an error, one by one."""
    place = content.index(b"tokenizer.ggml.merges") + len("tokenizer.ggml.merges")
    array = struct.pack("<IIQ", 9, 0, 2**60)  # of bytes
    with pytest.raises(StudyError, match="promises more than the file holds"):
        read(content[:place] + array)


@attack(
    "malformed", "single bytes and numbers changed in a GGUF header, 300 times", "a model, or one line; no traceback"
)
def test_changed_headers_end_in_a_line_or_a_model(content, read):
    generator, whole = random.Random(1), 0
    for _ in range(300):
        changed = bytearray(content)
        place = generator.randrange(place_of(content, "length"))
        number = generator.choice([generator.randrange(256), 2**31, 2**60, 2**63, 2**64 - 1])
        changed[place : place + (1 if number < 256 else 8)] = number.to_bytes(1 if number < 256 else 8, "little")
        try:
            whole += "config.json" in read(bytes(changed[: generator.choice([None, None, None, place])]))
        except StudyError as error:
            assert str(error).startswith("texts/tiny.gguf: expected "), error
            assert "\n" not in str(error)
    assert whole
