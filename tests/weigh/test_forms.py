"""Forms of token weights: numbers by hand, and what holds of any answer."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wspin.config.weigh import FORM_KEYS, PRESETS, Weigh
from wspin.weigh import forms, weights
from wspin.weigh.alignment import align, align_ids
from wspin.weigh.inputs import AlignedAnswer

ALWAYS = {"control": "none", "normalise": "none", "eos_weight": 1.0}
SCALES = {"scale_lower": 0.7, "scale_upper": 1.3}
KEYS = {
    "linear": {"mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5, "upper": 1.5},
    "origin": {},
    "binary": {"top_percent": 50.0},
    "threshold": {"lower": -1.0, "upper": 1.0},
    "threshold_and_scale": {"lower": -1.5, "upper": 1.5, **SCALES},
    "random": SCALES,
    "rank_based": SCALES,
}
SCORES = st.lists(st.floats(-30, 30, width=32), max_size=40).map(lambda values: np.array(values, dtype=float))
SIDES = pytest.mark.parametrize("side", ["chosen", "rejected"])


def settings(form, source="teacher", **changes):
    return Weigh(**{**ALWAYS, "source": source, "form": form, "segment_agg": "paper_mean", **KEYS[form], **changes})


def weigh(ratios, told, side="chosen", closed=False):
    """Weights of an answer with these log-ratios, of two scorers in the student's tokenizer."""
    ratios = np.asarray(ratios, dtype=float)
    one = AlignedAnswer("train-0", closed, ratios, np.zeros(len(ratios)), align_ids(len(ratios), len(ratios)))
    (found,), *_ = weights.weight_side(side, [one], told, (42, 0))
    return found.tolist()


# By hand

RATIOS = [0.5, -2.0, 0.5, 1.6, -0.25]


@pytest.mark.parametrize(
    ("form", "changes", "chosen", "rejected"),
    [
        ("linear", {}, [0.5, -0.5, 0.5, 1.5, -0.25], [-0.5, 1.5, -0.5, -0.5, 0.25]),
        ("linear", {"mu_rejected": 2.0}, [0.5, -0.5, 0.5, 1.5, -0.25], [1.0, -0.5, 1.0, 1.5, -0.5]),  # mu, then clamp
        ("origin", {}, RATIOS, [-0.5, 2.0, -0.5, -1.6, 0.25]),
        ("binary", {}, [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]),  # floor(2.5) ones; of equal scores the earlier
        ("binary", {"top_percent": 60.0}, [1, 0, 1, 1, 0], [1, 1, 0, 0, 1]),
        ("binary", {"top_percent": 19.0}, [0] * 5, [0] * 5),
        ("threshold", {}, [0.5, -1.0, 0.5, 1.0, -0.25], [-0.5, 1.0, -0.5, -1.0, 0.25]),
        ("threshold_and_scale", {}, [1.1, 0.7, 1.1, 1.3, 0.95], [0.9, 1.3, 0.9, 0.7, 1.05]),
        ("rank_based", {}, [1.0, 0.7, 1.15, 1.3, 0.85], [0.85, 1.3, 1.0, 0.7, 1.15]),
    ],
)
def test_forms_by_hand(form, changes, chosen, rejected):
    told = settings(form, **changes)
    assert weigh(RATIOS, told) == pytest.approx(chosen)
    assert weigh(RATIOS, told, "rejected") == pytest.approx(rejected)
    assert weigh(RATIOS, told, closed=True) == pytest.approx([*chosen, 1.0])  # EOS takes no rank


