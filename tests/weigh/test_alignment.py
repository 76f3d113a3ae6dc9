"""Two tokenizers' tokens in the segments of one text."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import TOKENIZERS
from transformers import PreTrainedTokenizerFast

from wspin.config.stages import Dialogue
from wspin.data.chat import ChatTokenizer
from wspin.data.rendering import Template
from wspin.weigh.alignment import align, align_ids

SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t ", "\n ", "\u00a0", "\u3000", "\u2028"]
WORDS = ["the", "river", "don't", "12,345", "end.", "é", "e\u0301te\u0301", "\u0301", "日本", "語", "ภาษาไทย", "مرحبا"]
WORDS += ["👩\u200d👩\u200d👧\u200d👦", "🇺🇳", "👋🏽", "\u200d", "\ufeff", "\ufffd", "\ufffd\ufffd", "\x00"]
TEXTS = st.lists(st.sampled_from(SPACES + WORDS), max_size=12).map("".join)
ARABIC, FAMILY = "مرحبا", "👩\u200d👩\u200d👧\u200d👦🇺🇳"
MIXED = f"The river,  e\u0301te\u0301 naïve\r\n\r\n日本語 ภาษาไทย\u00a0{ARABIC} \u3000 {FAMILY}"
MIXED += " \ufffd\n\n\n 12,345 don't\tend  "
FIXED = ["", " ", "  ", "\n", " \n", "a", " a", "  a", "a ", "a  ", "\r\na\r\n", "\nthe end", "a\u3000\u00a0b", "日本"]
FIXED += ["e\u0301 te\u0301", MIXED]


def places_of(text):
    """Where words and runs of white space begin and end."""
    return {place for run in re.finditer(r"\s+|\S+", text) for place in run.span()}


@st.composite
def sides(draw):
    """A text, and where the tokens of both sides end: zero-length tokens and shared ends among them.

    The student's reach the end of the text, the teacher's may stop before it.
    """
    text = draw(TEXTS)
    if not text:
        return text, [], []
    places = st.integers(0, len(text))
    natural = places_of(text) - {0}

    def side():
        kept = natural - draw(st.sets(st.sampled_from(sorted(natural)), max_size=4))
        return sorted([*kept, *draw(st.lists(places, max_size=5))])

    student, teacher = [*side(), len(text)], side()
    cut = draw(st.one_of(st.just(len(text)), places))
    return text, student, [end for end in teacher if end <= cut]


def borders_by_hand(text, *both):
    """A place is a border if it lies in no token and ends a word, or ends tokens of both in more than a blank."""
    for place in range(1, len(text)):
        ended = [place in side for side in both]
        if all(end or place > max(side, default=0) for end, side in zip(ended, both, strict=True)):
            before, after = text[place - 1], text[place]
            in_space = before.isspace() and (after.isspace() or before != " ")
            if (after.isspace() and not before.isspace()) or (in_space and all(ended)):
                yield place


def segments(text, made):
    return [text[a:b] for a, b in itertools.pairwise([0, *made.ends.tolist()])]


def check(text, student, teacher):
    """What holds of every alignment."""
    made = align(text, student, teacher)
    ends = made.ends.tolist()
    assert "".join(segments(text, made)) == text
    assert all(segments(text, made)) or text == ""
    for tokens, of in ((student, made.student), (teacher, made.teacher)):
        assert len(of) == len(tokens)
        for begin, end, segment in zip([0, *tokens], tokens, of.tolist(), strict=False):
            last_character = max(end, 1) - 1
            assert ([0, *ends][segment] <= last_character < ends[segment]) or text == ""
            assert not any(begin < border < end for border in ends)
        assert (np.diff(of) >= 0).all()
    for border in ends[:-1]:
        assert all(border in side or border > max(side, default=0) for side in (student, teacher))
        assert text[border - 1].isspace() or text[border].isspace()  # words are joined, never split
        assert text[border - 1] != " " or text[border].isspace()  # and keep the blank that leads them
    reach = max(teacher, default=0)
    has = set(made.teacher.tolist())
    assert made.read.tolist() == [i in has and not text[reach:end].strip() for i, end in enumerate(ends)]
    assert made.clear.tolist() == ["\ufffd" not in one for one in segments(text, made)]
    assert made.used.tolist() == (made.read & made.clear).tolist()
    assert ends == [*borders_by_hand(text, student, teacher), len(text)]
    return made


# Whatever the tokens


@settings(max_examples=400)
@given(case=sides())
@example(case=("a b", [1, 3], []))
@example(case=("a  b", [1, 2, 3, 4], [1, 2, 3, 4]))
@example(case=("\na", [0, 0, 1, 1, 2], [0, 2]))
def test_both_sides_are_cut_into_the_same_segments(case):
    check(*case)


@given(case=sides())
def test_one_tokenization_is_cut_alike_on_both_sides(case):
    text, ends, _ = case
    made = check(text, ends, ends)
    assert made.student.tolist() == made.teacher.tolist()
    assert made.read.all() or text == ""


@given(text=TEXTS)
def test_characters_make_a_segment_of_every_word_with_the_blank_before_it(text):
    ends = list(range(1, len(text) + 1))
    assert [one for one in segments(text, check(text, ends, ends)) if one.strip()] == re.findall(r" ?\S+", text)


@given(case=sides())
def test_a_cut_changes_no_segment_before_it(case):
    text, student, teacher = case
    whole = check(text, student, [*teacher, len(text)] if text else [])
    made = check(text, student, teacher)
    before = [segment for segment, end in enumerate(made.ends.tolist()) if end < max(teacher, default=0)]
    assert made.ends[before].tolist() == whole.ends[before].tolist()
    assert made.read[before].tolist() == whole.read[before].tolist()


TOKENS = [
    # text, student, teacher, expected segments
    ("a bc d", "a| |b|c| |d", "a| bc| d", "a| bc| d"),
    ("a bc d", "a bc| d", "a| b|c| d", "a bc| d"),  # one tokenizer has joined two words
    ("a bc d", "a| bc| d", "a b|c d", "a bc d"),
    ("a bc d", "a |bc| d", "a| bc| d", "a bc| d"),  # a blank that stays behind
    ("日本語 の", "日|本語| の", "日本|語| の", "日本語| の"),
    ("a\n\nb", "a|\n|\n|b", "a|\n|\n|b", "a|\n|\n|b"),
    ("a\n\nb", "a|\n|\n|b", "a|\n\n|b", "a|\n\n|b"),
    ("a\n\nb", "a|\n|\n|b", "a|\n\nb", "a|\n\nb"),
    ("a\r\nb", "a|\r\n|b", "a|\r|\n|b", "a|\r\n|b"),
    ("a\n b", "a|\n| b", "a|\n| |b", "a|\n| b"),
    ("a  b", "a| | b", "a| | |b", "a| | b"),
    ("a  b", "a|  |b", "a|  |b", "a|  b"),  # the blank before a word stays with it
    ("a\tb", "a|\t|b", "a|\t|b", "a|\t|b"),
    ("a\u00a0b", "a|\u00a0|b", "a|\u00a0b", "a|\u00a0b"),
    ("a\u3000b", "a|\u3000|b", "a|\u3000|b", "a|\u3000|b"),
    ("  a", " | a", " | |a", " | a"),
    ("a  ", "a| | ", "a| | ", "a| | "),
    ("a \n", "a| \n", "a| |\n", "a| \n"),
    ("\n", "\n", "\n", "\n"),
]


@pytest.mark.parametrize(("text", "student", "teacher", "expected"), TOKENS)
def test_segments_by_hand(text, student, teacher, expected):
    """And they are the same with both sides exchanged."""
    assert student.replace("|", "") == teacher.replace("|", "") == text
    ours, theirs = ([*itertools.accumulate(map(len, side.split("|")))] for side in (student, teacher))
    assert segments(text, check(text, ours, theirs)) == expected.split("|")
    assert segments(text, check(text, theirs, ours)) == expected.split("|")


def test_bytes_that_share_a_characters_end_share_its_segment():
    """The student has three bytes for the first character; the teacher's one token holds both."""
    made = check("日本 a", [1, 1, 1, 2, 4], [2, 4])
    assert made.student.tolist() == [0, 0, 0, 0, 1]
    made = check("a 日", [1, 2, 3, 3, 3], [1, 3])
    assert made.student.tolist() == [0, 1, 1, 1, 1]


