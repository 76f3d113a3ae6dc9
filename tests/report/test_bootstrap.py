"""Bootstrap intervals against closed forms, resampling by hand, changes of order."""

import math
import warnings

import numpy as np
import pytest

from wspin.errors import StudyError
from wspin.report import bootstrap
from wspin.report.bootstrap import estimate, paired_difference
from wspin.rng import row_generator

Z = 1.959963984540054  # of 95 %


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def rng():
    return row_generator(42, "bootstrap")


def binary(share, n, seed=0):
    """(n,) zeros and ones, in random places."""
    return np.random.default_rng(seed).permutation(np.arange(n) < round(share * n)).astype(float)


def resampled(tasks, draws, seed):
    """The average in every draw, (draws,), by one loop over draws, tasks and strata: what a reader would write down."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        means = []
        for strata in tasks.values():
            drawn = [values[generator.integers(0, len(values), len(values))] for values in strata]
            means.append(np.concatenate(drawn).mean())
        found.append(np.mean(means))
    return np.array(found)


def test_values_are_plain_means_of_items_and_of_tasks():
    tasks = {"group": [np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0])], "one": [np.array([0.25, 0.75])]}
    found = estimate(tasks, 100, 0.95, rng())
    assert list(found.tasks) == ["group", "one"]
    assert found.tasks["group"].value == pytest.approx(3 / 5)  # a subtask weighs by its size: not (3/4 + 0) / 2
    assert found.tasks["one"].value == 0.5
    assert found.average.value == pytest.approx((3 / 5 + 1 / 2) / 2)


def test_draws_weigh_a_group_by_size_and_stay_in_their_strata():
    """Strata without spread move nothing, however different they are; only the other one does."""
    tasks = {"group": [np.ones(30), np.zeros(60), binary(0.5, 10)], "one": [np.full(5, 0.25)]}
    found = estimate(tasks, 5000, 0.9, rng())
    assert found.tasks["group"].low >= 0.3
    assert found.tasks["group"].high <= 0.4
    spread = 0.1 * np.quantile(
        [binary(0.5, 10)[np.random.default_rng(i).integers(0, 10, 10)].mean() for i in range(5000)], [0.05, 0.95]
    )
    assert found.tasks["group"][1:] == pytest.approx(0.3 + spread, abs=0.011)  # steps of 1/100
    assert found.tasks["one"] == (0.25, 0.25, 0.25)


def test_the_interval_is_that_of_plain_resampling():
    generator = np.random.default_rng(3)
    tasks = {"a": [generator.exponential(0.3, 8)], "g": [generator.exponential(1, n) ** 2 for n in (5, 9, 3)]}
    found = estimate(tasks, 20000, 0.8, rng()).average
    oracle = resampled(tasks, 20000, seed=5)
    error = oracle.std() / math.sqrt(20000)  # of a mean; of these quantiles less than twice that
    assert (found.low, found.high) == pytest.approx(np.quantile(oracle, [0.1, 0.9]), abs=6 * error)


@pytest.mark.parametrize(("n", "gained", "lost"), [(400, 0.08, 0.05), (2000, 0.2, 0.2), (1000, 0.03, 0.0)])
def test_a_paired_interval_has_the_closed_form_of_discordant_pairs(n, gained, lost):
    """SE^2 = (b + c - (b - c)^2) / n with b, c the shares of items that one model alone has right (McNemar's table)."""
    both = round(0.3 * n)
    first = np.arange(n) < both + round(gained * n)
    second = (np.arange(n) < both) | (np.arange(n) >= n - round(lost * n))
    found = paired_difference({"t": [first.astype(float)]}, {"t": [second.astype(float)]}, 20000, 0.95, rng()).average
    error = math.sqrt((gained + lost - (gained - lost) ** 2) / n)
    assert found.value == pytest.approx(gained - lost)
    assert found.high - found.low == pytest.approx(2 * Z * error, rel=0.05)
    unpaired = math.sqrt((first.mean() * (1 - first.mean()) + second.mean() * (1 - second.mean())) / n)
    assert found.high - found.low < 0.9 * 2 * Z * unpaired


def test_the_average_has_the_closed_form_of_independent_tasks():
    tasks = {"a": [binary(0.3, 500)], "b": [binary(0.6, 200, 1), binary(0.9, 800, 2)], "c": [binary(0.5, 300, 3)]}
    of_b = math.sqrt(0.2**2 * 0.24 / 200 + 0.8**2 * 0.09 / 800)
    error = math.hypot(math.sqrt(0.21 / 500), of_b, math.sqrt(0.25 / 300)) / 3
    found = estimate(tasks, 20000, 0.95, rng())
    assert found.average.high - found.average.low == pytest.approx(2 * Z * error, rel=0.04)
    assert found.tasks["b"].high - found.tasks["b"].low == pytest.approx(2 * Z * of_b, rel=0.05)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """300 studies of 200 + 100 items whose true difference is known: 90 % of the intervals hold it, give or take."""
    held = 0
    for seed in range(300):
        world = np.random.default_rng(seed)
        easy = [world.random((2, n)) for n in (200, 100)]
        first = {str(i): [(common[0] < 0.6).astype(float)] for i, common in enumerate(easy)}
        second = {
            str(i): [np.where(common[1] < 0.2, common[1] < 0.1, common[0] < 0.6).astype(float)]
            for i, common in enumerate(easy)
        }
        found = paired_difference(first, second, 500, 0.9, row_generator(seed)).average
        held += found.low <= 0.02 <= found.high  # where the two differ: 0.2 * (0.6 - 0.5)
    assert abs(held / 300 - 0.9) < 3.5 * math.sqrt(0.09 / 300)


def test_equal_models_differ_by_exactly_nothing():
    tasks = {"a": [binary(0.3, 77)], "b": [np.random.default_rng(0).random(50), np.random.default_rng(1).random(3)]}
    found = paired_difference(
        tasks, {name: [s.copy() for s in strata] for name, strata in tasks.items()}, 500, 0.95, rng()
    )
    assert set(found.tasks.values()) == {(0.0, 0.0, 0.0)}
    assert found.average == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -0.7])