@pytest.mark.parametrize("preset", ["default", "aggressive", "named_params"])
def test_presets_by_hand(preset):
    """Of a score of 0.4 beside one of -3 and one of 3."""

    def middle(form, **changes):
        return weigh([-3.0, 0.4, 3.0], Weigh(**{**ALWAYS, "source": "pair", "form": form, "preset": preset, **changes}))

    place = ["default", "aggressive", "named_params"].index(preset)
    agg = {"segment_agg": "log_mean"}
    limit, (bound, low, high) = (1.0, 0.8, 0.9)[place], ((1.5, 0.7, 1.3), (2.0, 0.5, 1.5), (1.8, 0.6, 1.4))[place]
    assert middle("threshold", **agg) == pytest.approx([-limit, 0.4, limit])
    scaled = low + (high - low) * (0.4 + bound) / (2 * bound)
    assert middle("threshold_and_scale", **agg) == pytest.approx([low, scaled, high])
    assert middle("rank_based", **agg) == pytest.approx([low, 1.0, high])
    assert middle("binary", **agg) == [[1, 1, 1], [0, 0, 1], [0, 1, 1]][place]


def test_a_preset_becomes_numbers():
    told = Weigh(**ALWAYS, source="pair", form="threshold_and_scale", preset="aggressive", segment_agg="paper_mean")
    assert [getattr(told, key) for key in FORM_KEYS["threshold_and_scale"]] == [-2.0, 2.0, 0.5, 1.5]
    assert told.preset is None
    assert all(len(numbers) == len(FORM_KEYS[form]) for form in PRESETS for numbers in PRESETS[form].values())


def test_a_word_has_the_mean_of_its_log_ratios_as_score():
    """Foreign tokens of -0.5 and -2.5 beside a student's of -1: log-ratios 0.5 and -1.5, in a sum -2."""
    aligned = align("abc de", [3, 6], [1, 3, 6])
    parts = aligned, np.array([1.0, 0.25]), np.array([-0.5, -2.5, -0.25])
    for agg, score in (("paper_mean", -0.5), ("log_mean", -0.5), ("sum_spread", -2.0)):
        for side, sign in (("chosen", 1), ("rejected", -1)):
            found = forms.scored_weights(*parts, side, settings("origin", segment_agg=agg), None)
            assert found.weights.tolist() == [sign * score, 0.0]
            told = settings("threshold", segment_agg=agg, lower=-0.5, upper=0.5)
            found = forms.scored_weights(*parts, side, told, None)
            assert found.weights.tolist() == [-0.5 * sign, 0.0]
            assert (found.at_lower.tolist(), found.at_upper.tolist()) == (
                ([1, 0], [0, 0]) if side == "chosen" else ([0, 0], [1, 0])
            )


def test_linear_is_averaged_after_the_clamp():
    aligned = align("abc", [3], [1, 3])
    found = forms.scored_weights(aligned, np.array([1.0]), np.array([1.0, -2.0]), "chosen", settings("linear"), None)
    assert found.weights.tolist() == [0.5]  # of 1.5 and -0.5, not of 2 and -1
    assert (found.at_lower.tolist(), found.at_upper.tolist()) == ([0.5], [0.5])


@pytest.mark.parametrize("form", [form for form in KEYS if form != "random"])
def test_a_token_without_a_log_ratio_has_a_score_of_0(form):
    """The scorer's context ends before the last two tokens."""
    ratios = np.array([0.5, -0.75, 9.0, 9.0])
    cut = forms.scored_weights(align_ids(4, 2), ratios, np.zeros(2), "chosen", settings(form), None)
    assert cut.weights.tolist() == pytest.approx(weigh([0.5, -0.75, 0.0, 0.0], settings(form)))
    assert cut.scores[2:].tolist() == [0.0, 0.0]


# Of any answer


@pytest.mark.parametrize(
    ("scores", "percent", "kept"),
    [
        ([3, 2, 2, 1], 50.0, [1, 1, 0, 0]),
        ([2, 3, 1, 2], 50.0, [1, 1, 0, 0]),
        ([1, 2, 2, 3], 50.0, [0, 1, 0, 1]),
        ([2, 2, 2, 2], 50.0, [1, 1, 0, 0]),
        ([0, 0, 0], 99.0, [1, 1, 0]),
        ([5], 99.0, [0]),
        ([], 50.0, []),
    ],
)
def test_trap_24_equal_scores_are_kept_by_place(scores, percent, kept):
    """Flags belong to places, not to values: floor(n p / 100) ones, whatever is equal. Rejected scores are -r."""
    told = settings("binary", top_percent=percent)
    assert weigh(scores, told) == kept
    assert weigh([-score for score in scores], told, "rejected") == kept
    assert sum(kept) == math.floor(len(scores) * percent / 100)


