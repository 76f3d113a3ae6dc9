"""Answers of the running batch are those of lm-eval's own `HFLM` at batch size 1."""

from collections import Counter

import pytest
import torch
from families import FAMILIES, random_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import GenerationConfig, PreTrainedTokenizerFast

from wspin.errors import StudyError
from wspin.eval.generation import ContinuousBatchingLM
from wspin.eval.shared_prefix import SharedPrefixLM
from wspin.models import folders

LIMIT = {"max_gen_toks": 24}


def spaced_tokenizer():
    """Llama's kind: words begin with a space unless they begin the text, and every text begins with BOS."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*"▁\n:(", *letters, *(a + b for a in letters for b in letters)]
    vocabulary = {word: i for i, word in enumerate(["<unk>", *words[:265]])}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = {f"{name}_token": AddedToken(f"<{name}>", special=True) for name in ("bos", "eos")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    bos = [("<bos>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=bos)
    return tokenizer


@pytest.fixture
def byte_tokenizer(scratch_model):
    return folders.load_tokenizer(scratch_model)


def backends(model, tokenizer, batch_size=4, **options):
    """(lm-eval's own at batch size 1, ours)"""
    options |= {"pretrained": model, "tokenizer": tokenizer, "max_length": 96}
    return HFLM(**options, batch_size=1), ContinuousBatchingLM(**options, batch_size=batch_size)


def requests_of(pairs):
    return [Instance("generate_until", {}, pair, 0, ("task", i, 1)) for i, pair in enumerate(pairs)]


PROMPTS = [
    *["Spell stone", "a", "Spell this word backward (example: sun -> nus): river", "naïve café ☃ 漢字", "b\n\n"],
    *["cloud " * 40, "<|endoftext|>garden", "<bos>garden", " silver", "abc" * 60],  # two are longer than the window
]


def stop_strings(texts):
    """Strings that end some of the answers early: one or two characters of what they say, and no parts of one."""
    said = [text[i : i + size] for text in texts for size in (1, 2) for i in range(4, len(text) - 1)]
    return [string for string, _ in Counter(said).most_common()[::-1] if "\ufffd" not in string][:12]


@pytest.mark.parametrize(("kind", "own"), FAMILIES)
def test_answers_are_those_of_lm_eval(kind, own, byte_tokenizer):
    """Prompts of all lengths, unicode, cut prompts, limits and stop strings by request, in batches of several sizes."""
    for tokenizer in (byte_tokenizer, spaced_tokenizer()):
        model = random_model(kind, own)
        theirs, ours = backends(model, tokenizer)
        texts = theirs.generate_until(requests_of([(prompt, LIMIT) for prompt in PROMPTS]), True)
        assert sum(map(bool, texts)) > 5
        said = Counter(i for text in texts for i in theirs.tok_encode(text))
        model.generation_config.eos_token_id = [min(said, key=said.get), tokenizer.eos_token_id]
        stops = stop_strings(texts)
        options = [{"until": stops[i : i + 3], "max_gen_toks": 8 + 4 * (i % 5)} for i in range(len(PROMPTS))]
        options[0] = {"until": stops[0], "do_sample": False, "temperature": 0.0, "max_new_tokens": 24}
        requests = requests_of(list(zip(PROMPTS, options, strict=True)))
        expected = theirs.generate_until(requests, True)
        assert ours.generate_until(requests, True) == expected
        assert len({len(text) for text in expected}) > 3
        assert expected != texts


def test_an_answer_leaves_with_its_stop_string(byte_tokenizer):
    """And its place is taken: every step gives a token that is needed."""
    model = random_model("Qwen2", {})
    theirs, ours = backends(model, byte_tokenizer, batch_size=2)
    whole = theirs.generate_until(requests_of([(prompt, LIMIT) for prompt in PROMPTS[:5]]), True)
    requests = requests_of(
        [(prompt, LIMIT | {"until": [text[2:4]]}) for prompt, text in zip(PROMPTS, whole, strict=False)]
    )
    rows = []
    model.register_forward_pre_hook(lambda _, __, named: rows.append(named["input_ids"].shape), with_kwargs=True)
    texts = ours.generate_until(requests, True)
    steps = sum(count for count, new in rows if new == 1)
    needed = [len(byte_tokenizer.encode(text[:4])) for text in whole]
    assert texts == [text[: text.index(text[2:4])] for text in whole]
    assert steps <= sum(needed)


def test_the_examples_of_all_prompts_are_read_once(byte_tokenizer):
    model = random_model("Qwen2", {})
    theirs, ours = backends(model, byte_tokenizer)
    prompts = [
        "Spell this word backward (example: sun -> nus), stone: enots " + word
        for word in ("river", "cloud", "silver", "a", "bb")
    ]
    requests = requests_of([(prompt, LIMIT) for prompt in prompts])
    expected = theirs.generate_until(requests, True)
    tokens = []
    model.register_forward_pre_hook(lambda _, __, named: tokens.append(named["input_ids"].numel()), with_kwargs=True)
    assert ours.generate_until(requests, True) == expected
    lengths = [len(byte_tokenizer.encode(prompt)) for prompt in prompts]
    assert tokens[0] > 32
    assert tokens[0] + tokens[1] < sum(lengths) / 2


@pytest.mark.parametrize("add_bos_token", [None, True, False])
def test_bos_is_added_as_by_lm_eval(add_bos_token):
    tokenizer = spaced_tokenizer()
    theirs, ours = backends(random_model("Llama", {}), tokenizer, add_bos_token=add_bos_token)
    requests = requests_of([(prompt, LIMIT) for prompt in ("abc", "<bos>abc", "ab", "<bos>ab")])
    prompts = [ours._request(*request.args).prompt for request in requests]
    assert [prompt[0] == tokenizer.bos_token_id for prompt in prompts] == [add_bos_token is not False, True] * 2
    assert prompts[0] == prompts[1] or add_bos_token is False
    assert ours.generate_until(requests, True) == theirs.generate_until(requests, True)


def test_special_tokens_end_an_answer_but_are_no_part_of_it(byte_tokenizer):
    """With an EOS that the model does not know, lm-eval looks for it in the text."""
    model = random_model("Qwen2", {})
    theirs, ours = backends(model, byte_tokenizer)
    requests = requests_of([(prompt, LIMIT) for prompt in PROMPTS])
    said = Counter(theirs.tok_encode("".join(theirs.generate_until(requests, True))))
    frequent = max(range(256), key=lambda i: said[i])
    with torch.no_grad():
        weight = model.lm_head.weight
        weight[[frequent, byte_tokenizer.eos_token_id]] = weight[[byte_tokenizer.eos_token_id, frequent]]
    expected = theirs.generate_until(requests, True)
    assert ours.generate_until(requests, True) == expected
    assert len({len(text) for text in expected}) > 3


def test_the_models_own_limit_comes_first(byte_tokenizer):
    """As in transformers."""
    model = random_model("Qwen2", {})
    model.generation_config.max_new_tokens = 6
    theirs, ours = backends(model, byte_tokenizer)
    requests = requests_of([(prompt, LIMIT) for prompt in PROMPTS])
    assert ours.generate_until(requests, True) == theirs.generate_until(requests, True)


def test_a_prompt_without_room_is_refused(byte_tokenizer):
    _, ours = backends(random_model("Qwen2", {}), byte_tokenizer)
    with pytest.raises(StudyError) as error:
        ours.generate_until(requests_of([("a", {"max_gen_toks": 96})]), True)
    assert str(error.value) == "max_gen_toks: expected less than 96, the model's context, found 96"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"do_sample": True, "temperature": 1.0}, "do_sample=True of the task"),
        ({"temperature": 0.5}, "temperature=0.5 of the task"),
        ({"repetition_penalty": 1.5}, "repetition_penalty=1.5 of the task"),
        ({"num_beams": 2}, "num_beams=2 of the task"),
    ],
)
def test_other_decoding_stays_lm_evals(byte_tokenizer, capsys, options, reason):
    theirs, ours = backends(random_model("Qwen2", {}), byte_tokenizer, 1)
    pairs = [(prompt, LIMIT | (options if i % 2 else {})) for i, prompt in enumerate(PROMPTS[:6])]
    torch.manual_seed(0)
    expected = theirs.generate_until(requests_of(pairs[1::2]), True)
    torch.manual_seed(0)
    found = ours.generate_until(requests_of(pairs), True)
    assert found[1::2] == expected
    assert capsys.readouterr().out == f"eval: 3 answers by lm-eval's own generation, because of {reason}\n"


