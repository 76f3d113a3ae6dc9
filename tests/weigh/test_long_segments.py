"""Texts without blanks: tokens whose segment is the whole text have their means without a list of all log-ratios."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wspin.config.weigh import FORM_KEYS, Weigh
from wspin.storage import tables
from wspin.weigh import forms, long_segments
from wspin.weigh.alignment import align

VALUES = st.lists(st.integers(-120, 120).map(lambda quarter: quarter / 4), min_size=1, max_size=30).map(np.array)
ALWAYS = {"source": "teacher", "segment_agg": "paper_mean", "control": "none", "normalise": "none", "eos_weight": 1.0}
KEYS = {"k": 1.3, "mu_chosen": 0.5, "mu_rejected": -2.0, "lower": -0.5, "upper": 1.5, "top_percent": 40.0}
KEYS |= {"scale_lower": 0.7, "scale_upper": 1.3}
FORMS = pytest.mark.parametrize("form", FORM_KEYS)
SIDES = pytest.mark.parametrize("side", tables.SIDES)


def settings(form):
    return Weigh(**ALWAYS, form=form, **{key: KEYS[key] for key in FORM_KEYS[form]})


def weigh(text, every, side, form, seed=0):
    """Weights of a text's tokens: the student's of two characters, the teacher's of `every`."""
    student, teacher = ([*range(width, len(text), width), len(text)] for width in (2, every))
    rng = np.random.default_rng(seed)
    values = (rng.exponential(size=len(student)), -rng.exponential(size=len(teacher)))
    alignment = align(text, student, teacher)
    return forms.scored_weights(alignment, *values, side, settings(form), np.random.default_rng(7))


@given(own=VALUES, foreign=VALUES, mu=st.sampled_from([-30.0, -1.0, 0.0, 0.5, 40.0]), bounds=st.tuples(*[VALUES] * 2))
def test_means_are_those_of_all_log_ratios(own, foreign, mu, bounds):
    lower, upper = sorted(float(values[0]) / 4 for values in bounds)
    ratios = own[:, None] + foreign  # quarters, so that no bound is missed by rounding
    clamped = np.clip(ratios, lower, upper)
    means = long_segments.clamped_means(own, foreign, lower, upper, mu)
    assert means.at_lower == pytest.approx((ratios <= lower).mean(1))
    assert means.at_upper == pytest.approx((ratios >= upper).mean(1))
    assert means.clamped == pytest.approx(clamped.mean(1), abs=1e-9)
    assert means.exponential == pytest.approx(np.exp(mu * clamped).mean(1), rel=1e-9)


@FORMS
@SIDES
@pytest.mark.parametrize("text", ["abcdefghijklmnop" * 4, "a few words and " * 4, "word " * 3 + "x" * 70])
def test_weights_are_those_of_listed_log_ratios(monkeypatch, text, side, form):
    """Of texts with long segments alone, among others, and with none."""
    listed = weigh(text, 3, side, form)
    monkeypatch.setattr(long_segments, "LONG", 4)
    for found, expected in zip(weigh(text, 3, side, form), listed, strict=True):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_ordinary_segments_are_listed():
    """So that their weights keep every bit."""
    for count, listed in ((long_segments.LONG, long_segments.LONG**2), (long_segments.LONG + 1, 0)):
        ends = range(1, count + 1)
        tokens, ratios = forms.log_ratios(align("x" * count, ends, ends), *np.zeros((2, count)), "paper_mean")
        assert len(tokens) == len(ratios) == listed


@FORMS
@pytest.mark.parametrize("piece", ["日本語のテキスト", "a\n\nb \n"])
def test_memory_grows_with_the_text_and_not_with_its_square(piece, form):
    """Of a text without blanks, and of one with many runs of white space."""
    peaks = []
    for characters in (5_000, 20_000):
        text = (piece * characters)[:characters]
        tracemalloc.start()
        weigh(text, 3, "chosen", form)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 8 * peaks[0]
