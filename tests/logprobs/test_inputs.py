"""What a teacher scores: the text in its own tokenizer, or the student's ids, as far as its context goes."""

import numpy as np
import pytest
from scored import EOS, PAIRS, REAL, SHORT, SIDES, TEMPLATE, conversation, plainly, reading, student, texts_of
from tokenizers import AddedToken

from wspin.logprobs.inputs import scorer_answers
from wspin.storage import tables
from wspin.weigh.alignment import align


@pytest.fixture
def study(scored_study):
    return scored_study


@SIDES
def test_a_teacher_reads_the_text_in_its_own_tokenizer(study, side):
    """Its tokens are those of the text, their log-probabilities those of a plain forward pass after its prompt."""
    speaker, (table, found) = conversation(study / "far"), reading(study, "far", side)
    expected = [speaker.tokenize_response(text) for text in texts_of(study)[side]]
    assert [ids.tolist() for ids in found["token_ids"]] == [ids for ids, _ in expected]
    assert [ends.tolist() for ends in found["ends"]] == [ends for _, ends in expected]
    prompts = [speaker.prompt_ids(prompt) for prompt, _, _ in PAIRS]
    for ours, by_hand in zip(found["logprobs"], plainly(study / "far", prompts, found["token_ids"]), strict=True):
        np.testing.assert_allclose(ours, by_hand, atol=1e-5, rtol=1e-5)
    assert tables.metadata(table)["texts"] == tables.texts_hash(
        [prompt for prompt, _, _ in PAIRS], texts_of(study)[side]
    )
    assert tables.metadata(table)["unread"] == 0


def test_the_tokenizers_differ(study):
    """In number and place of the tokens; the teacher's does not hold the study's EOS."""
    ids = [student(study, "rejected")["token_ids"], reading(study, "far", "rejected")[1]["token_ids"]]
    assert [len(a) != len(b) for a, b in zip(*ids, strict=True)].count(True) > 2
    assert EOS not in conversation(study / "far").tokenizer.get_vocab()


@SIDES
def test_a_teacher_with_the_students_tokenizer_reads_its_very_ids(study, side):
    """Also those that their text would not be cut into, and bytes that are no character."""
    own = student(study, side)
    for name in ("same", "near"):
        _, found = reading(study, name, side)
        for part in ("token_ids", "ends"):
            assert [one.tolist() for one in found[part]] == [one.tolist() for one in own[part]]
    if side == "rejected":
        again = conversation(study / "student")
        assert own["token_ids"][1].tolist() != again.tokenize_response(texts_of(study)[side][1])[0]
        assert own["token_ids"][5].tolist() != again.tokenize_response(texts_of(study)[side][5])[0]


@SIDES
def test_trap_01_a_model_as_teacher_says_what_it_says_as_student(study, side):
    """Read one token off, as the published code does, it would not."""
    own, (_, found) = student(study, side)["logprobs"], reading(study, "same", side)
    for ours, theirs in zip(own, found["logprobs"], strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    longest = max(own, key=len)
    assert np.abs(np.diff(longest)).min() > 1e-4
    assert np.std(longest) > 0.3


@SIDES
def test_trap_13_a_teacher_in_another_template_gets_its_own_prompt(study, side):
    own, (table, found) = student(study, side)["token_ids"], reading(study, "asked", side)
    assert tables.metadata(table)["template"] == TEMPLATE
    prompts = [conversation(study / "student", TEMPLATE).prompt_ids(prompt) for prompt, _, _ in PAIRS]
    assert conversation(study / "student").tokenizer.decode(prompts[0]) == "Q: sun\nA:"
    for logprobs, by_hand in zip(found["logprobs"], plainly(study / "student", prompts, own), strict=True):
        np.testing.assert_allclose(logprobs, by_hand, atol=1e-5, rtol=1e-5)
    other = reading(study, "same", side)[1]["logprobs"][0]
    assert np.abs(found["logprobs"][0] - other).max() > 0.01


# A short context


@SIDES
@pytest.mark.parametrize("name", ["near", "far"])
def test_a_short_context_reads_as_far_as_it_goes(study, name, side):
    (_, whole), (table, some) = reading(study, name, side), reading(study, f"{name}-short", side)
    rooms = [SHORT - len(conversation(study / name).prompt_ids(prompt)) for prompt, _, _ in PAIRS]
    for ids, all_, room in zip(some["token_ids"], whole["token_ids"], rooms, strict=True):
        assert min(len(all_), room) - 3 <= len(ids) <= min(len(all_), room)  # a character is not read in parts
    assert len(some["token_ids"][0]) == rooms[0] < len(whole["token_ids"][0])
    for part, exact in (("token_ids", 0.0), ("ends", 0.0), ("logprobs", 1e-5)):
        for ours, theirs in zip(some[part], whole[part], strict=True):
            np.testing.assert_allclose(ours, theirs[: len(ours)], atol=exact)
    unread = sum(map(len, whole["token_ids"])) - sum(map(len, some["token_ids"]))
    assert tables.metadata(table)["unread"] == unread


def test_a_prompt_that_fills_the_context_leaves_nothing_to_read(study):
    rows = tables.read(study / "prompts.parquet", "prompts")
    for context in (1, 20):
        found = scorer_answers(rows, "response", [], conversation(study / "far"), "far", context)
        assert [tokens.ids for tokens in found.sides[""]] == [[]] * len(PAIRS)
        assert [tokens.ends for tokens in found.sides[""]] == [[]] * len(PAIRS)
        assert found.metadata["unread"] == sum(map(len, reading(study, "far", "chosen")[1]["token_ids"]))


def test_a_character_of_which_some_bytes_do_not_fit_is_not_read(study):
    far, rows = conversation(study / "far"), tables.read(study / "prompts.parquet", "prompts").slice(1, 1)
    ids, ends = far.tokenize_response(REAL[1])
    for room in range(len(ids) + 1):
        found = scorer_answers(rows, "response", [], far, "far", len(far.prompt_ids("moon")) + room).sides[""][0]
        reached = [end for place, end in enumerate(ends) if room > place and (room == len(ids) or ends[room] > end)]
        assert found.ends[-1:] == reached[-1:]
        made = align(REAL[1], range(1, len(REAL[1]) + 1), found.ends)
        assert made.read[made.student[-1]] == (room == len(ids))


def test_what_only_a_role_makes_special_is_not_all_that_is_special(study):
    """A special token without a role is none of the text's, in a template and in an answer."""
    speaker = conversation(study / "student", "<|head|>{prompt}<|tail|>")
    speaker.tokenizer.add_tokens([AddedToken(one, special=True) for one in ("<|head|>", "<|tail|>")])
    assert not {"<|head|>", "<|tail|>"} & set(speaker.tokenizer.all_special_tokens)
    ids = speaker.prompt_ids("sun")
    assert speaker.tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|head|>", "<|tail|>"]
    rows = tables.read(study / "prompts.parquet", "prompts")
    told = scorer_answers(rows, "response", [], speaker, "another", 200).metadata["special_ids"]
    assert {ids[0], ids[-1]} <= set(told)