@pytest.mark.parametrize(
    ("own", "foreign"),
    [
        ({"repetition_penalty": 1.5}, True),
        ({"no_repeat_ngram_size": 2}, True),
        ({"suppress_tokens": [40]}, True),
        ({"min_new_tokens": 5}, True),
        ({"repetition_penalty": 1.0, "num_beams": 1, "no_repeat_ngram_size": 0, "top_k": 20}, False),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.8, "max_length": 2048, "eos_token_id": [3, 4]}, False),
    ],
)
def test_a_model_with_own_decoding_stays_lm_evals(byte_tokenizer, capsys, own, foreign):
    model = random_model("Qwen2", {})
    model.generation_config = GenerationConfig(**own)
    theirs, ours = backends(model, byte_tokenizer, 1)
    requests = requests_of([(prompt, LIMIT) for prompt in PROMPTS[:4]])
    expected = theirs.generate_until(requests, True)
    assert ours.generate_until(requests, True) == expected
    name, value = next(iter(own.items()))
    reason = f"eval: 4 answers by lm-eval's own generation, because of generation_config.{name}={value} of the model\n"
    assert capsys.readouterr().out == (reason if foreign else "")


def test_answers_are_cached_and_counted(byte_tokenizer):
    _, ours = backends(random_model("Qwen2", {}), byte_tokenizer)
    cached, progress = [], []
    ours.cache_hook.add_partial = lambda *entry: cached.append(entry)
    ours.on_progress = progress.append
    texts = ours.generate_until(requests_of([(prompt, LIMIT) for prompt in PROMPTS]), True)
    expected = [("generate_until", (prompt, LIMIT), text) for prompt, text in zip(PROMPTS, texts, strict=True)]
    assert sorted(cached, key=str) == sorted(expected, key=str)
    assert progress == list(range(1, 11))


@pytest.mark.parametrize("kind", ["Qwen2", "GPT2"])
def test_bfloat16_products_are_those_of_lm_eval(byte_tokenizer, kind):
    """From weights that are cast once, where lm-eval's model casts them in every pass."""
    options = {"pretrained": random_model(kind, {}), "tokenizer": byte_tokenizer, "max_length": 96, "batch_size": 1}
    options["mixed_precision_dtype"] = "bfloat16"
    requests = requests_of([(prompt, LIMIT) for prompt in PROMPTS[:6]])
    expected = HFLM(**options).generate_until(requests, True)
    ours = SharedPrefixLM(**options, token_budget=256)
    assert ours.model.get_output_embeddings().weight.dtype == torch.bfloat16
    assert ours.generate_until(requests, True) == expected
