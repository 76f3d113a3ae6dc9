"""Model folders: what no later stage could read is refused when the model is fetched, before a GPU is asked for."""

import json
import shutil
from functools import partial

import pytest
from inputs import Case, check_case, run

EOS = "<|endoftext|>"
WEIGHTS = "model/model.safetensors"


def fetch(eos=EOS, template="human-assistant"):
    """The flags of a fetch of `model/`."""
    flags = ["--eos", eos] if eos else []
    flags += ["--template", template] if template else []
    return ["fetch", "model", "--path", "model", "--output", "out", "--output-manifest", "out.json", *flags]


def prepared(change, *arguments, **flags):
    """Prepares a fetch of the model after a change of its folder."""

    def prepare(folder):
        change(folder / "model", *arguments)
        return fetch(**flags)

    return prepare


def edited(name, **changes):
    """The model with other values in a JSON file; None removes a key."""

    def change(model):
        path = model / name
        entries = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in entries.items() if value is not None}))

    return prepared(change)


def written(name, content):
    """The model with another content of a file."""
    content = content if isinstance(content, bytes) else content.encode()
    return prepared(lambda model: (model / name).write_bytes(content))


def without(*patterns):
    """The model without some files."""

    def change(model):
        for pattern in patterns:
            for path in list(model.glob(pattern)):
                path.unlink()

    return prepared(change)


def tensors(change, file="model.safetensors"):
    """The model after a change of its tensors, a dict by name."""

    def rewrite(model):
        from safetensors.torch import load_file, save_file

        state = load_file(model / "model.safetensors")
        change(state)
        save_file({name: tensor.clone() for name, tensor in state.items()}, model / file)

    return prepared(rewrite)


def drop(*names):
    return tensors(lambda state: [state.pop(name) for name in list(state) if name.startswith(names)])


def rename(old, new):
    def change(state):
        for name in list(state):
            if name.startswith(old):
                state[new + name.removeprefix(old)] = state.pop(name)

    return tensors(change)


def add(name, make):
    def change(state):
        state[name] = make(state)

    return tensors(change)


def cast(dtype):
    def change(state):
        import torch

        for name in state:
            state[name] = state[name].to(getattr(torch, dtype))

    return tensors(change)


def shard(model, index=None, drop=None):
    """Two shards and their index, changed."""
    from safetensors.torch import load_file, save_file

    state = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(state)
    files = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in files.items():
        if file != drop:
            save_file({name: state[name] for name in part}, model / file)
    weight_map = {name: file for file, part in files.items() for name in part}
    content = index or json.dumps({"metadata": {}, "weight_map": weight_map})
    (model / "model.safetensors.index.json").write_text(content)


def sharded(**changes):
    return prepared(partial(shard, **changes))


def beside(name, content=b""):
    """The model with one file more: a copy of its weights, or a content."""

    def change(model):
        if content:
            (model / name).write_bytes(content)
        else:
            shutil.copyfile(model / "model.safetensors", model / name)

    return prepared(change)


def cut(name, length):
    return prepared(lambda model: (model / name).write_bytes((model / name).read_bytes()[:length]))


def scalar(state):
    import torch

    return torch.zeros(())


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n"


def twice(model):
    shutil.copyfile(model / "model-00001-of-00002.safetensors", model / "model-00002-of-00002.safetensors")


