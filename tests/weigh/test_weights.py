"""Log-probabilities to weights, by hand and by a slow second reading of the formulas."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import tables
from wspin.weigh import controls, forms, weights
from wspin.weigh.alignment import align, align_ids
from wspin.weigh.inputs import AlignedAnswer

FORMS = ("paper_mean", "log_mean", "sum_spread")
CONTROLS = ("none", "one_minus", "inverse", "permuted", "random", "random_matched", "noise")
E = math.e
SEED = (42, 0)


def weigh(**changes):
    """Settings: the paper's, with what a test changes."""
    told = {"source": "teacher", "form": "exp_clamp", "k": 1.0, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
    told |= {"upper": 1.5, "segment_agg": "paper_mean", "control": "none", "normalise": "none", "eos_weight": 1.0}
    return Weigh(**{**told, **changes})


def scored_weights(made, own, foreign, mu, told):
    """Of a chosen answer with this mu."""
    return forms.scored_weights(made, own, foreign, "chosen", told.model_copy(update={"mu_chosen": mu}), None)


WIDE = {"lower": -9.0, "upper": 9.0}


def by_teacher(text, student, teacher, mu=1.0, special=(), **changes):
    """Weights from [(end, log-probability), ...] of both sides."""
    (ends, ours), (their_ends, theirs) = (zip(*side, strict=True) if side else ((), ()) for side in (student, teacher))
    made = align(text, ends, their_ends, special)
    return scored_weights(made, -np.array(ours, dtype=float), np.array(theirs, dtype=float), mu, weigh(**changes))


def answer(count, ratios=None, closed=True, prompt_id="train-0"):
    """An answer of tokens with ids of their own, whose log-ratios are given."""
    student = -np.arange(1.0, count + 1)
    teacher = student + (np.linspace(-1, 2, count) if ratios is None else ratios)
    return AlignedAnswer(prompt_id, closed, -student, teacher, align_ids(count, count))


def of_side(answers, side="chosen", seed=SEED, **changes):
    return weights.weight_side(side, answers, weigh(**changes), seed)[:2]


def of_one(one, side="chosen", **changes):
    (made,), _ = of_side([one], side, **changes)
    return made.tolist()


def single(values):
    """As stored: float32."""
    return np.asarray(values, dtype=np.float32).tolist()


# The formula


@pytest.mark.parametrize(
    ("ratio", "mu", "k", "expected"),
    [
        (0.0, 1.0, 1.0, 1.0),
        (0.0, -1.0, 2.5, 2.5),
        (1.0, 1.0, 1.0, 2.718282),
        (1.0, -1.0, 1.0, 0.367879),
        (0.4, 0.5, 3.0, 3.664208),  # 3 e^0.2
        (9.0, 1.0, 1.0, 4.481689),  # e^1.5
        (-9.0, 1.0, 1.0, 0.606531),  # e^-0.5
        (9.0, -1.0, 1.0, 0.223130),  # e^-1.5
        (-9.0, -1.0, 1.0, 1.648721),  # e^0.5
        (9.0, 2.0, 1.0, 20.085537),  # e^3: the clamp acts before mu
        (1.5, 0.0, 1.0, 1.0),
    ],
)
def test_shape_by_hand(ratio, mu, k, expected):
    assert forms.exp_clamp(np.array([ratio]), mu, weigh(k=k)) == pytest.approx([expected], rel=2e-6)


@given(ratios=st.lists(st.floats(-50, 50), min_size=1))
def test_ranges_of_both_sides(ratios):
    """[e^-0.5, e^1.5] on chosen, [e^-1.5, e^0.5] on rejected answers: the bounds are those of r, not of mu r."""
    chosen, rejected = (forms.exp_clamp(np.array(ratios), mu, weigh()) for mu in (1.0, -1.0))
    assert (chosen >= math.exp(-0.5) - 1e-12).all()
    assert (chosen <= math.exp(1.5) + 1e-12).all()
    np.testing.assert_allclose(rejected, 1 / chosen, rtol=1e-12)
    assert forms.exp_clamp(np.array([-9.0, 9.0]), 1.0, weigh()) == pytest.approx([E**-0.5, E**1.5])
    assert forms.exp_clamp(np.array([-9.0, 9.0]), -1.0, weigh()) == pytest.approx([E**0.5, E**-1.5])


@given(ratio=st.floats(-5, 5), other=st.floats(-5, 5))
def test_what_the_teacher_likes_weighs_more_where_it_is_chosen(ratio, other):
    """And less where it is rejected."""
    low, high = sorted((ratio, other))
    for mu, up in ((1.0, 1), (-1.0, -1)):
        a, b = forms.exp_clamp(np.array([low, high]), mu, weigh())
        assert up * (b - a) >= 0


# Words that the tokenizers cut into other numbers of tokens

WORD = "abc"
EXAMPLES = [
    # student, teacher, form, r of every student token; each form's f is taken of these, paper_mean's averaged
    ([-0.5, -1.0, -0.5], [-2.0], "sum_spread", [0.0, 0.0, 0.0]),
    ([-0.5, -1.0, -0.5], [-2.0], "log_mean", [-1.5, -1.0, -1.5]),
    ([-0.5, -1.0, -0.5], [-2.0], "paper_mean", [-1.5, -1.0, -1.5]),
    ([-2.0], [-1.0, -1.0], "sum_spread", [0.0]),
    ([-2.0], [-1.0, -1.0], "log_mean", [1.0]),
    ([-2.0], [-1.0, -1.0], "paper_mean", [1.0]),
]


def spread(values):
    """Tokens over the one word, of equal lengths."""
    return [(len(WORD) * (i + 1) // len(values), value) for i, value in enumerate(values)]


@pytest.mark.parametrize(("student", "teacher", "form", "ratios"), EXAMPLES)
def test_trap_15_worked_examples(student, teacher, form, ratios):
    """Both models find the word equally likely; of the three forms, sum_spread alone says so."""
    made = by_teacher(WORD, spread(student), spread(teacher), segment_agg=form, **WIDE)
    assert made.weights == pytest.approx([math.exp(r) for r in ratios])
    clamped = by_teacher(WORD, spread(student), spread(teacher), segment_agg=form)
    assert clamped.weights == pytest.approx([math.exp(max(r, -0.5)) for r in ratios])
    assert clamped.at_lower.tolist() == [float(r <= -0.5) for r in ratios]


def test_worked_examples_as_they_are_told():
    """e^-0.5 = 0.607 for all; e^1 = 2.718; 1 for all."""
    one = (WORD, spread([-0.5, -1.0, -0.5]), spread([-2.0]))
    other = (WORD, spread([-2.0]), spread([-1.0, -1.0]))
    assert by_teacher(*one).weights == pytest.approx([0.6065307] * 3)
    assert by_teacher(*other).weights == pytest.approx([2.7182818])
    for told in (one, other):
        assert by_teacher(*told, segment_agg="sum_spread").weights.tolist() == [1.0] * len(told[1])


def test_the_mean_is_taken_after_the_exponential_or_before_it():
    """Teacher (-0.5, -2.5), student (-1): r = 0.5, -1.5 (clamped to -0.5), in the mean -0.5, in the sum -2."""
    sides = WORD, [(3, -1.0)], [(1, -0.5), (3, -2.5)]
    expected = {"paper_mean": (E**0.5 + E**-0.5) / 2, "log_mean": E**-0.5, "sum_spread": E**-0.5}
    for form, weight in expected.items():
        assert by_teacher(*sides, segment_agg=form).weights == pytest.approx([weight])
    wide = {"paper_mean": (E**0.5 + E**-1.5) / 2, "log_mean": E**-0.5, "sum_spread": E**-2}
    for form, weight in wide.items():
        assert by_teacher(*sides, segment_agg=form, **WIDE).weights == pytest.approx([weight])
    assert by_teacher(*sides, segment_agg="paper_mean").at_lower.tolist() == [0.5]


def test_a_word_has_no_part_in_its_neighbours():
    """Two words and a line break, each with other numbers of tokens on the two sides."""
    text = "ab cd\nef"
    student = [(2, -1.0), (3, -0.5), (5, -2.0), (6, -0.1), (8, -4.0)]
    teacher = [(1, -1.0), (2, -2.0), (5, -2.0), (6, -0.3), (7, -1.0), (8, -2.5)]
    made = by_teacher(text, student, teacher, segment_agg="sum_spread", **WIDE)
    assert made.weights == pytest.approx(np.exp([-2.0, 0.25, 0.25, -0.2, 0.5]))
    made = by_teacher(text, student, teacher, segment_agg="paper_mean", mu=-1.0, **WIDE)
    by_hand = [(1 + E) / 2, E**1.5, 1.0, E**0.2, (E**-3 + E**-1.5) / 2]
    assert made.weights == pytest.approx(by_hand)


# The formulas once more, slowly


def slowly(made, student, teacher, mu, told):
    """(weights, shares at the lower, at the upper bound), token by token."""
    found = []
    for i, segment in enumerate(made.student):
        own = [student[j] for j, of in enumerate(made.student) if of == segment]
        others = [teacher[t] for t, of in enumerate(made.teacher) if of == segment]
        if not (made.read[segment] and made.clear[segment]):
            found.append((told.k, 0.0, 0.0))
            continue
        if told.segment_agg == "paper_mean":
            ratios = [a - student[i] for a in others]
        elif told.segment_agg == "log_mean":
            ratios = [sum(others) / len(others) - student[i]]
        else:
            ratios = [(sum(others) - sum(own)) / len(own)]
        shaped = [told.k * math.exp(mu * min(max(r, told.lower), told.upper)) for r in ratios]
        columns = (shaped, [r <= told.lower for r in ratios], [r >= told.upper for r in ratios])
        found.append(tuple(sum(column) / len(ratios) for column in columns))
    return [np.array(column, dtype=float) for column in zip(*found, strict=True)] or [np.empty(0)] * 3


@st.composite
def scored(draw):
    """A text with special tokens and broken characters, and tokens of both sides with log-probabilities.

    These are multiples of 1/4, so that log-ratios fall on the bounds, and are exact there.
    """
    text = draw(
        st.lists(st.sampled_from(["ab", "c", " ", "\n", "日本", "\ufffd"]), min_size=1, max_size=8).map("".join)
    )
    words = [place for place in range(1, len(text)) if text[place].isspace() or text[place - 1].isspace()]

    def side(last):
        kept = [place for place in words if draw(st.integers(0, 4))]
        places = sorted([*kept, *draw(st.lists(st.integers(0, len(text)), max_size=6)), *last])
        values = st.integers(-16, 0).map(lambda quarters: quarters / 4)
        return places, draw(st.lists(values, min_size=len(places), max_size=len(places)))

    (ends, student), (their_ends, teacher) = side([len(text)]), side(draw(st.sampled_from([[len(text)], []])))
    special = draw(st.lists(st.integers(0, len(ends) - 1), max_size=1))
    return align(text, ends, their_ends, special), np.array(student), np.array(teacher)


@settings(max_examples=200)
@given(case=scored(), form=st.sampled_from(FORMS), mu=st.sampled_from([1.0, -1.0, 0.5]), k=st.sampled_from([1.0, 3.0]))
def test_weights_equal_a_slow_reading_of_the_formulas(case, form, mu, k):
    told = weigh(segment_agg=form, k=k)
    aligned, student, teacher = case
    made = scored_weights(aligned, -student, teacher, mu, told)
    for found, expected in zip(made[:3], slowly(*case, mu, told), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@given(case=scored(), form=st.sampled_from(FORMS))
def test_tokens_without_a_log_ratio_weigh_k_exactly(case, form):
    made = case[0]
    found = scored_weights(made, -case[1], case[2], 1.0, weigh(segment_agg=form, k=0.3))
    neutral = ~made.used[made.student]
    assert found.weights[neutral].tolist() == [0.3] * neutral.sum()
    assert not found.at_lower[neutral].any()
    assert not found.at_upper[neutral].any()


# The same tokens on both sides

LOGPROBS = st.lists(st.floats(-30, 0, width=32), min_size=1, max_size=30).map(
    lambda values: np.array(values, dtype=float)
)


@given(logprobs=LOGPROBS)
def test_forms_are_one_where_both_sides_have_the_same_tokens(logprobs):
    same, teacher = align_ids(len(logprobs), len(logprobs)), logprobs[::-1]
    found = [scored_weights(same, -logprobs, teacher, 1.0, weigh(segment_agg=form)).weights for form in FORMS]
    assert found[0].tolist() == found[1].tolist() == found[2].tolist()
    np.testing.assert_allclose(found[0], np.exp(np.clip(teacher - logprobs, -0.5, 1.5)), rtol=1e-15)


@given(logprobs=LOGPROBS, form=st.sampled_from(FORMS), mu=st.sampled_from([1.0, -1.0]))
def test_a_teacher_that_is_the_student_weighs_every_token_k(logprobs, form, mu):
    same = align_ids(len(logprobs), len(logprobs))
    tokens, ratios = forms.log_ratios(same, -logprobs, logprobs.copy(), form)
    assert tokens.tolist() == list(range(len(logprobs)))
    assert ratios.tolist() == [0.0] * len(logprobs)
    made = scored_weights(same, -logprobs, logprobs.copy(), mu, weigh(segment_agg=form, k=1.7))
    assert made.weights.tolist() == [1.7] * len(logprobs)


@given(logprobs=LOGPROBS)
def test_trap_01_a_teacher_read_one_token_off_has_log_ratios(logprobs):
    """The published code's mistake, which the test above would see."""
    assume(len(set(logprobs)) > 1)
    same = align_ids(len(logprobs), len(logprobs))
    for shifted in (np.roll(logprobs, 1), np.roll(logprobs, -1)):
        assert forms.log_ratios(same, -logprobs, shifted, "paper_mean")[1].any()
    late = align_ids(len(logprobs), len(logprobs) - 1)
    assume((np.abs(logprobs[1:] - logprobs[:-1]) > 1e-9).any())  # exp of less is 1
    assert (scored_weights(late, -logprobs, logprobs[1:], 1.0, weigh(**WIDE)).weights != 1.0).any()


# What is neutral is counted

TEXT = "ab cd \ufffd <s>"
STUDENT = [(2, -1.0), (4, -1.0), (5, -1.0), (7, -1.0), (11, -1.0)]


def counted(teacher, special=(), text=TEXT, **changes):
    """(weights, counts) of one answer."""
    ends, ours = zip(*STUDENT, strict=True)
    their_ends, theirs = zip(*teacher, strict=True) if teacher else ((), ())
    made = align(text, ends, their_ends, special)
    one = AlignedAnswer("train-0", True, -np.array(ours), np.array(theirs, dtype=float), made)
    (found,), counts = of_side([one], k=1.25, **changes)
    return found.tolist(), counts


def test_what_makes_a_token_neutral():
    """A broken character, a special token; both would have the greatest weight."""
    teacher = [(2, -0.5), (5, -9.0), (7, -0.1), (8, -0.1), (11, -0.1)]
    found, counts = counted(teacher, special=[4])
    low, up = 1.25 * E**-0.5, 1.25 * E**0.5
    assert found == single([up, low, low, 1.25, 1.25, 1.0])
    expected = {"tokens": 5, "at_lower": 2.0, "at_upper": 0.0, "unread": 0, "unclear": 2, "segments": 2}
    assert counts == {**expected, "mismatched": 1}
    assert counted(teacher)[1]["unclear"] == 1


@pytest.mark.parametrize(
    ("teacher", "unread", "segments"),
    [([], 5, 0), ([(2, -3.0)], 4, 1), ([(2, -3.0), (4, -3.0)], 4, 1), ([(2, -3.0), (5, -3.0)], 2, 2)],
)
def test_trap_16_what_the_teacher_has_not_read_is_neutral(teacher, unread, segments):
    """It reads nothing, a word, a word and a half, two words. An unread token counts once, unclear or not."""
    found, counts = counted(teacher, special=[4])
    assert found == single([1.25 * E**-0.5] * (5 - unread) + [1.25] * unread + [1.0])
    assert (counts["unread"], counts["unclear"], counts["segments"]) == (unread, 0, segments)


def test_shares_at_the_bounds_are_added_up():
    """One token of two ratios of which one is clamped counts half."""
    made = align("ab", [2], [1, 2])
    one = AlignedAnswer("a", False, np.array([3.0]), np.array([-1.0, -3.0]), made)
    assert of_side([one])[1]["at_upper"] == 0.5
    assert of_side([one] * 3)[1]["at_upper"] == 1.5
    assert of_side([one], segment_agg="log_mean")[1]["at_upper"] == 0.0
    assert of_side([one], segment_agg="log_mean", upper=1.0)[1]["at_upper"] == 1.0  # at the bound is not beyond it


def test_a_segment_without_a_student_token_does_not_count():
    """The student's tokenizer has dropped the white space at the end."""
    one = AlignedAnswer("a", False, np.array([1.0]), np.array([-1.0, -2.0]), align("a\n\n", [1], [1, 3]))
    assert len(one.alignment.ends) == 2
    assert of_side([one])[1] == {**dict.fromkeys(tables.WEIGHT_COUNTS, 0), "tokens": 1, "segments": 1}


def test_counts_of_all_answers():
    """Of the last one the teacher has read three tokens of five."""
    cut = AlignedAnswer("c", False, np.zeros(5), np.zeros(3), align_ids(5, 3))
    made, counts = of_side([answer(4, [-1.0, 0.0, 2.0, 1.5]), answer(0), cut])
    assert [len(one) for one in made] == [5, 1, 5]
    expected = {"tokens": 9, "at_lower": 1.0, "at_upper": 2.0, "unread": 2, "unclear": 0, "segments": 7}
    assert counts == {**expected, "mismatched": 0}
    assert tuple(counts) == tables.WEIGHT_COUNTS
    assert of_side([])[1] == dict.fromkeys(tables.WEIGHT_COUNTS, 0)


# Equal weights


@pytest.mark.parametrize("closed", [True, False])
def test_equal_weights_are_one_exactly(closed):
    told = {"source": "equal", "form": None, "k": None, "mu_chosen": None, "mu_rejected": None, "lower": None}
    told |= {"upper": None, "segment_agg": None}
    for one in (answer(3, closed=closed), AlignedAnswer("a", closed, np.zeros(3))):
        (found,), counts = of_side([one], **told)
        assert found.tolist() == [1.0] * (3 + closed)
        assert (counts["tokens"], counts["at_lower"], counts["at_upper"]) == (3, 0, 0)
    (found,), counts = of_side([AlignedAnswer("a", closed, np.zeros(3))], normalise="mean_one", **told)
    assert found.tolist() == [1.0] * (3 + closed)
    assert counts == {**dict.fromkeys(tables.WEIGHT_COUNTS, 0), "tokens": 3}


# Controls

TRUE = np.array([0.61, 0.75, 1.0, 1.5, 2.5, 4.48])


def controlled(control, seed=0, true=TRUE):
    return controls.apply_control(true.copy(), control, np.random.default_rng(seed))


def test_reversals_by_hand():
    assert controlled("none").tolist() == TRUE.tolist()
    assert controlled("one_minus") == pytest.approx([0.39, 0.25, 0.0, -0.5, -1.5, -3.48])
    assert controlled("inverse") == pytest.approx([1 / 0.61, 4 / 3, 1.0, 2 / 3, 0.4, 1 / 4.48])


def test_permuted_weights_are_the_same_in_other_places():
    found = [controlled("permuted", seed).tolist() for seed in range(20)]
    assert {tuple(sorted(one)) for one in found} == {tuple(sorted(TRUE))}
    assert len(set(map(tuple, found))) > 15


def test_random_weights_are_uniform_whatever_the_true_ones():
    found = controlled("random", true=np.repeat(TRUE, 2000))
    assert found.tolist() == controlled("random", true=np.ones(12_000)).tolist()
    assert -0.5 <= found.min() < -0.49
    assert 1.49 < found.max() < 1.5
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    assert found.std() == pytest.approx(2 / math.sqrt(12), abs=0.02)


def test_matched_weights_are_positive_with_the_mean_and_deviation_of_the_true_ones():
    found = np.concatenate([controlled("random_matched", seed) for seed in range(4000)])
    assert (found > 0).all()
    assert found.mean() == pytest.approx(TRUE.mean(), rel=0.02)
    assert found.std() == pytest.approx(TRUE.std(), rel=0.03)
    assert len(set(found)) == len(found)


def test_matched_weights_of_a_constant_answer_stay():
    assert controlled("random_matched", true=np.full(5, 1.7)).tolist() == [1.7] * 5
    assert controlled("random_matched", true=np.array([0.61])).tolist() == [0.61]


def test_noise_stays_within_its_distance():
    away = np.concatenate([controlled("noise", seed) - TRUE for seed in range(500)])
    assert 0.19 < np.abs(away).max() <= 0.2
    assert away.mean() == pytest.approx(0.0, abs=0.01)
    assert away.std() == pytest.approx(0.4 / math.sqrt(12), rel=0.05)


@pytest.mark.parametrize("control", CONTROLS)
def test_no_control_needs_a_token(control):
    assert controlled(control, true=np.empty(0)).tolist() == []
    assert of_one(answer(0), control=control) == [1.0]


RANDOM = pytest.mark.parametrize("control", ["permuted", "random", "random_matched", "noise"])


@RANDOM
def test_trap_21_random_numbers_belong_to_a_prompt_a_side_and_a_seed(control):
    """Not to a row: neither its place nor its company changes them."""

    def drawn(ids, side="chosen", seed=SEED):
        made, _ = of_side([answer(12, prompt_id=one) for one in ids], side, seed, control=control, mu_rejected=1.0)
        return dict(zip(ids, map(tuple, made), strict=True))

    first, second = drawn("abc"), drawn("cxa")
    assert [second[one] for one in "ac"] == [first[one] for one in "ac"]
    others = [drawn("a", side="rejected"), drawn("a", seed=(43, 0)), drawn("a", seed=(42, 1))]
    assert len({*first.values(), *(other["a"] for other in others)}) == 6


# The order of operations


def test_the_control_comes_before_the_normalisation_and_eos_after_both():
    """Weights e^0, e^1 become 1 - w = 0, -1.718 or 1 / w = 1, 0.368 first; permuted and EOS take no part."""
    one = answer(2, [0.0, 1.0])
    told = {"normalise": "mean_one", "eos_weight": 5.0}
    assert of_one(one, **told) == pytest.approx([2 / (1 + E), 2 * E / (1 + E), 5.0])
    assert of_one(one, control="inverse", **told) == pytest.approx([2 / (1 + 1 / E), 2 / (1 + E), 5.0])
    with pytest.raises(StudyError, match=r"expected weights with a positive sum, found -1\.72"):
        of_one(one, control="one_minus", **told)


@pytest.mark.parametrize("control", ["permuted", "random_matched", "noise", "inverse"])
def test_trap_18_normalised_weights_have_mean_one_whatever_the_control(control):
    found = of_one(answer(9), control=control, normalise="mean_one")
    assert np.mean(found[:-1]) == pytest.approx(1.0)
    assert found[-1] == 1.0
    raw = of_one(answer(9), control=control)
    assert found[:-1] == pytest.approx((np.array(raw[:-1]) / np.mean(raw[:-1])).tolist())


def test_a_fixed_sum_leaves_eos_beside_the_mean_of_the_others():
    """The sum is that of the response; EOS has c/n times its weight."""
    told = {"normalise": "sum_to", "normalise_to": 100.0}
    found = of_one(answer(4, [0.0, 0.0, 1.0, 1.0]), **told)
    assert found == pytest.approx([100 / (2 + 2 * E)] * 2 + [100 * E / (2 + 2 * E)] * 2 + [25.0])
    assert sum(found[:-1]) == pytest.approx(100.0)
    assert of_one(answer(4), eos_weight=2.0, **told)[-1] == 50.0
    assert of_one(answer(4), eos_weight=0.0, **told)[-1] == 0.0
    assert len(of_one(answer(4, closed=False), **told)) == 4


@pytest.mark.parametrize("eos", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("normalise", ["none", "mean_one"])
def test_trap_11_eos_has_the_weight_that_is_set(eos, normalise):
    closed, cut = (of_one(answer(3, closed=closed), eos_weight=eos, normalise=normalise) for closed in (True, False))
    assert closed == [*cut, eos]


def test_k_is_a_factor_of_all_but_eos_and_normalised_away():
    plain, double = (of_one(answer(6), k=k) for k in (1.0, 2.0))
    assert double == pytest.approx([2 * weight for weight in plain[:-1]] + [1.0])
    one, other = (of_one(answer(6), k=k, normalise="mean_one") for k in (1.0, 3.0))
    assert one == pytest.approx(other)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("normalise", ["none", "mean_one", "sum_to"])
def test_an_empty_answer_has_eos_or_nothing(closed, normalise):
    for side in ("chosen", "rejected"):
        (found,), counts = of_side([answer(0, closed=closed)], side, normalise=normalise, normalise_to=1.0)
        assert found.tolist() == [1.0] * closed
        assert counts["tokens"] == 0


def test_trap_17_a_sum_that_cannot_be_divided_by_is_refused_with_its_prompt_and_side():
    good, bad = answer(3, [-1.0] * 3, prompt_id="train-1"), answer(3, [2.0] * 3, prompt_id="train-7")
    for told in ({"normalise": "mean_one"}, {"normalise": "sum_to", "normalise_to": 100.0}):
        with pytest.raises(StudyError) as error:
            of_side([good, bad], control="one_minus", **told)
        expected = "expected weights with a positive sum, found -10.4; set weigh.normalise to none"
        assert str(error.value) == f"train-7, chosen: {expected}"
    with pytest.raises(StudyError, match=r"train-1, rejected: .*found -1\.95"):
        of_side([bad, good], "rejected", control="one_minus", normalise="mean_one")
    flat = answer(3, [0.0] * 3)
    with pytest.raises(StudyError, match="found 0; "):
        of_one(flat, control="one_minus", normalise="mean_one")
    assert of_one(flat, control="one_minus") == [0.0, 0.0, 0.0, 1.0]


def test_each_side_has_its_own_mu():
    one = answer(2, [1.0, -0.25])
    assert of_one(one) == single([E, E**-0.25, 1.0])
    assert of_one(one, "rejected") == single([1 / E, E**0.25, 1.0])
    assert of_one(one, "rejected", mu_rejected=1.0) == of_one(one)
    assert of_one(one, mu_chosen=0.5) == single([E**0.5, E**-0.125, 1.0])


@pytest.mark.parametrize("control", CONTROLS)
def test_weights_are_float32(control):
    made, counts = of_side([answer(5), answer(0, closed=False)], control=control)
    assert {one.dtype for one in made} == {np.dtype("f4")}
    assert all(isinstance(count, int | float) for count in counts.values())


# A teacher that tells no tokens apart


def alike(ratios, count=8, read=10, **changes):
    """Weigh the same answers of ten tokens on both sides, with log-ratios that broadcast to them."""
    ratios = np.broadcast_to(ratios, (count, 10))
    answers = [
        AlignedAnswer(f"{i}", True, np.zeros(10), own[:read], align_ids(10, read)) for i, own in enumerate(ratios)
    ]
    settings = weigh(**changes)
    sides = {side: weights.weight_side(side, answers, settings, SEED) for side in tables.SIDES}
    weights.check_varied(sides, settings, "teacher.parquet")


@pytest.mark.parametrize(
    ("ratios", "read", "cause"),
    [
        (0.0, 10, "as from a copy of the student or an untrained model; take another teacher"),
        (np.linspace(0.2, 0.2005, 10), 10, "as from a copy of the student or an untrained model; take another teacher"),
        (np.linspace(-9, -0.5, 10), 10, "160 at weigh.lower, 0 at weigh.upper; take a teacher that is trained on such"),
        (9.0, 10, "0 at weigh.lower, 160 at weigh.upper; take a teacher that is trained on such text, in its own"),
        (1.0, 0, "all neutral: 160 unread, 0 unclear; take a teacher with a context for the study's prompts"),
    ],
)
@pytest.mark.parametrize("control", ["none", "noise", "one_minus"])
def test_trap_03_log_ratios_that_are_all_alike_are_refused(ratios, read, cause, control):
    """Whatever the cause, and before any control."""
    with pytest.raises(StudyError) as error:
        alike(ratios, read=read, control=control)
    found = f"found one for all 160 tokens of this shard, {cause}"
    assert str(error.value).startswith(f"teacher.parquet: expected log-ratios that differ from token to token, {found}")
    assert str(error.value).endswith("; or set weigh.uniform to allow")
    alike(ratios, read=read, control=control, uniform="allow")


def test_log_ratios_may_be_alike_by_chance():
    """In a few answers; and where one token differs they are not."""
    alike(-9.0, count=3)
    with pytest.raises(StudyError, match="expected log-ratios that differ"):
        alike(-9.0, count=8, mu_chosen=0.0)
    alike(np.append(np.full(9, -9.0), 0.0))
