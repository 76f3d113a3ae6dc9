"""Tests of a difference between two models, and their adjustment for their number. All are two-sided.

McNemar's test, exact: Psychometrika 12 (1947); sign permutation: Fisher, The Design of Experiments (1935), section 21.
"""

from collections.abc import Sequence

import numpy as np

from .bootstrap import Floats

BATCH_VALUES = 2_000_000  # signs in memory at a time
ROUNDING = 1e-9  # of sums in any order, relative to the sum of magnitudes
SMALLEST = 1e-12  # magnitude of a difference, a fraction: sums of terms that cancel leave 1e-18


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p that of the documents that one model alone got right, both have equally many.

    `better` and `worse` count those of either model; better is Binomial(better + worse, 1/2). 1 without such documents.
    """
    from scipy import stats  # slow to import, and not every importer of this module tests

    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def sign_permutation(values: Floats, draws: int, rng: np.random.Generator) -> float:
    """Two-sided p that the sum of values (n,) is 0, from the sums of the same magnitudes under random signs.

    The share of all sign patterns with a sum of at least this magnitude, where there are at most `draws`; otherwise of
    `draws` random patterns and the observed one. Zeros have no influence.
    """
    terms = values[values != 0.0]
    sums = _all_sums(terms) if 2 ** len(terms) <= draws else _drawn_sums(terms, draws, rng)
    return float(np.mean(np.abs(sums) >= abs(terms.sum()) - ROUNDING * np.abs(terms).sum()))


def _all_sums(terms: Floats) -> Floats:
    """(2^n,): the sums of the terms (n,) under every pattern of signs."""
    sums = np.zeros(1)
    for term in terms:
        sums = np.concatenate([sums + term, sums - term])
    return sums


def _drawn_sums(terms: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """(draws + 1,): the sum of the terms (n,), and their sums under random signs."""
    sums, batch = [[terms.sum()]], max(1, BATCH_VALUES // len(terms))
    for start in range(0, draws, batch):
        negative = rng.integers(0, 2, (min(batch, draws - start), len(terms)), dtype=np.int8)
        sums.append(terms.sum() - 2.0 * (negative @ terms))
    return np.concatenate(sums)


def seeds_test(differences: Floats) -> float:
    """Two-sided p that the mean of the seeds' differences (n,) is 0, by Student's t with n - 1 degrees of freedom.

    NaN for fewer than two seeds, or differences that are equal but for rounding: without a spread there is no t.
    """
    from scipy import stats

    if np.ptp(differences) <= max(SMALLEST, ROUNDING * np.abs(differences).max()):
        return float("nan")
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted for their number: significant at a level are those of at most this level.

    NaN stands for a test that was not done, and counts as one: it takes p = 1 and keeps NaN. Holm, A Simple
    Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values)  # NaN last
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