@given(scores=SCORES, percent=st.one_of(st.integers(1, 99), st.sampled_from([0.1, 12.5, 33.3, 99.9])))
def test_trap_24_binary_has_exactly_as_many_ones(scores, percent):
    found = weigh(scores, settings("binary", top_percent=percent))
    ones = math.floor(Fraction(str(float(percent))) * len(scores) / 100)
    assert sorted(found) == [0.0] * (len(scores) - ones) + [1.0] * ones
    rows = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert [i for i in range(len(scores)) if found[i]] == sorted(rows[:ones])


@pytest.mark.parametrize(
    ("count", "percent", "ones"), [(100, 29.0, 29), (1000, 0.7, 7), (1000, 70.1, 701), (3, 33.3, 0)]
)
def test_percents_are_counted_without_rounding(count, percent, ones):
    """In floating point 100 * 0.29 is less than 29."""
    assert sum(weigh(np.arange(count), settings("binary", top_percent=percent))) == ones


@given(scores=SCORES)
def test_ranks_are_those_of_a_stable_sort(scores):
    found = weigh(scores, settings("rank_based"))
    count = len(scores)
    ranks = {i: rank for rank, i in enumerate(sorted(range(count), key=lambda i: (scores[i], i)))}
    by_hand = [0.7 + 0.6 * ranks[i] / (count - 1) if count > 1 else 1.0 for i in range(count)]
    assert found == pytest.approx(by_hand)


@given(scores=SCORES)
@SIDES
def test_ranges(side, scores):
    for form, low, high in (("linear", -0.5, 1.5), ("threshold", -1, 1), ("binary", 0, 1), ("random", 0.7, 1.3)):
        found = np.array(weigh(scores, settings(form), side))
        assert ((found >= np.float32(low)) & (found <= np.float32(high))).all()
    for form in ("threshold_and_scale", "rank_based"):
        found = np.array(weigh(scores, settings(form), side))
        assert ((found > 0.7 - 1e-6) & (found < 1.3 + 1e-6)).all()


@given(scores=SCORES.filter(lambda values: len({*values.tolist()}) == len(values)), seed=st.integers(0, 99))
@pytest.mark.parametrize("form", ["origin", "threshold", "threshold_and_scale", "binary", "rank_based", "linear"])
def test_a_forms_weights_go_with_their_tokens(form, scores, seed):
    order = np.random.default_rng(seed).permutation(len(scores))
    expected = np.array(weigh(scores, settings(form)))[order]
    assert weigh(scores[order], settings(form)) == expected.tolist()


@given(scores=SCORES)
@pytest.mark.parametrize("form", ["origin", "threshold"])
def test_sides_differ_in_sign(form, scores):
    assert weigh(scores, settings(form), "rejected") == [-weight for weight in weigh(scores, settings(form))]


def test_random_weights_belong_to_a_prompt_and_a_side_and_need_no_scores():
    told = settings("random", source="equal", segment_agg=None)
    answers = [AlignedAnswer(name, True, np.zeros(200)) for name in ("a", "b")]
    first, second = weights.weight_side("chosen", answers, told, (42, 0))[0]
    again = weights.weight_side("chosen", answers[1:], told, (42, 0))[0][0]
    other = weights.weight_side("rejected", answers[:1], told, (42, 0))[0][0]
    assert second.tolist() == again.tolist()
    assert len({*map(tuple, (first, second, other))}) == 3
    assert first[-1] == 1.0
    assert first[:-1].mean() == pytest.approx(1.0, abs=0.05)
    assert first[:-1].std() == pytest.approx(0.6 / math.sqrt(12), rel=0.2)