@pytest.mark.parametrize("n", [1, 2, 7, 400])
def test_items_without_spread_have_an_interval_without_width(value, n):
    found = estimate({"a": [np.full(n, value)], "b": [np.full(3, value), np.array([value])]}, 50, 0.95, rng())
    for interval in (*found.tasks.values(), found.average):
        assert interval.low == interval.value == interval.high
        assert interval.value == pytest.approx(value)


def test_one_item_moves_nothing_and_spoils_nothing():
    found = estimate({"one": [np.array([1.0])], "many": [binary(0.5, 100)]}, 2000, 0.95, rng())
    assert found.tasks["one"] == (1.0, 1.0, 1.0)
    assert found.average.low == pytest.approx((1 + found.tasks["many"].low) / 2)
    assert found.tasks["many"].low < 0.45 < 0.55 < found.tasks["many"].high


def test_order_has_no_influence():
    generator = np.random.default_rng(0)
    tasks = {name: [generator.normal(size=n) for n in sizes] for name, sizes in (("a", [40]), ("b", [30, 20]))}
    found = estimate(tasks, 300, 0.95, rng())
    shuffled = {name: [generator.permutation(s) for s in tasks[name]] for name in ("b", "a")}
    again = estimate(shuffled, 300, 0.95, rng())
    assert list(again.tasks) == ["b", "a"]
    for task in tasks:
        assert again.tasks[task][1:] == found.tasks[task][1:]
        assert again.tasks[task].value == pytest.approx(found.tasks[task].value)
    assert again.average[1:] == found.average[1:]
    pairs = estimate({"a": tasks["b"], "b": tasks["a"]}, 300, 0.95, rng())  # other names: other draws, the same spread
    assert pairs.average[1:] == pytest.approx(found.average[1:], abs=0.1)


def test_draws_belong_to_the_seed():
    tasks = {"a": [np.random.default_rng(0).normal(size=50)]}
    assert estimate(tasks, 300, 0.95, rng()) == estimate(tasks, 300, 0.95, rng())
    assert estimate(tasks, 300, 0.95, rng()) != estimate(tasks, 300, 0.95, row_generator(43, "bootstrap"))


def test_memory_is_bounded_whatever_the_number_of_draws(monkeypatch):
    shapes = []
    means = bootstrap._means
    monkeypatch.setattr(
        bootstrap, "_means", lambda strata, sizes: shapes.append(strata[0].shape) or means(strata, sizes)
    )
    monkeypatch.setattr(bootstrap, "BATCH_VALUES", 1000)
    estimate({"a": [binary(0.5, 60)], "b": [binary(0.5, 40)]}, 95, 0.95, rng())
    assert shapes == [(10,)] * 9 + [(5,)]


def test_a_wider_share_makes_a_wider_interval():
    tasks = {"a": [binary(0.5, 200)]}
    wide, narrow = (estimate(tasks, 4000, share, rng()).average for share in (0.99, 0.5))
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high


@pytest.mark.parametrize(("draws", "share"), [(1, 0.95), (0, 0.95), (100, 0.0), (100, 1.0), (100, 95.0)])
def test_what_makes_no_interval_is_refused(draws, share):
    with pytest.raises(StudyError, match=f"found 1 tasks, {draws} draws, confidence {share}"):
        estimate({"a": [binary(0.5, 20)]}, draws, share, rng())
    with pytest.raises(StudyError, match="found 0 tasks"):
        estimate({}, 100, 0.95, rng())


def test_items_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="expected items in pairs"):
        paired_difference({"a": [binary(0.5, 20)]}, {"a": [binary(0.5, 1)]}, 100, 0.95, rng())
    with pytest.raises(ValueError, match="expected tasks"):
        paired_difference({"a": [binary(0.5, 20)]}, {"b": [binary(0.5, 20)]}, 100, 0.95, rng())
