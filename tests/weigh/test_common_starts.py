"""Segments of two tokenizations that are divided wherever both start a token."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scored import SETTINGS, SIDES, by_side, reading, student, texts_of, weighed

from wspin.config.weigh import Weigh
from wspin.storage import tables
from wspin.weigh import forms
from wspin.weigh.alignment import align

TEXTS = st.lists(st.sampled_from(["ab", "c", " ", "  ", "\n", "日本", "\ufffd"]), max_size=9).map("".join)


def segments(text, made):
    return [text[a:b] for a, b in itertools.pairwise([0, *made.ends.tolist()])]


@st.composite
def sides(draw):
    """A text, and where the tokens of both sides end: shared ends and tokens without characters among them."""
    text = draw(TEXTS)
    places = st.lists(st.integers(0, len(text)), max_size=8)
    student, teacher = (sorted([*draw(places), *[len(text)] * bool(text)]) for _ in range(2))
    cut = draw(st.one_of(st.just(len(text)), st.integers(0, len(text))))
    return text, student, [end for end in teacher if end <= cut]


TOKENS = [
    # text, student, teacher, expected segments; `|` begins a token
    ("abc de", "a|bc| de", "ab|c| de", "abc| de"),
    ("abc de", "a|bc| de", "a|b|c| de", "a|bc| de"),  # within a word
    ("a bc d", "a bc| d", "a| b|c| d", "a bc| d"),
    ("a bc", "a |bc", "a |b|c", "a |bc"),  # the blank is not the word's
    ("a\n\nb", "a|\n|\n|b", "a|\n|\n|b", "a|\n|\n|b"),
    ("日本語", "日|本|語", "日本|語", "日本|語"),
    ("ab cd", "ab cd", "a|b| c|d", "ab cd"),
    ("ab cd", "a|b c|d", "ab| c|d", "ab c|d"),
]


def ends_of(tokens):
    return list(itertools.accumulate(map(len, tokens.split("|"))))


@pytest.mark.parametrize(("text", "own", "foreign", "expected"), TOKENS)
def test_segments_by_hand(text, own, foreign, expected):
    for first, second in ((own, foreign), (foreign, own)):
        made = align(text, ends_of(first), ends_of(second), segments="common_starts")
        assert segments(text, made) == expected.split("|")
        assert made.used.all()


def test_tokens_of_one_character_share_its_segment():
    """Bytes end where their character does, and tokens without characters with what is before them."""
    made = align("aéb", [1, 2, 2, 3], [0, 1, 2, 3, 3], segments="common_starts")
    assert made.student.tolist() == [0, 1, 1, 2]
    assert made.teacher.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    ("teacher", "read"),
    [([], ""), ([1], "a"), ([1, 3], "a"), ([1, 2], "ab"), ([1, 2, 4], "abcd"), ([1, 2, 4, 5], "abcd")],
)
def test_a_teacher_that_was_cut_has_read_what_came_before(teacher, read):
    """Up to the last place where both start a token; half of a segment is not read."""
    made = align("abcdef", [1, 2, 4, 6], teacher, segments="common_starts")
    assert "".join(part for part, is_read in zip(segments("abcdef", made), made.read, strict=True) if is_read) == read


@settings(max_examples=200)
@given(case=sides())
@example(case=("a b", [1, 3], []))
@example(case=("", [], []))
def test_segments_part_text_and_tokens(case):
    """Every token has one segment, in order, that holds its last character; no border lies inside a token."""
    text, *both = case
    made = align(*case, segments="common_starts")
    borders = made.ends.tolist()[:-1]
    assert "".join(segments(text, made)) == text
    assert borders == sorted(set(both[0]) & set(both[1]) - {0, len(text)})
    for tokens, of in zip(both, (made.student, made.teacher), strict=True):
        assert len(of) == len(tokens)
        assert (np.diff(of) >= 0).all()
        for begin, end, segment in zip([0, *tokens], tokens, of.tolist(), strict=False):
            assert ([0, *made.ends][segment] < max(end, 1) <= made.ends[segment]) or text == ""
            assert not any(begin < border < end for border in borders)
    reach, has = max(both[1], default=0), set(made.teacher.tolist())
    assert made.read.tolist() == [i in has and not text[reach:end].strip() for i, end in enumerate(made.ends)]
    assert made.clear.tolist() == ["\ufffd" not in part for part in segments(text, made)]


@given(case=sides(), teacher_whole=st.booleans())
def test_words_are_divided_further_and_never_joined(case, teacher_whole):
    """Where both reach the end of the text, a word's border is a common start; with no other they are the words."""
    text, own, foreign = case
    foreign = sorted({*foreign, len(text)} - {0}) if text else []
    words, starts = (align(text, own, foreign, segments=kind) for kind in ("words", "common_starts"))
    assert set(words.ends.tolist()) <= set(starts.ends.tolist())
    only = words.ends.tolist() if text else []
    one, other = (align(text, only, only, segments=kind) for kind in ("words", "common_starts"))
    for field in ("ends", "student", "teacher", "read", "clear"):
        assert getattr(one, field).tolist() == getattr(other, field).tolist()


@given(text=TEXTS)
def test_characters_are_segments(text):
    ends = list(range(1, len(text) + 1))
    assert "|".join(segments(text, align(text, ends, ends, segments="common_starts"))) == "|".join(text)


def test_words_are_what_is_taken_without_a_choice():
    for text, own, foreign, _ in TOKENS:
        sides = ends_of(own), ends_of(foreign)
        assert align(text, *sides).ends.tolist() == align(text, *sides, segments="words").ends.tolist()


# From scored answers to weights


@pytest.mark.parametrize("agg", ["paper_mean", "log_mean", "sum_spread"])
@SIDES
def test_weights_of_scored_answers(scored_study, tmp_path, side, agg):
    changes = {"segments": "common_starts", "segment_agg": agg}
    told, table = Weigh(**{**SETTINGS, **changes}), weighed(scored_study, tmp_path / "a.parquet", "far", **changes)
    own, (_, theirs) = student(scored_study, side), reading(scored_study, "far", side)
    differ = 0
    for row, text in enumerate(texts_of(scored_study)[side]):
        ends, parts = (own["ends"][row], theirs["ends"][row]), (own["logprobs"][row], theirs["logprobs"][row])
        ours, others = (part.astype(float) for part in parts)
        made = align(text, *ends, segments="common_starts")
        found = forms.scored_weights(made, -ours, others, side, told, None).weights
        np.testing.assert_allclose(by_side(table)[side][row][: len(found)], found, rtol=1e-6)
        differ += len(made.ends) != len(align(text, *ends).ends)
    assert differ
    assert tables.metadata(table)["settings"]["segments"] == "common_starts"


def test_one_tokenizer_has_no_segments_to_choose(scored_study, tmp_path):
    """And settings without the key are stored as they were."""
    plain = weighed(scored_study, tmp_path / "a.parquet", "near")
    starts = weighed(scored_study, tmp_path / "b.parquet", "near", segments="common_starts")
    assert plain.to_pydict() == starts.to_pydict()
    assert "segments" not in tables.metadata(plain)["settings"]
