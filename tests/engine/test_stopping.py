"""A stop string is found in the text of an answer, however its tokens divide it."""

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from wspin.engine.stopping import CONTEXT, StopStrings

BYTES = {f"<0x{i:02X}>": i for i in range(256)}
WORDS = ["▁", "▁Question", ":", "▁Q", "uest", "ion", "▁answer", "é", "\n", "▁é"]
VOCABULARY = BYTES | {word: 256 + i for i, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def tokenizer():
    """Llama's kind: words begin with a space, but not the text; other characters are bytes."""
    made = Tokenizer(BPE(vocab=VOCABULARY, merges=[], byte_fallback=True, unk_token=None))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def first_end(tokenizer, strings, ids):
    """Tokens of the answer when it ends; None if it goes on."""
    stop = StopStrings(tokenizer.decode, strings)
    return next((count for count in range(1, len(ids) + 1) if stop(ids[:count])), None)


def ids_of(*words):
    return [VOCABULARY[word] for word in words]


@pytest.mark.parametrize(
    ("strings", "words", "count"),
    [
        (["Question:"], ["▁answer", "▁Question", ":", "▁answer"], 3),
        (["Question:"], ["▁answer", "▁Q", "uest", "ion", ":", "▁answer"], 5),
        (["Question:"], ["▁answer", *(f"<0x{byte:02X}>" for byte in b" Question:")], 11),
        (["Question:"], ["▁answer", "▁Question", "▁answer"], None),
        (["é"], ["▁answer", "<0xC3>", "<0xA9>", "▁answer"], 3),  # complete with its second byte
        (["é"], ["▁answer", "<0xC3>", "▁answer", "<0xA9>"], None),
        (["nothing", "\n"], ["▁answer", "\n"], 2),
        ([" Q"], ["▁Q", "▁Q"], 2),  # the first token has no space at the beginning of a text
        (["Q"], ["▁Q", "▁Q"], 1),
        (["", "ion"], ["▁answer", "▁Question"], 2),  # every text holds the empty string
        ([], ["▁answer"] * 3, None),
    ],
)
def test_an_answer_ends_with_the_token_that_completes_a_stop_string(tokenizer, strings, words, count):
    assert first_end(tokenizer, strings, ids_of(*words)) == count


def test_a_stop_string_in_the_last_tokens_alone_does_not_count(tokenizer):
    """A space that begins a text is dropped, so the last tokens may read as the whole does not."""
    stop = StopStrings(lambda ids: "^" + tokenizer.decode(ids), ["^answer"])
    assert stop(ids_of("▁answer"))
    assert stop(ids_of("▁answer") * 30)
    assert not stop(ids_of("▁é", *["▁answer"] * 30))


def test_a_token_costs_the_decoding_of_the_last_tokens(tokenizer):
    decoded = []
    stop = StopStrings(lambda ids: decoded.append(len(ids)) or tokenizer.decode(ids), ["Question:", "\n"])
    for count in range(1, 200):
        assert not stop(ids_of("▁answer") * count)
    assert max(decoded) == CONTEXT + len("Question:")
    assert len(decoded) == 199
