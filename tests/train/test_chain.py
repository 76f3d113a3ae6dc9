"""Two iterations by the programs, whose models keep the tokenizer that the study starts with."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE

import generate
import logprobs
import train
from wspin.config.flags import flags
from wspin.config.stages import Dialogue, Generate, Logprobs
from wspin.models import folders
from wspin.storage import tables

DIALOGUE = Dialogue(template="human-assistant", eos="</s>", max_prompt_tokens=32, max_tokens=64, eos_on_cut=False)
WORDS = ("the hand", "an end", "and then", "a thread")


def sentencepiece():
    """A tokenizer.json as Llama's: spaces are letters, characters without a token are bytes."""
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("n", "d")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: i for i, token in enumerate([*tokens, *map("".join, merges)])}
    tokenizer = Tokenizer(BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def checkpoint(folder, family, tokenizer_config):
    """A model of a user's own: its tokenizer's files are those of another version of transformers."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "vocab_size": 290}
    size |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = getattr(transformers, f"{family}Config")(**size)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    sentencepiece().save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**special, **tokenizer_config}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    folders.write_manifest(folder, folder.with_suffix(".json"))
    return folder


@pytest.fixture
def study(tmp_path, train_settings):
    """A folder with prompts, and functions that run the programs in it."""
    ids = [f"train-{i}" for i in range(len(WORDS))]
    rows = {"prompt_id": ids, "prompt": list(WORDS), "response": [word[::-1] for word in WORDS], "split": ["train"] * 4}
    tables.write(tmp_path / "prompts.parquet", "prompts", rows, {})

    def run(program, model, rows, *more, **files):
        paths = {"model": model, "manifest": model.with_suffix(".json"), rows: tmp_path / "prompts.parquet", **files}
        program.main([str(word) for word in (*more, *(w for name in paths for w in (f"--{name}", paths[name])))])

    def answers(model, k):
        settings = Generate(engine="transformers", temperature=1.0, top_p=1.0, max_new_tokens=8, batch_size=4)
        more = [*flags(settings), *flags(DIALOGUE), "--seed", 42, k, "--shard", 0, "--shard-size", 4]
        run(generate, model, "prompts", *more, output=tmp_path / f"said{k}.parquet", state=tmp_path / "state")

    def reference(model, k):
        more = ["reference", *flags(Logprobs(autocast="float32", token_budget=4096)), *flags(DIALOGUE)]
        more += ["--shard", 0, "--shard-size", 4]
        more += ["--replayed", tmp_path / f"said{k - 1}.parquet"] if k else []
        files = {"generations": tmp_path / f"said{k}.parquet", "output": tmp_path / f"reference{k}.parquet"}
        run(logprobs, model, "rows", *more, **files)

    def training(model, k):
        more = [*flags(train_settings()), *flags(DIALOGUE), "--seed", 42, k, "--processes", 1, "--replays", k]
        output = tmp_path / f"ite{k}"
        files = {"reference": tmp_path / f"reference{k}.parquet", "state": tmp_path / "state", "output": output}
        files |= {"output-manifest": output.with_suffix(".json"), "metrics": tmp_path / f"metrics{k}.jsonl"}
        run(train, model, "rows", *more, "--autocast", "float32", **files)
        return output

    return SimpleNamespace(folder=tmp_path, answers=answers, reference=reference, training=training)


STARTS = [
    ("Llama", {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
    ("Gemma", {"tokenizer_class": "GemmaTokenizer", "legacy": True}),
]


@pytest.mark.parametrize(("family", "tokenizer_config"), STARTS)
def test_trap_06_a_chain_keeps_the_tokenizer_of_its_start(study, family, tokenizer_config):
    """Saving a tokenizer can change it: every trained model has the files that its start has."""
    model = start = checkpoint(study.folder / "start", family, tokenizer_config)
    for k in (0, 1):
        study.answers(model, k)
        study.reference(model, k)
        model = study.training(model, k)
    study.answers(model, 2)
    said = [tables.metadata(tables.read(study.folder / f"said{k}.parquet", "generations")) for k in (0, 1, 2)]
    assert len({entries["tokenizer"] for entries in said}) == 1
    assert len({entries["model"] for entries in said}) == 3
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (model / name).read_bytes() == (start / name).read_bytes()
    turn = [{"role": "user", "content": WORDS[0]}]
    text = folders.load_tokenizer(model).apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text == f"\n\n<Human>:{WORDS[0]}\n\n<Assistant>:"
