"""The heuristic of SWIFT's released code: the teacher's surprisal alone, read one position early."""

import numpy as np
import pytest
import torch
from configuration import load
from scored import EQUAL, PAIRS, SIDES, by_side, changed, conversation, reading, student, texts_of, weighed

from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.models import folders
from wspin.storage import tables
from wspin.weigh import forms, weights
from wspin.weigh.alignment import align, align_ids
from wspin.weigh.inputs import AlignedAnswer

UNUSED = dict.fromkeys(("form", "k", "mu_chosen", "mu_rejected", "lower", "upper", "segment_agg"))
RELEASED = {**UNUSED, "source": "swift_as_released", "shifted": True, "segments": "common_starts"}
RELEASED |= {"normalise": "sum_to", "normalise_to": 100.0, "eos_weight": 0.0}


@pytest.fixture
def study(scored_study):
    return scored_study


def told(**changes):
    always = {"control": "none", "normalise": "none", "eos_weight": 0.0}
    return Weigh(**{**always, "source": "swift_as_released", "shifted": True, **changes})


def weigh(alignment, own, foreign, side="chosen", closed=False, **changes):
    one = AlignedAnswer("train-0", closed, np.array(own, dtype=float), np.array(foreign, dtype=float), alignment)
    found = weights.weight_side(side, [one], told(**changes), (42, 0))
    return found.weights[0].tolist(), found.counts


def weight(surprisal):
    """As the released code computes it, number by number."""
    share = (min(max(surprisal, 7.0), 15.0) - 7.0) / 15.0
    return (1.0 - share) * 2.0 - 0.5


# By hand


def test_the_formula_by_hand():
    surprisals = np.array([0.0, 7.0, 9.25, 11.0, 15.0, 40.0])
    found = forms.swift_as_released(surprisals)
    assert found.tolist() == pytest.approx([1.5, 1.5, 1.2, 29 / 30, 13 / 30, 13 / 30])
    assert found.tolist() == pytest.approx(list(map(weight, surprisals)))


@SIDES
def test_a_segment_has_the_weight_of_its_mean_surprisal_on_both_sides(side):
    """ "abc" is one token of the student and two of the teacher, 8.5 and 10 nat; " de" is two and one, 13 nat."""
    aligned = align("abc de", [3, 4, 6], [1, 3, 6])
    found, counts = weigh(aligned, [0.0] * 3, [-8.5, -10.0, -13.0], side, closed=True)
    assert found == pytest.approx([1.2, 0.7, 0.7, 0.0])
    assert (counts["segments"], counts["mismatched"], counts["at_lower"], counts["at_upper"]) == (2, 2, 0.0, 0.0)
    found, _ = weigh(aligned, [0.0] * 3, [-8.5, -10.0, -13.0], side, True, normalise="sum_to", normalise_to=100.0)
    assert found == pytest.approx([100 * 1.2 / 2.6, 100 * 0.7 / 2.6, 100 * 0.7 / 2.6, 0.0])


def test_a_teacher_with_the_students_tokenizer_is_read_token_by_token():
    found, counts = weigh(align_ids(4, 3), [-6.0, -11.0, -20.0, 0.0], [0.0] * 3)
    assert found == pytest.approx([1.5, 29 / 30, 13 / 30, 1.5])  # a token without a reading has the greatest weight
    assert (counts["at_lower"], counts["at_upper"], counts["unread"]) == (1.0, 1.0, 1)


@SIDES
def test_trap_17_the_released_weights_are_a_source_of_their_own(side):
    """The study's arms have none; its sum of 100 is a normalisation by length, and cannot turn a sign."""
    assert {load().arm_weigh(arm).source for arm in ("wspin", "wspin.paper")} == {"teacher"}
    assert {load().arm_weigh(arm).normalise for arm in ("wspin", "wspin.paper")} == {"none"}
    rng = np.random.default_rng(0)
    for count in (1, 10, 200):
        logprobs = -rng.gamma(4.0, 3.0, count)
        found, _ = weigh(
            align_ids(count, count), logprobs, np.zeros(count), side, normalise="sum_to", normalise_to=100.0
        )
        assert sum(found) == pytest.approx(100.0, rel=1e-5)
        assert min(found) > 0.0
        plain = np.array(list(map(weight, -logprobs)))
        assert found == pytest.approx((100 * plain / plain.sum()).tolist(), rel=1e-5)


# Readings one position early