def test_a_token_without_characters_belongs_to_the_character_before_it():
    made = check("a b", [0, 1, 1, 3, 3], [0, 0, 1, 3])
    assert made.student.tolist() == [0, 0, 0, 1, 1]
    assert made.teacher.tolist() == [0, 0, 0, 1]


def test_an_empty_text_has_one_segment_that_nobody_reads():
    made = check("", [], [])
    assert (made.ends.tolist(), made.read.tolist(), len(made.student)) == ([0], [False], 0)


@pytest.mark.parametrize(("student", "teacher"), [([0], []), ([0, 0], [0]), ([], [0])])
def test_tokens_of_an_empty_text_belong_to_its_one_segment(student, teacher):
    """A sentencepiece-like student says one blank, which decodes to nothing."""
    made = check("", student, teacher)
    assert made.used[made.student].tolist() == [len(teacher) > 0] * len(student)


# What the teacher has not read


def test_without_a_teacher_nothing_is_read():
    made = check("a bc\n\nd", [1, 4, 5, 6, 7], [])
    assert not made.read.any()
    assert not made.used.any()


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ([], "---"),
        ([1], "a--"),
        ([1, 2], "a--"),  # the blank alone, of " bc"
        ([1, 3], "a--"),  # half of the word
        ([1, 4], "ab-"),
        ([1, 4, 5], "ab-"),
        ([1, 4, 6], "abd"),
        ([0], "---"),  # tokens without characters read nothing
    ],
)
def test_a_teacher_that_was_cut_has_read_what_came_before(teacher, expected):
    made = check("a bc d", [1, 4, 6], teacher)
    assert "".join(np.where(made.read, list("abd"), "-")) == expected


