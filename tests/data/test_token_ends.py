"""Token ends of many answers at once are those of each answer, token by token, whatever the tokenizer."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import CORPUS, TOKENIZERS
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from wspin.config.stages import Dialogue
from wspin.data import token_ends
from wspin.data.chat import ChatTokenizer
from wspin.data.token_ends import batch_ends

BROKEN = "\ufffd"
PIECES = [*CORPUS, "</s>", "<|call|>", "e\u0301", "\u0301", "👧", "日", " ", "\n", BROKEN, "\x00", "the", "##the"]


@pytest.fixture(scope="module")
def chats():
    """By kind: a tokenizer with tokens that were added to it, special ones and others."""
    dialogue = Dialogue(template="{prompt}", eos="</s>", max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)
    chats = {}
    for kind, build in TOKENIZERS.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=build(), eos_token="</s>", unk_token="<unk>")
        tokenizer.add_tokens([AddedToken("<|call|>", special=True), AddedToken(" é日", special=False), "name"])
        chats[kind] = ChatTokenizer(tokenizer, dialogue)
    return chats


def oracle(chat, ids):
    """End of each token: decoded from the last complete character but one, by the library's own `decode`."""

    def decode(ids):
        return chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    body = ids[:-1] if ids and ids[-1] == chat.eos else ids
    ends, length, window, complete = [], 0, 0, 0
    for i in range(len(body)):
        before, after = decode(body[window:complete]), decode(body[window : i + 1])
        if after.endswith(BROKEN) and i + 1 < len(body):
            continue
        length += len(after) - len(before)
        ends += [length] * (i + 1 - len(ends))
        window, complete = complete, i + 1
    if length != (total := len(decode(body))):
        ends = [min(len(decode(body[: i + 1])), total) for i in range(len(body) - 1)]
        ends, length = [*itertools.accumulate(ends, max), total], total
    return ends + [length] * (len(ids) - len(body))


def answers_of(chat):
    """A text's ids, any ids, and both with EOS at their end; parts of characters and unknown tokens among them."""
    characters = st.characters(exclude_categories=["Cs"])
    texts = st.one_of(st.text(characters, max_size=20), st.lists(st.sampled_from(PIECES), max_size=5).map("".join))
    any_ids = st.lists(st.integers(0, len(chat.tokenizer) - 1), max_size=20)
    of_text = texts.map(lambda text: chat.tokenize_response(text)[0])
    ids = st.one_of(of_text, any_ids, st.tuples(of_text, any_ids).map(lambda parts: [*parts[0], *parts[1]]))
    return st.one_of(ids, ids.map(lambda ids: [*ids, chat.eos]))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ends_are_those_of_each_answer_alone(chats, kind):
    chat = chats[kind]

    @settings(max_examples=100)
    @given(st.lists(answers_of(chat), max_size=4))
    @example([])
    @example([[], [chat.eos], []])
    @example([chat.response_ids(text) for text in CORPUS])
    def check(answers):
        expected = [oracle(chat, ids) for ids in answers]
        assert chat.batch_token_ends(answers) == expected
        lengths = [len(chat.decode_response(ids)) for ids in answers]
        assert chat.batch_token_ends(answers, lengths) == expected
        assert [chat.decode_response(ids) for ids in answers] == [
            chat.tokenizer.decode(ids[:-1] if ids[-1:] == [chat.eos] else ids, clean_up_tokenization_spaces=False)
            for ids in answers
        ]

    check()


@pytest.mark.parametrize("kind", ["bytes", "sentence_bpe", "unigram", "word_piece"])
@pytest.mark.parametrize(
    ("text", "longer"), [("the river and the garden, the end.", 0), ("the river 👧 and the end.", 14)]
)
def test_a_window_is_decoded_once(chats, kind, text, longer):
    """Not two windows for every token, but at a character of several tokens."""
    chat = chats[kind]
    answers = 50 * [chat.tokenize_response(text)[0]]
    lengths = [len(chat.decode_response(ids)) for ids in answers]
    decoded = []

    def decode_batch(batch):
        decoded.extend(batch)
        return chat.tokenizer.backend_tokenizer.decode_batch(batch, skip_special_tokens=False)

    assert batch_ends(answers, lengths, decode_batch) == 50 * [oracle(chat, answers[0])]
    assert len(decoded) <= len(answers) * longer + 2 * len(answers[0])


def ends_and_work(chat, ids):
    """An answer's ends, and how many tokens were decoded for them."""
    decoded = 0

    def decode_batch(answers):
        nonlocal decoded
        decoded += sum(map(len, answers))
        return chat._decode_batch(answers)

    text = chat.decode_response(ids)
    return batch_ends([ids], [len(text)], decode_batch)[0], decoded


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("piece", ["日本語", "👧🏽", BROKEN, "a"])
def test_work_grows_with_a_text_without_blanks_and_not_with_its_square(chats, kind, piece):
    work = []
    for characters in (1_000, 4_000):
        ids = chats[kind].tokenize_response((piece * characters)[:characters])[0]
        ends, decoded = ends_and_work(chats[kind], ids)
        assert ends == sorted(ends)
        assert [0, *ends][-1] == len(chats[kind].decode_response(ids))
        work.append(decoded)
    assert work[1] <= 6 * work[0]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_work_grows_so_where_invalid_bytes_change_the_text_before_them(chats, kind, monkeypatch):
    monkeypatch.setattr(token_ends, "PREFIXES", 64)
    chat, work = chats[kind], []
    byte = chat.tokenize_response("👧")[0][-1]  # a part of it, where the tokenizer has bytes
    for count in (500, 2_000):
        ids = [*chat.tokenize_response("日")[0], byte] * count
        ends, decoded = ends_and_work(chat, ids)
        assert ends == sorted(ends)
        assert ends[-1] == len(chat.decode_response(ids))
        work.append(decoded)
    assert work[1] <= 6 * work[0]


def test_an_answer_without_tokens_has_no_ends():
    """Also beside a text, as in files whose ids and texts were given apart."""
    assert batch_ends([[]], [3], lambda answers: ["" for _ in answers]) == [[]]