@SIDES
@pytest.mark.parametrize("name", ["near", "far"])
def test_a_shifted_reading_is_of_the_id_before(study, name, side):
    """log p(y_{i+1} = y_i | x, y_<=i) with the prompt's last token as y_0: float64, a whole pass for each answer."""
    model, speaker = folders.load_model(study / name, "cpu").double().eval(), conversation(study / name)
    (table, found), (_, right) = reading(study, f"{name}-shifted", side), reading(study, name, side)
    assert tables.metadata(table)["shifted"] is True
    for (prompt, _, _), ids, logprobs in zip(PAIRS, found["token_ids"], found["logprobs"], strict=True):
        start = speaker.prompt_ids(prompt)
        row = torch.tensor([*start, *ids])
        with torch.no_grad():
            whole = model(input_ids=row[None]).logits[0].log_softmax(-1)
        by_hand = [whole[i, row[i]].item() for i in range(len(start) - 1, len(row) - 1)]
        np.testing.assert_allclose(logprobs, by_hand, rtol=1e-4, atol=1e-4)
    assert [ids.tolist() for ids in found["token_ids"]] == [ids.tolist() for ids in right["token_ids"]]
    assert np.abs(np.concatenate(found["logprobs"]) - np.concatenate(right["logprobs"])).max() > 1.0


def test_other_files_do_not_name_the_shift(study):
    assert "shifted" not in tables.metadata(reading(study, "far", "chosen")[0])


# From scored answers to weights


@SIDES
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("name", ["near", "far"])
def test_weights_follow_from_the_readings(study, tmp_path, name, side, shifted):
    settings = {**RELEASED, "shifted": shifted, "uniform": "allow"}
    teacher = f"{name}-shifted" if shifted else name
    table = weighed(study, tmp_path / "a.parquet", teacher, **settings)
    stored = tables.metadata(table)
    assert (stored["settings"]["source"], stored["settings"]["shifted"]) == ("swift_as_released", shifted)
    assert stored["teacher"].get("shifted", False) is shifted
    own, (_, theirs) = student(study, side), reading(study, teacher, side)
    for row, text in enumerate(texts_of(study)[side]):
        ends, logprobs, count = own["ends"][row], theirs["logprobs"][row], len(own["ends"][row])
        aligned = align_ids(count, count)
        if name == "far":
            aligned = align(text, ends, theirs["ends"][row], segments="common_starts")
        by_hand = np.zeros(count)
        for i, segment in enumerate(aligned.student):
            read = aligned.used[segment]
            by_hand[i] = weight(-logprobs[aligned.teacher == segment].mean(dtype=float) if read else 0.0)
        found = by_side(table)[side][row]
        np.testing.assert_allclose(found[:count], 100 * by_hand / by_hand.sum(), rtol=1e-5)
        assert found[count:].tolist() == [0.0] * (side == "chosen" or row != 3)


def test_its_control_has_equal_weights_with_the_same_sum(study, tmp_path):
    sums = {"normalise": "sum_to", "normalise_to": 100.0, "eos_weight": 0.0}
    table = weighed(study, tmp_path / "a.parquet", [], **{**EQUAL, **sums})
    for side, found in by_side(table).items():
        for answer, ids in zip(found, student(study, side)["token_ids"], strict=True):
            assert answer.tolist()[: len(ids)] == pytest.approx([100.0 / max(len(ids), 1)] * len(ids))


@pytest.mark.parametrize("shifted", [True, False])
def test_a_reading_of_the_other_kind_is_refused(study, tmp_path, shifted):
    teacher = "far" if shifted else "far-shifted"
    kinds = ["those of the tokens before (shifted)", "log-probabilities of the tokens"]
    found = "expected {}, found {}".format(*(kinds if shifted else kinds[::-1]))
    message = f"{study}/{teacher}-gold.parquet: {found}; weigh.shifted goes with the scorer's flag --shifted"
    with pytest.raises(StudyError) as error:
        weighed(study, tmp_path / "a.parquet", teacher, **{**RELEASED, "shifted": shifted})
    assert str(error.value) == message
    with pytest.raises(StudyError) as error:
        weighed(study, tmp_path / "a.parquet", "far-shifted")  # source teacher
    assert str(error.value).startswith(f"{study}/far-shifted-gold.parquet: expected log-probabilities of the tokens, ")
    assert not (tmp_path / "a.parquet").exists()


def test_sides_of_two_kinds_are_refused(study, tmp_path):
    """Though they come from one model."""
    teacher = [study / "far-gold.parquet", study / "far-shifted-said.parquet"]
    for paths, wrong, changes in ((teacher, 1, {}), (teacher, 0, RELEASED)):
        with pytest.raises(StudyError, match="shifted") as error:
            weighed(study, tmp_path / "a.parquet", paths, **changes)
        assert str(error.value).startswith(f"{paths[wrong]}: ")


def test_readings_that_the_clip_makes_equal_are_refused(study, tmp_path):
    """As those at the right position mostly are."""
    for shifted, remedy in ((False, "its bounds go with shifted: true"), (True, "take another source")):
        name = "far-shifted" if shifted else "far"
        flat = [
            changed(
                study / f"{name}-{kind}.parquet",
                tmp_path / f"{kind}-{shifted}.parquet",
                "logprobs",
                logprobs=lambda rows: [[-2.0] * len(row) for row in rows],
            )
            for kind in ("gold", "said")
        ]
        with pytest.raises(StudyError, match="at a surprisal of 7 nat or less, 0 at 15 or more, ") as error:
            weighed(study, tmp_path / "a.parquet", flat, **{**RELEASED, "shifted": shifted})
        assert remedy in str(error.value)
