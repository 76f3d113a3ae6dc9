"""Text to ids and back, and where each token ends."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from wspin.config.sources import Scratch
from wspin.config.stages import Dialogue
from wspin.data.chat import ChatTokenizer
from wspin.data.rendering import Template
from wspin.engine.packing import pack
from wspin.errors import StudyError
from wspin.logprobs.inputs import preference_answers
from wspin.models import folders
from wspin.models.scratch import make_scratch
from wspin.templates import TEMPLATES

EOS = "<|endoftext|>"
BROKEN = "\ufffd"  # what bytes decode to that are no character, or only a part of one
MIXED = "e\u0301te\u0301 naïve 日本語 ภาษาไทย 👩‍👩‍👧‍👦🇺🇳 \r\n\r\n12,345 don't\tend"
PIECES = [
    *MIXED.split(),
    "\r\n",
    "  ",
    "\u200d",
    "\U0001f468",
    "\u0e49",
    "\u0301",
    BROKEN,
    EOS,
    "</s>",
    "{prompt}",
    "\x00",
]


def nfc(text):
    """The tokenizer composes accents: texts are compared after that."""
    return unicodedata.normalize("NFC", text)


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
).map(nfc)


def render(template, prompt, tokenizer=None):
    return Template(template, tokenizer).render(prompt).text


def settings_of(template="human-assistant", eos=EOS, eos_on_cut=False):
    return Dialogue(template=template, eos=eos, max_prompt_tokens=64, max_tokens=96, eos_on_cut=eos_on_cut)


@pytest.fixture(scope="module")
def zephyr(scratch_model, tmp_path_factory):
    """A tokenizer with more special tokens, and a template that holds one of them."""
    folder = tmp_path_factory.mktemp("zephyr")
    tokenizer = folders.load_tokenizer(scratch_model)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<s>", "</s>"], "unk_token": "<unk>"})
    tokenizer.save_pretrained(folder)
    return ChatTokenizer(folders.load_tokenizer(folder), settings_of("zephyr", "</s>"))


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A byte-level tokenizer whose tokens hold parts of characters, one's end with another's beginning among them."""
    folder = tmp_path_factory.mktemp("multilingual")
    size = {"vocabulary": 300, "hidden": 4, "intermediate": 4, "layers": 1, "heads": 1, "context": 8}
    settings = Scratch(architecture="qwen2", text="sft", **size)
    make_scratch(settings, [nfc(MIXED), "日本日本", "👩‍👩‍👧‍👦👩‍👩‍👧‍👦", "été"] * 9, EOS, 1, folder)
    return ChatTokenizer(folders.load_tokenizer(folder), settings_of())


@pytest.fixture(scope="module")
def sentencepiece():
    """A tokenizer as Llama's and Mistral's: spaces are letters, characters without a token are bytes."""
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("n", "d")]
    tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz"]
    tokens += map("".join, merges)
    made = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges, byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    byte_fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(byte_fallback)
    made.post_processor = processors.TemplateProcessing("<unk> $A", special_tokens=[("<unk>", 0)])  # as Llama's BOS
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    return ChatTokenizer(tokenizer, settings_of(eos="</s>"))


# Prompts and answers


def test_render_puts_the_users_text_into_the_template():
    assert render("human-assistant", "Hi.") == "\n\n<Human>:Hi.\n\n<Assistant>:"
    assert render("Q {x}: {prompt} A:", "{prompt} {x} \\1") == "Q {x}: {prompt} {x} \\1 A:"


@pytest.mark.parametrize("template", ["zephir", "", "no place", "{prompt} twice {prompt}"])
def test_a_template_without_one_prompt_is_refused(chat, template):
    for action in (lambda: Template(template), lambda: ChatTokenizer(chat.tokenizer, settings_of(template))):
        with pytest.raises(StudyError, match=r"template .*: expected one of human-assistant, .*\{prompt\} once"):
            action()


@pytest.mark.parametrize("template", [*TEMPLATES, "Q: {prompt}\nA:"])
@pytest.mark.parametrize("prompt", ["Hi", "", MIXED, f"what is {EOS}?", "{prompt}", " both ends "])
def test_prompt_ids_decode_to_the_rendered_prompt(chat, template, prompt):
    ids = ChatTokenizer(chat.tokenizer, settings_of(template)).prompt_ids(prompt)
    assert chat.tokenizer.decode(ids) == nfc(render(template, prompt))


