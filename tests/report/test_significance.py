"""Tests of differences, against numbers worked out by hand and scipy's."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from wspin.report.pooling import Variance, half_width
from wspin.report.significance import holm, mcnemar, seeds_test, sign_permutation
from wspin.rng import row_generator

DRAWS = 9999


def generator(*key):
    return row_generator("significance", *key)


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        (8, 2, 2 * (1 + 10 + 45) / 2**10),  # both tails of Binomial(10, 1/2): 0, 1 and 2 of 10, and 8, 9 and 10
        (2, 8, 0.109375),
        (5, 0, 2 / 2**5),
        (5, 5, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_that_of_the_hand(better, worse, expected):
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-12)


def test_a_small_sign_permutation_is_exact():
    """Of the eight patterns of signs of 3, 2 and 1, six have sums of at least 2 in magnitude."""
    assert sign_permutation(np.array([3.0, -2.0, 1.0]), DRAWS, generator()) == 6 / 8
    assert sign_permutation(np.array([3.0, 2.0, 1.0]), DRAWS, generator()) == 2 / 8
    assert sign_permutation(np.array([3.0, 0.0, 2.0, 0.0, 1.0]), DRAWS, generator()) == 2 / 8
    assert sign_permutation(np.zeros(4), DRAWS, generator()) == 1.0


@pytest.mark.parametrize("n", [2, 7, 13])
def test_the_exact_sign_permutation_is_scipys(n):
    values = generator(n).normal(0.3, 1.0, n)
    expected = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=2**n)
    assert sign_permutation(values, 2**n, generator()) == pytest.approx(expected.pvalue, rel=1e-12)


def test_drawn_signs_come_close_to_all_of_them():
    values = generator("drawn").normal(0.3, 1.0, 14)
    exact = sign_permutation(values, 2**14, generator())
    drawn = sign_permutation(values, DRAWS, generator())
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / DRAWS))
    assert drawn == sign_permutation(values, DRAWS, generator())  # the same random numbers
    assert sign_permutation(np.ones(40), DRAWS, generator()) == 1 / (DRAWS + 1)  # never 0


def test_on_right_and_wrong_answers_it_is_mcnemar():
    values = np.repeat([1.0, 0.0, -1.0], [9, 30, 3])
    assert sign_permutation(values / 42, 2**12, generator()) == pytest.approx(mcnemar(9, 3), rel=1e-12)


def test_the_test_over_seeds_is_students():
    """Differences 1, 2 and 3: mean 2, standard error 1 / sqrt(3), so t = 2 sqrt(3) with two degrees of freedom."""
    t = 2 * math.sqrt(3)
    by_hand = 1 - t / math.sqrt(2 + t**2)  # the distribution function of Student's t has this form for two of them
    assert seeds_test(np.array([1.0, 2.0, 3.0])) == pytest.approx(by_hand, rel=1e-12)
    values = generator("seeds").normal(0.5, 1.0, 5)
    assert seeds_test(values) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=1e-12)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.1 + 0.2, 0.3], [1.0], [0.0, 3e-18, -1e-18]])
def test_without_spread_there_is_no_test_over_seeds(values):
    assert math.isnan(seeds_test(np.array(values)))


def test_holm_is_that_of_the_hand():
    """Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, of which the last must not lie below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_what_was_not_tested_counts_in_the_family():
    adjusted = holm([0.01, math.nan, 0.02, math.nan])
    assert adjusted[::2] == pytest.approx([0.04, 0.06])
    assert all(map(math.isnan, adjusted[1::2]))


def test_holm_refuses_what_its_definition_refuses():
    """Stepping down: every hypothesis is refused whose p, and all smaller ones, lie below level / (those left)."""
    for key in range(50):
        p = list(generator("holm", key).uniform(0.0, 0.1, 6))
        level, refused = 0.05, set()
        for left, place in zip(itertools.count(6, -1), np.argsort(p)):
            if p[place] > level / left:
                break
            refused.add(int(place))
        assert {place for place, value in enumerate(holm(p)) if value <= level} == refused