def words(model):
    """The model with a tokenizer of words, which transformers does not expect for its architecture."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([EOS, "<unk>", "quick", "brown", "fox"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(model / "tokenizer.json"))


def add_tokens(model, *tokens, special=False, **roles):
    from wspin.models import folders

    tokenizer = folders.load_tokenizer(model)
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    tokenizer.add_special_tokens(roles)
    tokenizer.save_pretrained(model)


CASES = [
    # Tensors
    Case(
        "a layer's tensors are missing",
        drop("model.layers.1.mlp."),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 3 missing (model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "tensors under the names of a compiled model",
        rename("model.", "_orig_mod.model."),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 27 missing (lm_head.weight, model.embed_tokens.weight, ...), 26 unknown (_orig_mod.model.embed_tokens.weight, _orig_mod.model.layers.0.input_layernorm.weight, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "tensors under the names of a wrapped model",
        rename("model.", "base.model."),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 27 missing (lm_head.weight, model.embed_tokens.weight, ...), 26 unknown (base.model.embed_tokens.weight, base.model.layers.0.input_layernorm.weight, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a tensor that the model does not have",
        add("score.weight", scalar),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 1 unknown (score.weight); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a tensor of another shape",
        add("model.norm.weight", lambda state: state["model.norm.weight"][:-1]),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 1 of another shape (model.norm.weight is 31, not 32); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a config with fewer layers than the checkpoint",
        edited("config.json", num_hidden_layers=1, layer_types=["full_attention"]),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 12 unknown (model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a config with more layers than the checkpoint",
        edited("config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 12 missing (model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a config of another width",
        edited("config.json", hidden_size=64),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 26 of another shape (model.embed_tokens.weight is 270x32, not 270x64, model.layers.0.input_layernorm.weight is 32, not 64, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a config of another vocabulary",
        edited("config.json", vocab_size=280),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 1 of another shape (model.embed_tokens.weight is 270x32, not 280x32); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "an untied head that is not stored",
        edited("config.json", tie_word_embeddings=False),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 1 missing (lm_head.weight); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "a tied head that differs from the embedding",
        add("lm_head.weight", lambda state: state["model.embed_tokens.weight"] + 1),
        "model/model.safetensors: tie_word_embeddings: expected one tensor for embedding and head, found model.embed_tokens.weight and lm_head.weight, which differ; correct it in config.json",
    ),
    Case(
        "weights in float8",
        cast("float8_e4m3fn"),
        "model/model.safetensors: expected weights in float32, bfloat16 or float16, found F8_E4M3 in model.embed_tokens.weight; take the model before quantisation, or dequantise it",
    ),
    Case(
        "weights in int8",
        cast("int8"),
        "model/model.safetensors: expected weights in float32, bfloat16 or float16, found I8 in model.embed_tokens.weight; take the model before quantisation, or dequantise it",
    ),
    Case(
        "quantised weights",
        edited("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "model/config.json: quantization_config: expected plain weights, found gptq; take the model before quantisation, or dequantise it",
    ),
    Case(
        "an adapter beside the model",
        beside("adapter_config.json", b"{}"),
        "model: expected a whole model, found adapter_config.json; merge or remove the adapter",
    ),
    Case(
        "an adapter alone",
        prepared(
            lambda model: [
                (model / "model.safetensors").rename(model / "adapter_model.safetensors"),
                (model / "adapter_config.json").write_text("{}"),
            ]
        ),
        "model: expected a whole model, found adapter_config.json; merge or remove the adapter",
    ),
    # Files
    Case(
        "a truncated file of weights",
        cut("model.safetensors", 3000),
        "model/model.safetensors: expected whole safetensors, found Error while deserializing header: incomplete metadata, file not fully covered; copy the file again",
    ),
    Case(
        "a file of weights cut in its header",
        cut("model.safetensors", 300),
        "model/model.safetensors: expected whole safetensors, found Error while deserializing header: invalid header length; copy the file again",
    ),
    Case(
        "an empty file of weights",
        written("model.safetensors", b""),
        "model/model.safetensors: expected content, found an empty file; copy it again",
    ),
    Case(
        "a pointer of Git LFS in place of the weights",
        written("model.safetensors", LFS),
        "model/model.safetensors: expected the file itself, found a pointer of Git LFS; run `git lfs pull` there",
    ),
    Case(
        "a pointer of Git LFS in place of the tokenizer",
        written("tokenizer.json", LFS),
        "model/tokenizer.json: expected the file itself, found a pointer of Git LFS; run `git lfs pull` there",
    ),
    Case(
        "weights that are an error page",
        written("model.safetensors", "<html>404</html>"),
        "model/model.safetensors: expected whole safetensors, found Error while deserializing header: header too large; copy the file again",
    ),
    Case(
        "no weights",
        without("model.safetensors"),
        "model: expected weights as safetensors, found none; convert the checkpoint",
    ),
    Case(
        "weights as pickles alone",
        prepared(lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin")),
        "model: expected weights as safetensors, found pytorch_model.bin; convert the checkpoint",
    ),
    Case(
        "a shard that is missing",
        sharded(drop="model-00002-of-00002.safetensors"),
        "model/model.safetensors.index.json: expected all its files, found no model-00002-of-00002.safetensors; copy them to the folder",
    ),
    Case(
        "an index that is no JSON",
        sharded(index="{"),
        "model/model.safetensors.index.json: expected a JSON object, found no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); copy the file again",
    ),
    Case(
        "an index without files",
        sharded(index="{}"),
        "model/model.safetensors.index.json: weight_map: expected the file of every tensor, found none; copy the file again",
    ),
    Case(
        "an index that leaves a shard out",
        sharded(index=json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})),
        "model/model-00001-of-00002.safetensors: expected the tensors of Qwen2ForCausalLM, found 17 missing (model.layers.0.self_attn.q_proj.bias, model.layers.0.self_attn.q_proj.weight, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "an index of files above the folder",
        sharded(index=json.dumps({"weight_map": {"a": "../secret.safetensors"}})),
        "model/model.safetensors.index.json: expected all its files, found no ../secret.safetensors; copy them to the folder",
    ),
    Case(
        "two shards without their index",
        prepared(lambda model: [shard(model), (model / "model.safetensors.index.json").unlink()]),
        "model: expected model.safetensors alone, found model-00001-of-00002.safetensors, model-00002-of-00002.safetensors; remove what is no part of it, or copy its index model.safetensors.index.json",
    ),
    Case(
        "a second checkpoint beside the weights",
        beside("consolidated.safetensors"),
        "model: expected model.safetensors alone, found consolidated.safetensors; remove what is no part of it, or copy its index model.safetensors.index.json",
    ),
    Case(
        "weights twice, whole and in shards",
        prepared(
            lambda model: [
                shutil.copyfile(model / "model.safetensors", model / "copy"),
                shard(model),
                (model / "copy").rename(model / "model.safetensors"),
            ]
        ),
        "model/model.safetensors.index.json: expected the weights once, found model.safetensors too; remove one of the two",
    ),
    # Config
    Case("no config.json", without("config.json"), "model: expected a model folder with config.json, found none"),
    Case(
        "a config.json that is no JSON",
        written("config.json", "{'a': 1}"),
        "model/config.json: expected a JSON object, found no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); copy the file again",
    ),
    Case(
        "an empty config.json",
        written("config.json", ""),
        "model/config.json: expected content, found an empty file; copy it again",
    ),
    Case(
        "a config.json that is a list",
        written("config.json", "[]"),
        "model/config.json: expected a JSON object, found a JSON list; copy the file again",
    ),
    Case(
        "a config.json in another encoding",
        written("config.json", b"\xff\xfe{"),
        "model/config.json: expected a JSON object, found no JSON ('utf-16-le' codec can't decode byte 0x7b in position 2: truncated data); copy the file again",
    ),
    Case(
        "a config without an architecture",
        edited("config.json", model_type=None),
        "model/config.json: model_type: expected an architecture of transformers, found None",
    ),
    Case(
        "an unknown architecture",
        edited("config.json", model_type="mamba9"),
        "model/config.json: model_type: expected an architecture of transformers, found 'mamba9'",
    ),
    Case(
        "an architecture in code of its own",
        edited("config.json", model_type="qwen", auto_map={"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"}),
        "model/config.json: model_type: expected an architecture of transformers, found 'qwen'; code in its folder is not run",
    ),
    Case(
        "code of its own for a known architecture",
        edited("config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}),
        "model/config.json: auto_map.AutoModelForCausalLM: expected Qwen2ForCausalLM or none, found modeling_mine.MineForCausalLM; code in a model's folder is not run; take a model of transformers' own",
    ),
    Case(
        "an encoder-decoder",
        edited("config.json", model_type="t5", architectures=["T5ForConditionalGeneration"]),
        "model/config.json: expected a causal language model, found an encoder-decoder: t5",
    ),
    Case(
        "an encoder-decoder with a causal half",
        edited("config.json", model_type="bart", architectures=["BartForCausalLM"]),
        "model/config.json: expected a causal language model, found an encoder-decoder: bart",
    ),
    Case(
        "an encoder",
        edited("config.json", model_type="bert", architectures=["BertForMaskedLM"]),
        "model/config.json: architectures: expected BertLMHeadModel, found BertForMaskedLM; take a checkpoint with a language model's head",
    ),
    Case(
        "a reward model",
        edited("config.json", architectures=["Qwen2ForSequenceClassification"]),
        "model/config.json: architectures: expected Qwen2ForCausalLM, found Qwen2ForSequenceClassification; take a checkpoint with a language model's head",
    ),
    Case(
        "a vision model",
        edited("config.json", model_type="vit", architectures=["ViTModel"]),
        "model/config.json: expected a causal language model, found none of its type: vit",
    ),
    Case(
        "a config with a value of another type",
        edited("config.json", hidden_size="wide"),
        "model/config.json: expected a config that transformers can read, found StrictDataclassFieldValidationError: Validation error for field 'hidden_size': TypeError: Field 'hidden_size' expected int, got str (value: 'wide')",
    ),
    Case(
        "heads that do not divide the width",
        edited("config.json", num_attention_heads=3, num_key_value_heads=2),
        "model/model.safetensors: expected the tensors of Qwen2ForCausalLM, found 14 of another shape (model.layers.0.self_attn.k_proj.bias is 32, not 20, model.layers.0.self_attn.k_proj.weight is 32x32, not 20x32, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "no heads",
        edited("config.json", num_attention_heads=0),
        "model/config.json: expected a model that can be built, found ZeroDivisionError: integer division or modulo by zero",
    ),
    Case(
        "an activation that transformers does not have",
        edited("config.json", hidden_act="swoosh"),
        "model/config.json: expected a model that can be built, found KeyError: 'swoosh'",
    ),
    Case(
        "a padding token outside the vocabulary",
        edited("config.json", pad_token_id=270),
        "model/config.json: expected a model that can be built, found AssertionError: Padding_idx must be within num_embeddings",
    ),
    Case(
        "an unknown kind of rotary positions",
        edited("config.json", rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}),
        "model/config.json: expected a model that can be built, found KeyError: 'spiral'",
    ),
    Case(
        "layer types that do not fit",
        edited("config.json", layer_types=["full_attention"]),
        "model/config.json: expected a config that transformers can read, found StrictDataclassClassValidationError: Class validation error for validator 'validate_layer_type': ValueError: `num_hidden_layers` (2) must be equal to the number of `layer_types` (1)",
    ),
    Case(
        "another name of the weights",
        edited("config.json", transformers_weights="other.safetensors"),
        "model/config.json: transformers_weights: expected none, found 'other.safetensors'; rename it model.safetensors",
    ),
    # Tokenizer
    Case(
        "a model without a tokenizer",
        without("tokenizer*"),
        "model: expected a tokenizer that turns text into tokens, found none; copy tokenizer.json and tokenizer_config.json there",
    ),
    Case(
        "a tokenizer's settings alone",
        without("tokenizer.json"),
        "model: expected a tokenizer that turns text into tokens, found none; copy tokenizer.json and tokenizer_config.json there",
    ),
    Case(
        "a tokenizer that is no JSON",
        written("tokenizer.json", "{"),
        "model/tokenizer.json: expected a JSON object, found no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); copy the file again",
    ),
    Case(
        "a tokenizer cut short",
        cut("tokenizer.json", 2000),
        "model/tokenizer.json: expected a JSON object, found no JSON (Expecting ',' delimiter: line 107 column 14 (char 2000)); copy the file again",
    ),
    Case(
        "an empty tokenizer.json",
        written("tokenizer.json", ""),
        "model/tokenizer.json: expected content, found an empty file; copy it again",
    ),
    Case(
        "tokenizer settings that are no JSON",
        written("tokenizer_config.json", "{"),
        "model/tokenizer_config.json: expected a JSON object, found no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); copy the file again",
    ),
    Case(
        "a tokenizer in code of its own",
        edited(
            "tokenizer_config.json",
            tokenizer_class="MyTokenizer",
            auto_map={"AutoTokenizer": ["tokenization_my.MyTokenizer", None]},
        ),
        "model/tokenizer_config.json: auto_map.AutoTokenizer: expected none, found ['tokenization_my.MyTokenizer', None]; code in a model's folder is not run; take a tokenizer of transformers' own",
    ),
    Case(
        "more tokens than embeddings",
        prepared(lambda model: add_tokens(model, "<|new|>")),
        "model/config.json: vocab_size: expected ids below 270, found id 270 ('<|new|>') in its tokenizer; resize the embedding, or remove the token",
    ),
    Case(
        "padding without an embedding",
        prepared(lambda model: add_tokens(model, pad_token="<|pad|>")),
        "model/config.json: vocab_size: expected ids below 270, found id 270 ('<|pad|>') in its tokenizer; resize the embedding, or remove the token",
    ),
    Case(
        "a template with a token without an embedding",
        prepared(lambda model: add_tokens(model, "<|new|>", special=True), template="<|new|>{prompt}"),
        "model/config.json: vocab_size: expected ids below 270, found id 270 ('<|new|>') in its tokenizer; resize the embedding, or remove the token",
    ),
    # Generation and EOS
    Case(
        "generation settings that are no JSON",
        written("generation_config.json", "{"),
        "model/generation_config.json: expected a JSON object, found no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); copy the file again",
    ),
    Case(
        "generation ends at several tokens, but not at the study's",
        edited("generation_config.json", eos_token_id=[65, 66]),
        "model: generation_config.eos_token_id: expected '<|endoftext|>' (dialogue.eos), found 'a', 'b'; set dialogue.eos to one of them",
    ),
    Case(
        "generation ends at another token than the study's",
        edited("generation_config.json", eos_token_id=65),
        "model: generation_config.eos_token_id: expected '<|endoftext|>' (dialogue.eos), found 'a'; set dialogue.eos to one of them",
    ),
    Case(
        "no generation settings, and a config that names another EOS",
        prepared(
            lambda model: [
                (model / "generation_config.json").unlink(),
                (model / "config.json").write_text(
                    (model / "config.json").read_text().replace('"eos_token_id": 0', '"eos_token_id": 65')
                ),
            ]
        ),
        "model: generation_config.eos_token_id: expected '<|endoftext|>' (dialogue.eos), found 'a'; set dialogue.eos to one of them",
    ),
    Case(
        "an EOS that is no token",
        prepared(lambda model: None, eos="<|im_end|>"),
        "model: dialogue.eos: expected one token of the tokenizer, found '<|im_end|>', which is none; its own EOS is '<|endoftext|>'",
    ),
    Case(
        "an EOS of several tokens",
        prepared(lambda model: None, eos="the end"),
        "model: dialogue.eos: expected one token of the tokenizer, found 'the end', which is none; its own EOS is '<|endoftext|>'",
    ),
    Case(
        "an EOS that is an ordinary word",
        prepared(lambda model: None, eos="a"),
        "model: dialogue.eos: expected one token of the tokenizer, found 'a', which is a piece of ordinary text; its own EOS is '<|endoftext|>'",
    ),
    Case(
        "a chat template that is no Jinja",
        prepared(lambda model: (model / "chat_template.jinja").write_text("{% if %}"), template="chat"),
        "model: template 'chat': expected a chat template that renders one turn of a user, found TemplateSyntaxError: Expected an expression, got 'end of statement block'; write the template's text out in the config, with {prompt} in it",
    ),
    Case(
        "a chat template that is empty",
        prepared(lambda model: (model / "chat_template.jinja").write_text(""), template="chat"),
        "model/chat_template.jinja: expected content, found an empty file; copy it again",
    ),
    Case(
        "a chat template that the model lacks",
        prepared(lambda model: None, template="chat"),
        "model: template 'chat': expected a chat template of the model's tokenizer, found none; write the template's text out in the config, with {prompt} in it",
    ),
    Case(
        "an EOS in words in the generation settings",
        edited("generation_config.json", eos_token_id="<|endoftext|>"),
        "model/generation_config.json: eos_token_id: expected ids of tokens, found '<|endoftext|>'; correct it",
    ),
    Case(
        "an EOS outside the vocabulary in the generation settings",
        edited("generation_config.json", eos_token_id=999),
        "model: generation_config.eos_token_id: expected '<|endoftext|>' (dialogue.eos), found 999; set dialogue.eos to one of them",
    ),
    Case(
        "a context of no tokens",
        edited("config.json", max_position_embeddings=0),
        "model/config.json: max_position_embeddings: expected the longest sequence in tokens, found 0",
    ),
    Case(
        "a negative context",
        edited("config.json", max_position_embeddings=-8),
        "model/config.json: max_position_embeddings: expected the longest sequence in tokens, found -8",
    ),
    Case(
        "a dtype that torch does not know",
        edited("config.json", dtype="float7"),
        "model/config.json: expected a config that transformers can read, found AttributeError: module 'torch' has no attribute 'float7'",
    ),
    Case(
        "a config of another architecture",
        edited("config.json", model_type="llama", architectures=["LlamaForCausalLM"]),
        "model/model.safetensors: expected the tensors of LlamaForCausalLM, found 6 unknown (model.layers.0.self_attn.k_proj.bias, model.layers.0.self_attn.q_proj.bias, ...); take a checkpoint saved by transformers with this config.json",
    ),
    Case(
        "one tensor in two shards",
        prepared(lambda model: [shard(model), twice(model)]),
        "model/model-00002-of-00002.safetensors: expected model.embed_tokens.weight in one file, found it in model-00001-of-00002.safetensors too; remove what is no part of it",
    ),
    Case(
        "a tokenizer of words for a model of byte pairs",
        prepared(words),
        "model: expected a tokenizer that turns text into tokens, found none; copy tokenizer.json and tokenizer_config.json there",
    ),
    Case(
        "a folder in place of the weights",
        prepared(lambda model: [(model / "model.safetensors").unlink(), (model / "model.safetensors").mkdir()]),
        "model: expected weights as safetensors, found none; convert the checkpoint",
    ),
    Case(
        "a link to nothing in place of the weights",
        prepared(
            lambda model: [(model / "model.safetensors").unlink(), (model / "model.safetensors").symlink_to("nothing")]
        ),
        "model/model.safetensors: No such file or directory",
    ),
    Case(
        "no such folder",
        prepared(lambda model: shutil.rmtree(model)),
        "model: expected a model folder with config.json, found none",
    ),
]

# Unusual models that are read as they are
READ = [
    ("a tied head that is stored too", add("lm_head.weight", lambda state: state["model.embed_tokens.weight"].clone())),
    (
        "a buffer of earlier versions of transformers",
        add("model.layers.0.self_attn.rotary_emb.inv_freq", lambda state: state["model.norm.weight"][:8]),
    ),
    ("tensors under the names of a model without head", rename("model.", "")),
    ("weights in bfloat16", cast("bfloat16")),
    ("weights in float64", cast("float64")),
    ("whole shards", sharded()),
    (
        "old code for a class that transformers has",
        edited("config.json", auto_map={"AutoModelForCausalLM": "modeling_qwen2.Qwen2ForCausalLM"}),
    ),
    ("a tokenizer.json alone", without("tokenizer_config.json")),
    ("an unknown class of tokenizer", edited("tokenizer_config.json", tokenizer_class="MyTokenizer")),
    (
        "generation ends at several tokens, the study's among them",
        edited("generation_config.json", eos_token_id=[5, 0]),
    ),
]

test_models = check_case(CASES)


@pytest.mark.parametrize(("name", "prepare"), READ, ids=[name for name, _ in READ])
def test_unusual_models_are_read(name, prepare, tmp_path, scratch_model, monkeypatch):
    shutil.copytree(scratch_model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    program, *flags = prepare(tmp_path)
    code, _, errors = run(program, flags)
    assert (code, errors) == (0, "")
    assert (tmp_path / "out.json").exists()