def test_white_space_that_a_tokenizer_drops_is_no_gap():
    """The student's last token ends with two blanks of which the teacher has no token."""
    assert check("a bc  ", [1, 6], [1, 4]).read.tolist() == [True, True]
    assert check("a bc  ", [1, 4, 6], [1, 4]).read.tolist() == [True, True, False]  # a segment of its own
    assert check("a bc \u00a0\n", [1, 7], [1, 4]).read.tolist() == [True, True]
    assert check("a bc .", [1, 6], [1, 4]).read.tolist() == [True, False]


# What is no text


def test_a_segment_with_a_broken_character_is_not_clear():
    assert check("a \ufffd\ufffdb c", [1, 3, 4, 5, 7], [1, 5, 7]).clear.tolist() == [True, False, True]
    assert check("\ufffd a", [1, 3], [1, 3]).clear.tolist() == [False, True]
    assert check("a\n\ufffd", [1, 2, 3], [1, 2, 3]).clear.tolist() == [True, True, False]


def test_the_segment_of_a_special_token_is_not_clear():
    text, student = "a <s> b<s> c", [1, 2, 5, 7, 10, 12]
    for special in ([2, 4], np.array([2, 4])):
        made = align(text, student, [1, 5, 10, 12], special)
        assert segments(text, made) == ["a", " <s>", " b<s>", " c"]
        assert made.clear.tolist() == [True, False, False, True]
        assert made.read.all()


# One tokenizer