@given(prompt=TEXTS, response=TEXTS)
def test_trap_29_generation_starts_from_a_prefix_of_the_training_ids(chat, prompt, response):
    """And the one EOS of the training ids is their last."""
    rows = pa.table({"prompt_id": ["a"], "prompt": [prompt], "chosen": [response], "rejected": [""]})
    batch = pack(preference_answers(rows, chat).items(chat))
    prompt_ids = chat.prompt_ids(prompt)
    read, last = len(prompt_ids) + batch.counts[0] - 1, batch.targets[batch.counts[0] - 1]  # which is predicted alone
    trained = [*batch.input_ids[0, :read].tolist(), int(last)]
    assert trained[: len(prompt_ids)] == prompt_ids
    assert trained.index(chat.eos) == len(trained) - 1
    assert chat.decode_response(trained[len(prompt_ids) :]) == response
    assert len(chat.tokenize_response(response)[0]) + 1 == batch.counts[0]


def test_an_empty_answer_is_eos_alone(chat):
    assert chat.response_ids("") == [chat.eos]
    assert chat.decode_response([chat.eos]) == ""
    assert chat.token_ends([chat.eos]) == [0]


@pytest.mark.parametrize("kind", ["chat", "zephyr", "multilingual", "sentencepiece"])
def test_texts_are_tokenised_in_batches(request, kind, monkeypatch):
    """Each to the ids, and the ends, that it has alone."""
    chat, texts = request.getfixturevalue(kind), ["", *map(nfc, PIECES), nfc(MIXED), "Hi", "the end"]
    prompts, answers = list(map(chat.prompt_ids, texts)), list(map(chat.tokenize_response, texts))
    encode, batches = ChatTokenizer._encodings, []
    counted = lambda self, batch, **flags: batches.append(batch) or encode(self, batch, **flags)  # noqa: E731
    monkeypatch.setattr(ChatTokenizer, "_encodings", counted)
    assert chat.batch_prompt_ids(texts) == prompts
    assert len(batches) < len(texts)
    batches.clear()
    assert chat.tokenize_responses(texts) == answers
    assert len(batches) == 1 + sum(len(batch) == 1 for batch in batches)
    assert chat.batch_prompt_ids([]) == chat.tokenize_responses([]) == []


@pytest.mark.parametrize("kind", ["chat", "zephyr", "multilingual", "sentencepiece"])
@pytest.mark.parametrize("split", [True, False])
def test_texts_are_encoded_as_the_tokenizer_encodes_them(request, kind, split):
    """Whatever it was asked for before: it may cut and pad, and find special tokens or not."""
    chat, texts = request.getfixturevalue(kind), ["", EOS, nfc(MIXED), f"Hi {EOS}, the end", "the river " * 50]
    flags = {"add_special_tokens": False, "split_special_tokens": split}
    expected = chat.tokenizer(texts, return_offsets_mapping=True, **flags)
    chat.tokenizer(texts, truncation=True, max_length=2, add_special_tokens=False, split_special_tokens=not split)
    chat.tokenizer.backend_tokenizer.enable_truncation(2)
    chat.tokenizer.backend_tokenizer.enable_padding(length=9)
    encodings = list(chat._encodings(texts, split_special_tokens=split))
    assert [encoding.ids for encoding in encodings] == expected["input_ids"]
    assert [encoding.offsets for encoding in encodings] == expected["offset_mapping"]
    without = chat._encodings(texts, split_special_tokens=split, with_offsets=False)
    assert [encoding.ids for encoding in without] == expected["input_ids"]


@pytest.mark.parametrize("text", [EOS, f"a{EOS}b", f"{EOS}{EOS}"])
def test_the_users_text_stays_text(chat, text):
    assert chat.eos not in chat.prompt_ids(text)
    assert chat.response_ids(text).index(chat.eos) == len(chat.response_ids(text)) - 1
    assert chat.decode_response(chat.response_ids(text)) == text


@pytest.mark.parametrize("text", ["</s>", f"<s>{EOS}</s><unk>", "<|system|>\n</s>"])
def test_the_users_text_stays_text_with_many_special_tokens(zephyr, text):
    special = set(zephyr.tokenizer.all_special_ids)
    assert len(special) == 4
    prompt_ids = zephyr.prompt_ids(text)
    assert [i for i in prompt_ids if i in special] == [zephyr.special_tokens["<s>"], zephyr.eos, zephyr.eos]
    assert not special & set(zephyr.response_ids(text)[:-1])
    assert zephyr.tokenizer.decode(prompt_ids) == render("zephyr", text)
    assert zephyr.decode_response(zephyr.response_ids(text)) == text


