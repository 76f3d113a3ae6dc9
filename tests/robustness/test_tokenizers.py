"""Tokenizers: texts that they cannot spell, and tokens that no text may become."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from inputs import Case, check_case, run
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from wspin.models import folders

ALPHABET = [*"abcdefghijklmnopqrstuvwxyz<>/|_", "\u2581"]
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
FLAGS = [
    *("--max-prompt-tokens", "64", "--max-tokens", "96", "--max-new-tokens", "8", "--eos-on-cut", "false"),
    *("--template", "q {prompt} a", "--source", "source", "--split", "train", "--output", "out.parquet"),
    *("--output-digest", "out.json", "--fits", "model", "--templates", "q {prompt} a", "--rows", "1", "--seed", "1"),
]


def unigram():
    """As T5's: the control tokens are pieces of the vocabulary; what is no letter and no space is unknown."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((character, -2.0) for character in ALPHABET)]
    backend = Tokenizer(Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.Replace("\u200b", "")
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


def characters(**options):
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "</s>", *ALPHABET, "ab"])}
    backend = Tokenizer(BPE(vocabulary, [("a", "b")], unk_token="<unk>", **options))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


def data(backend, prompt="a river", response="the stone", *added, eos="</s>"):
    """Prepares `data prompts` of one row, for a model with this tokenizer and added tokens."""

    def prepare(folder):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / "model" / name).unlink()
        config = folder / "model/config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | LLAMA))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend(), eos_token="</s>", unk_token="<unk>")
        tokenizer.add_tokens(list(added))
        tokenizer.save_pretrained(folder / "model")
        folders.write_manifest(folder / "model", folder / "model.json")
        (folder / "source").mkdir()
        pq.write_table(pa.table({"prompt": [prompt], "response": [response]}), folder / "source/train.parquet")
        return ["data", "prompts", *FLAGS, "--eos", eos]

    return prepare


def generate(prepare, eos):
    """Prepares `generate` from the row that `data` has written."""

    def prepare_rows(folder):
        program, *flags = prepare(folder)
        folders.write_manifest(folder / "model", folder / "model.json")
        code, _, errors = run(program, flags)
        assert code == 0, errors
        sampling = ["--engine", "transformers", "--temperature", "1.0", "--top-p", "1.0", "--max-new-tokens", "8"]
        dialogue = ["--max-prompt-tokens", "64", "--max-tokens", "96", "--eos-on-cut", "false", "--eos", eos]
        paths = [
            "--model",
            "model",
            "--manifest",
            "model.json",
            "--prompts",
            "out.parquet",
            "--state",
            "state/generate",
        ]
        shard = ["--shard", "0", "--shard-size", "1", "--seed", "1", "0", "--output", "generations.parquet"]
        return ["generate", *paths, *shard, *sampling, "--batch-size", "1", *dialogue, "--template", "q {prompt} a"]

    return prepare_rows


def none_fits(reason, remedy="choose other rows"):
    return f"data: expected 1 rows that fit, found 0 of 1 (1 {reason}); {remedy}"


READ = "out.parquet: 1 rows of split train; passed over: none"
NO_TOKEN = none_fits("without a token for prompt or answer")
UNKNOWN = none_fits(
    "with unknown characters", "take a model whose tokenizer spells them, or remove them from the texts"
)
EOS = "dialogue.eos: expected one token of the tokenizer, found"

CASES = [
    Case("a prompt with `</s>`, a piece of the vocabulary (T5, XGLM)", data(unigram, "a</s> river"), READ, code=0),
    Case("an answer with `</s>` inside, a piece of the vocabulary", data(unigram, "a", "the</s> stone"), READ, code=0),
    Case("a prompt with the text `<unk>`", data(unigram, "a <unk> river"), READ, code=0),
    Case("a prompt with a character that the tokenizer does not know", data(unigram, "a 日 river"), UNKNOWN),
    Case("an answer with a character that the tokenizer does not know", data(unigram, "a", "日"), UNKNOWN),
    Case("a prompt that the tokenizer normalises away", data(unigram, "\u200b"), NO_TOKEN),
    Case("an answer that the tokenizer normalises away", data(unigram, "a", "\u200b\u200b"), NO_TOKEN),
    Case("an empty answer", data(unigram, "a", ""), READ, code=0),
    Case(
        "special tokens that strip the spaces around them (Phi-3)",
        data(unigram, "a <|x|> river", "stone", AddedToken("<|x|>", lstrip=True, rstrip=True, special=True)),
        READ,
        code=0,
    ),
    Case(
        "a tokenizer that draws the tokens of a text",
        data(lambda: characters(dropout=0.1)),
        "model/tokenizer.json: model.dropout: expected none, found 0.1, which draws a text's tokens; write null there",
    ),
    Case(
        "an EOS that is a piece of ordinary text",
        generate(data(characters), "ab"),
        f"{EOS} 'ab', which is a piece of ordinary text; its own EOS is '</s>'",
    ),
    Case(
        "an EOS of another model",
        generate(data(characters), "<|im_end|>"),
        f"{EOS} '<|im_end|>', which is none; its own EOS is '</s>'",
    ),
]

test_tokenizers = check_case(CASES)