@given(counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_with_the_same_ids_every_token_is_a_segment(counts):
    many, read = max(counts), min(counts)
    made = align_ids(many, read)
    assert made.student.tolist() == list(range(many))
    assert made.teacher.tolist() == list(range(read))
    assert made.used.tolist() == [i < read for i in range(many)]
    assert len(made.ends) == many


# Tokenizers

KINDS = pytest.mark.parametrize("kind", TOKENIZERS)
DROPPING = ("word_piece", "folded")  # white space; the last token of the others ends where the text does
LOSSLESS = [kind for kind in TOKENIZERS if kind not in DROPPING]
TEMPLATE = "Question: {prompt}\nAnswer:\n"


@pytest.fixture(scope="module")
def speakers():
    """A conversation in each tokenizer."""
    told = Dialogue(template=TEMPLATE, eos="</s>", max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)
    made = {}
    for kind, build in TOKENIZERS.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=build(), eos_token="</s>", unk_token="<unk>")
        made[kind] = ChatTokenizer(tokenizer, told)
    return made


def tokens_of(speaker, text):
    return speaker.tokenizer.convert_ids_to_tokens(speaker.tokenize_response(text)[0])


def test_the_tokenizers_are_what_they_should_be(speakers):
    """Tokens that hold parts of characters, joined line breaks, bytes, unknown words, dropped white space."""
    found = {kind: tokens_of(speaker, MIXED) for kind, speaker in speakers.items()}
    assert any(token.endswith("\u00b8") for token in found["bytes"])
    assert "\n\n" in found["unigram"]
    assert {"<0x0A>", "<0xE6>", "▁"} <= set(found["sentence_bpe"]) & set(found["unigram_bytes"])
    assert "<unk>" in found["word_piece"]
    assert any(token.startswith("##") for token in found["word_piece"])
    assert len({tuple(tokens) for tokens in found.values()}) > 7
    ends = {kind: tuple(speaker.tokenize_response(MIXED)[1]) for kind, speaker in speakers.items()}
    assert len(set(ends.values())) > 6


