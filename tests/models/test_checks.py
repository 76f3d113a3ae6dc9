"""Hostile files of a model: a line that names the file, no traceback, no memory for modules that nobody has."""

import json
import shutil

import pytest
from attacks import attack

from wspin.errors import StudyError
from wspin.fetch.models import check
from wspin.models.checks import read_config

EOS = "<|endoftext|>"


def edit(folder, name, **entries):
    file = folder / name
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | entries))


@attack(
    "malformed",
    "a model's config.json with a billion layers, experts or labels, in a section too",
    "refused before transformers makes an object of each",
)
@pytest.mark.parametrize(
    ("entries", "place"),
    [
        ({"num_hidden_layers": 10**9, "layer_types": None}, "num_hidden_layers"),
        ({"n_routed_experts": 1e9}, "n_routed_experts"),
        ({"text_config": {"n_layer": 10**9}}, "text_config: n_layer"),
        ({"num_labels": 10**9}, "num_labels"),
        ({"head_dim": 10**9}, "head_dim"),
    ],
)
def test_layers_without_number_are_refused(tmp_path, scratch_model, entries, place):
    shutil.copytree(scratch_model, tmp_path / "m")
    edit(tmp_path / "m", "config.json", **entries)
    with pytest.raises(StudyError, match=f"m/config.json: {place}: expected at most 10000, found 10000000") as refused:
        read_config(tmp_path / "m")
    assert str(refused.value).endswith("; copy the file again")


@attack(
    "malformed",
    "lone surrogates, ids of thousands of digits, line breaks and other types in the files of a model or tokenizer",
    "refused in one line with the file or template",
)
@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("tokenizer_config.json", {"chat_template": "{{ messages[0].content }}\ud800"}, r"found UnicodeEncodeError: "),
        ("tokenizer_config.json", {"chat_template": "{{ messages[0].content + '\\ud800' }}"}, "found UnicodeEncodeEr"),
        ("tokenizer_config.json", {"eos_token": "\ud800\nforged"}, "expected a tokenizer that transformers can read"),
        ("generation_config.json", {"eos_token_id": 10**4000}, r"eos_token_id: expected ids of tokens, found 1000"),
        ("config.json", {"architectures": ["a\nforged: line"]}, r"found a\nforged: line"),
        ("config.json", {"architectures": True}, "architectures: expected a list of names, found True; copy"),
        (
            "tokenizer_config.json",
            {"model_max_length": "x"},
            "expected a tokenizer that turns text into tokens, found TypeErr",
        ),
        (
            "tokenizer_config.json",
            {"unk_token": ""},
            "expected a tokenizer that turns text into tokens, found RecursionErr",
        ),
    ],
    ids=["chat template", "text in a template", "token", "id", "class", "classes", "length", "unknown token"],
)
def test_malformed_files_of_a_model_are_one_line(tmp_path, scratch_model, name, entries, message):
    shutil.copytree(scratch_model, tmp_path / "m")
    edit(tmp_path / "m", name, **entries)
    with pytest.raises(StudyError) as refused:
        check(tmp_path / "m", "chat" if "chat_template" in entries else "human-assistant", EOS)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()