def test_special_tokens_of_the_template_stay_special(zephyr):
    ids = zephyr.prompt_ids("hi")
    ends = [i for i, token in enumerate(ids) if token == zephyr.eos]
    pieces = [zephyr.tokenizer.decode(ids[a:b]) for a, b in zip([0, *ends], [*ends, len(ids)], strict=True)]
    assert pieces == ["<s><|system|>\n", "</s>\n<|user|>\nhi", "</s>\n<|assistant|>\n"]


def test_template_without_special_tokens_has_none(chat):
    """`</s>` is text where the tokenizer does not know it."""
    zephyr = ChatTokenizer(chat.tokenizer, settings_of("zephyr"))
    assert chat.eos not in zephyr.prompt_ids("hi")


@pytest.mark.parametrize("eos", ["<|im_end|>", "ab"])
def test_an_eos_that_is_not_one_token_is_refused(chat, zephyr, eos):
    """Also where the tokenizer returns its unknown token."""
    for tokenizer in (chat.tokenizer, zephyr.tokenizer):
        with pytest.raises(StudyError, match=r"dialogue\.eos: expected one token of the tokenizer, found"):
            ChatTokenizer(tokenizer, settings_of(eos=eos)).response_ids("hi")


def test_a_truncated_response_has_eos_only_with_eos_on_cut(chat):
    adds_eos = ChatTokenizer(chat.tokenizer, settings_of(eos_on_cut=True))
    assert chat.generated_ids([5, 6], "length") == [5, 6]
    assert adds_eos.generated_ids([5, 6], "length") == [5, 6, chat.eos]
    for either in (chat, adds_eos):
        assert either.generated_ids([5, chat.eos], "stop") == [5, chat.eos]


# Ends


def expected_ends(chat, ids):
    """A token ends where the shortest whole prefix that holds it ends, or at the text's end."""
    body = ids[:-1] if ids and ids[-1] == chat.eos else ids
    prefixes = [chat.tokenizer.decode(body[: i + 1]) for i in range(len(body))]
    whole = len(prefixes[-1]) if prefixes else 0
    ends = []
    for i in range(len(body)):
        ends.append(next((len(p) for p in prefixes[i:] if not p.endswith(BROKEN)), whole))
    return ends + [whole] * (len(ids) - len(body))


KINDS = pytest.mark.parametrize("kind", ["chat", "multilingual", "sentencepiece"])


@KINDS
def test_ends_of_a_text(request, kind):
    chat = request.getfixturevalue(kind)

    @given(text=TEXTS)
    @example(text=nfc(MIXED))
    @example(text="the end")
    def check(text):
        assume(kind != "sentencepiece" or not text.startswith(" "))  # its decoder strips a leading space, as Llama's
        ids = chat.response_ids(text)
        ends = chat.token_ends(ids)
        assert chat.decode_response(ids) == text
        assert len(ends) == len(ids)
        assert ends == sorted(ends)
        assert ends[-1] == len(text)
        for i, end in enumerate(ends[:-1]):
            prefix = chat.tokenizer.decode(ids[: i + 1])
            if text.startswith(prefix) and not prefix.endswith(BROKEN):
                assert text[:end] == prefix
        assert ends == expected_ends(chat, ids)

    check()


@pytest.mark.parametrize("kind", ["chat", "multilingual"])
def test_ends_of_any_generated_ids(request, kind):
    """Bytes that are no characters, and EOS in the middle."""
    chat = request.getfixturevalue(kind)

    @given(st.lists(st.integers(0, len(chat.tokenizer) - 1), max_size=40))
    def check(ids):
        ends = chat.token_ends(ids)
        assert len(ends) == len(ids)
        assert ends == sorted(ends)
        assert ends[-1:] in ([], [len(chat.decode_response(ids))])
        assert ends == expected_ends(chat, ids)

    check()


def test_tokens_may_hold_parts_of_two_characters(multilingual):
    """The tests above cover such tokens."""
    tokens = [multilingual.tokenizer.decode([i]) for i in range(300)]
    assert "a" + BROKEN in tokens
    assert any(token.strip(BROKEN) and token[0] == token[-1] == BROKEN for token in tokens)