@KINDS
def test_trap_14_real_tokenizers_are_aligned(speakers, kind):
    """One as the student, each as the teacher; whole, and cut anywhere."""
    for text in FIXED:
        student = speakers[kind].tokenize_response(text)[1]
        for other in speakers.values():
            teacher = other.tokenize_response(text)[1]
            for cut in {len(teacher), len(teacher) // 2, max(0, len(teacher) - 1)}:
                check(text, student, teacher[:cut])


@KINDS
def test_real_tokenizers_are_aligned_on_any_text(speakers, kind):
    @settings(max_examples=60)
    @given(text=TEXTS, teacher=st.sampled_from(sorted(speakers)))
    def holds(text, teacher):
        made = check(text, speakers[kind].tokenize_response(text)[1], speakers[teacher].tokenize_response(text)[1])
        if {kind, teacher} <= set(LOSSLESS):
            assert made.read.all() or text == ""
        if kind == teacher:
            assert made.student.tolist() == made.teacher.tolist()

    holds()


@pytest.mark.parametrize("kind", ["bytes", "composed", "sentence_bpe", "characters"])
def test_whatever_a_student_says_is_aligned(speakers, kind):
    """Generated ids: bytes that are no characters, tokens that the text would not be cut into."""
    student = speakers[kind]

    @settings(max_examples=60)
    @given(ids=st.lists(st.integers(2, len(student.tokenizer) - 1), max_size=25), teacher=st.sampled_from(LOSSLESS))
    def holds(ids, teacher):
        if text := student.decode_response(ids):
            check(text, student.token_ends(ids), speakers[teacher].tokenize_response(text)[1])

    holds()


# Text that follows a prompt


@KINDS
def test_ends_lie_in_the_text_and_never_fall(speakers, kind):
    @given(text=TEXTS)
    @example(text=MIXED)
    @example(text="\n the")
    def holds(text):
        ids, ends = speakers[kind].tokenize_response(text)
        assert len(ids) == len(ends)
        assert ends == sorted(ends)
        assert all(0 <= end <= len(text) for end in ends)
        if kind in LOSSLESS:
            assert ends[-1:] == ([len(text)] if text else [])

    holds()


@pytest.mark.parametrize("kind", ["bytes", "prefixed", "trimmed", "sentence_bpe"])
def test_an_end_is_where_the_tokens_before_it_are_the_text_before_it(speakers, kind):
    """Tokens decode to the text that they cover, as far as that is whole characters."""

    @given(text=TEXTS)
    @example(text=MIXED)
    def holds(text):
        ids, ends = speakers[kind].tokenize_response(text)
        for count, end in enumerate(ends, 1):
            decoded = speakers[kind].tokenizer.decode(ids[:count])
            if not decoded.endswith("\ufffd"):
                assert text[:end].strip(" ") == decoded.strip(" ")

    holds()


@pytest.mark.parametrize("kind", ["unigram", "unigram_always", "unigram_bytes", "sentence_bpe"])
@pytest.mark.parametrize("text", ["the end", "end.", " the end", "  the", "the\n\nend", "the "])
def test_an_answer_has_the_ids_that_it_has_in_the_whole_conversation(speakers, kind, text):
    """The template ends a line, so nothing joins the answer's first token to it."""
    speaker = speakers[kind]
    asked = speaker.prompt_ids("the river")
    whole = speaker.tokenizer(Template(TEMPLATE).render("the river").text + text, add_special_tokens=False)["input_ids"]
    assert [*asked, *speaker.tokenize_response(text)[0]] == whole


@pytest.mark.parametrize(
    ("text", "tokens", "ends"),
    [
        ("Hello", [*"Hello"], [1, 2, 3, 4, 5]),
        ("the end", ["the", "▁", "e", "nd"], [3, 4, 5, 7]),
        (" the", ["▁the"], [4]),
        ("\nthe", ["<0x0A>", "the"], [1, 4]),
        ("\n\n the", ["<0x0A>", "<0x0A>", "▁the"], [1, 2, 6]),
        ("日a", ["<0xE6>", "<0x97>", "<0xA5>", "a"], [1, 1, 1, 2]),
        ("", [], []),
        (" ", ["▁"], [1]),
    ],
)
def test_a_sentencepiece_like_answer_by_hand(speakers, text, tokens, ends):
    """No blank of the tokenizer's own before it."""
    assert tokens_of(speakers["sentence_bpe"], text) == tokens
    assert speakers["sentence_bpe"].tokenize_response(text)[1] == ends


def test_white_space_that_a_tokenizer_drops_belongs_to_the_token_after_it(speakers):
    assert tokens_of(speakers["word_piece"], "The the,  the\n") == ["the", "the", ",", "the"]
    assert speakers["word_piece"].tokenize_response("The the,  the\n")[1] == [3, 7, 8, 13]


@KINDS
def test_trap_13_no_answer_begins_with_a_blank_of_the_tokenizers_own(speakers, kind):
    for text in ("Hello", "the end", "日本 the", "été", "\nthe", "\n\nthe", "\tthe", "\u0301a", "🇺🇳"):
        first, spaced = (tokens_of(speakers[kind], before + text)[0] for before in ("", " "))
        assert (first[0] in "▁Ġ") == (kind == "folded" and text[0].isspace()), text
        assert spaced[0] in "▁Ġ" or kind in (*DROPPING, "characters")


@pytest.mark.parametrize(
    ("text", "composes"), [("te\u0301 e\u0301", "té é"), ("\u1112\u1161\u11ab \u1112\u1161", "한 하")]
)
def test_a_token_ends_behind_all_that_normalisation_has_put_into_it(speakers, text, composes):
    """Normal form C makes one character of several, whose end is that of the last."""
    ids, ends = speakers["composed"].tokenize_response(text)
    assert speakers["composed"].tokenizer.decode(ids) == composes
    assert ends[-1] == len(text)
    made = check(text, ends, speakers["characters"].tokenize_response(text)[1])
    assert segments(text, made) == [text.split()[0], f" {text.split()[1]}"]