def test_under_the_null_few_are_significant_and_under_a_difference_most():
    """Of 200 studies with 60 documents and 5 seeds: each test finds about a twentieth of nulls, most of differences."""
    found = {}
    for shift in (0.0, 0.25):
        p = {"documents": [], "mcnemar": [], "seeds": []}
        for study in range(200):
            rng = generator("study", study)
            first, second = rng.random((2, 5, 60))
            gaps = (first < 0.4 + shift).astype(float) - (second < 0.4)
            p["documents"].append(sign_permutation(gaps.mean(axis=0), 499, rng))
            p["mcnemar"].append(mcnemar(int((gaps[0] > 0).sum()), int((gaps[0] < 0).sum())))
            p["seeds"].append(seeds_test(gaps.mean(axis=1)))
        for test, values in p.items():
            found[test, shift] = np.mean(np.array(values) <= 0.05)
    assert all(found[test, 0.0] <= 0.1 for test in ("documents", "mcnemar", "seeds")), found
    assert all(found[test, 0.25] >= 0.6 for test in ("documents", "mcnemar", "seeds")), found


# docs/statistics.md

PAGE = (Path(__file__).parents[2] / "docs/statistics.md").read_text()


def page_rows(header):
    """Cells of the table of the page that begins with this cell, without its header."""
    lines = PAGE.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_mcnemars_numbers_are_those_of_the_page():
    rows = page_rows("arm alone right")
    assert len(rows) == 4
    assert [f"{mcnemar(int(better), int(worse)):.4f}" for better, worse, *_ in rows] == [row[-1] for row in rows]


def test_the_permutation_is_that_of_the_page():
    rows = page_rows("document")
    values = np.array([[float(cell) for cell in row[1:]] for row in rows])
    assert values[:, :2].mean(axis=1) == pytest.approx(values[:, 2])
    assert f"p = {sign_permutation(values[:, 2], DRAWS, generator()):.4f}. The" in PAGE


def test_students_numbers_are_those_of_the_page():
    rows = page_rows("differences, points")
    assert len(rows) == 3
    for differences, *shown, p in rows:
        values = np.array([float(value) for value in differences.split(", ")])
        deviation = values.std(ddof=1)
        t = values.mean() / (deviation / math.sqrt(len(values)))
        assert [f"{value:.2f}" for value in (values.mean(), deviation, t)] == shown
        assert f"{seeds_test(values):.4f}" == p


def test_the_pages_fractions_are_those_of_its_tests():
    assert mcnemar(8, 2) == 112 / 1024 and "56 at most two tails: 112 / 1024" in PAGE
    assert sign_permutation(np.ones(5), 32, generator()) == 2 / 32 and "p below 2 / 32 = 0.0625" in PAGE
    assert [math.comb(10, k) for k in range(3)] == [1, 10, 45] and 1 + 10 + 45 == 112 / 2


def test_the_error_of_documents_and_seeds_is_that_of_the_page():
    rows = page_rows("mean, points")
    assert len(rows) == 2
    for *given, error, freedom, interval in rows:
        mean, deviation, seeds, item, documents = map(float, given)
        parts = [Variance(deviation**2 / seeds, seeds - 1), Variance(item**2, documents - 1)]
        half = half_width(parts, 0.95)
        by_hand = (deviation**2 / seeds + item**2) ** 2
        by_hand /= (deviation**2 / seeds) ** 2 / (seeds - 1) + item**4 / (documents - 1)
        assert f"{math.sqrt(deviation**2 / seeds + item**2):.2f}" == error
        assert f"{by_hand:.1f}" == freedom
        assert f"{mean - half:.2f} to {mean + half:.2f}" == interval


def test_holms_numbers_are_those_of_the_page():
    rows = re.findall(r"^\| (?:p|adjusted) \| (0.*) \|$", PAGE, re.MULTILINE)
    p, adjusted = ([float(cell) for cell in row.split(" | ")] for row in rows)
    assert holm(p) == pytest.approx(adjusted)
