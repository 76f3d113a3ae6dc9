"""Token ends of many answers at once are those of each answer, token by token, whatever the tokenizer."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import CORPUS, TOKENIZERS
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from wspin.config.stages import Dialogue
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