def test_ends_by_hand(chat):
    """Two letters, three bytes that share one end, a letter, EOS."""
    ids = chat.response_ids("ab日c")
    assert len(ids) == 7
    assert chat.token_ends(ids) == [1, 2, 3, 3, 3, 4, 4]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_tail_cut_inside_a_character_ends_with_the_text(chat, cut):
    ids = chat.response_ids("ab👧")[:-1][:-cut]
    assert chat.decode_response(ids) == f"ab{BROKEN}"
    assert chat.token_ends(ids) == [1, 2] + [3] * (4 - cut)
    assert chat.token_ends([*ids, chat.eos]) == [*chat.token_ends(ids), 3]


# Tokenizers


@pytest.mark.parametrize("text", [MIXED, "  two  spaces ", "1234567", "I'll we've", "a\n\n\n b", "!?...", "\u2028"])
def test_tokenizer_is_what_was_saved(scratch_model, text):
    """AutoTokenizer puts Qwen2's own pre-tokenizer into every tokenizer of a qwen2 model, whatever was saved."""
    saved = Tokenizer.from_file(str(scratch_model / "tokenizer.json"))
    loaded = folders.load_tokenizer(scratch_model)
    assert loaded(text)["input_ids"] == saved.encode(text).ids
    assert loaded.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text) == saved.pre_tokenizer.pre_tokenize_str(text)


def test_fingerprint_survives_use_and_saving(scratch_model, zephyr, tmp_path):
    for tokenizer in (folders.load_tokenizer(scratch_model), zephyr.tokenizer):
        before = folders.tokenizer_hash(tokenizer)
        chat = ChatTokenizer(tokenizer, settings_of(eos=tokenizer.all_special_tokens[0]))
        chat.token_ends(chat.response_ids(chat.decode_response(chat.prompt_ids(EOS))))
        tokenizer.save_pretrained(tmp_path / before)
        assert folders.tokenizer_hash(tokenizer) == before
        assert folders.tokenizer_hash(folders.load_tokenizer(tmp_path / before)) == before


def test_truncation_and_padding_of_a_checkpoint_do_not_enter(chat, scratch_model, tmp_path):
    tokenizer = folders.load_tokenizer(scratch_model)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.save_pretrained(tmp_path)
    loaded = folders.load_tokenizer(tmp_path)
    assert folders.tokenizer_hash(loaded) == folders.tokenizer_hash(chat.tokenizer)
    assert loaded("a longer text")["input_ids"] == chat.tokenizer("a longer text")["input_ids"]


def test_fingerprint_tells_tokenizers_apart(chat, zephyr):
    assert folders.tokenizer_hash(chat.tokenizer) != folders.tokenizer_hash(zephyr.tokenizer)


# Chat templates

CHATML = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chatml(scratch_model):
    """A tokenizer with a chat template, in which the end of a turn is the end of an answer and the padding."""
    tokenizer = folders.load_tokenizer(scratch_model)
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    tokenizer.add_special_tokens({**names, "extra_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    return ChatTokenizer(tokenizer, settings_of("chat", "<|im_end|>"))


def test_the_models_own_chat_template(chatml):
    """The ids are those of the library's own rendering, one BOS among them."""
    turn = [{"role": "user", "content": "the river"}]
    ids = chatml.tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
    assert chatml.prompt_ids("the river") == ids
    assert ids.count(chatml.tokenizer.bos_token_id) == 1
    assert render("chat", "the river", chatml.tokenizer) == chatml.tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["<|im_end|>", "a <|im_start|>system", "{prompt}"])
def test_user_text_stays_text_in_a_chat_template(chatml, text):
    """The user's special tokens change nothing of what the template says."""
    ids, around = chatml.prompt_ids(text), chatml.prompt_ids("")
    special = chatml.special_tokens.values()
    assert [ids.count(i) for i in special] == [around.count(i) for i in special]
    assert text in chatml.tokenizer.decode(ids)


def test_trap_33_padding_that_is_the_end_of_an_answer_counts_once(chatml):
    assert chatml.tokenizer.pad_token_id == chatml.eos
    assert chatml.response_ids("ok").count(chatml.eos) == 1
    assert chatml.generated_ids([5, 6], "length") == [5, 6]
