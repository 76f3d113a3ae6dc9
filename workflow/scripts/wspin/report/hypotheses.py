"""Which differences are tested by which tests, and which of the tests are the preregistered family.

A difference is that of a contrast (arm - baseline) at an iteration, on a task, at a seed that both have. Its *shares*
are an array (n,), one per document, whose sum is the difference: the documents' differences over n; for a mean of T
tasks, over T n of their task. All values are fractions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from wspin.config.preregistration import LAST, Preregistration
from wspin.errors import StudyError
from wspin.iteration import Iteration
from wspin.progress import with_progress
from wspin.rng import row_generator

from .bootstrap import Floats
from .comparison import Models, paired_tasks
from .scores import Groups, table_columns, with_average
from .significance import SMALLEST, holm, mcnemar, seeds_test, sign_permutation

POOLED = "pooled"  # in place of a seed
PREREGISTERED, EXPLORATORY = "preregistered", "exploratory"
LABELS = {True: PREREGISTERED, False: EXPLORATORY}

Pair = tuple[str, str]  # an arm, or a model of the registry, and its baseline


class Hypothesis(NamedTuple):
    """That a difference is 0, by one of the tests; `iteration`: None between models of the registry."""

    arm: str
    baseline: str
    iteration: int | None
    task: str
    test: str


class Result(NamedTuple):
    """A tested hypothesis: n documents or seeds, of which `better` favour the arm and `worse` its baseline."""

    hypothesis: Hypothesis
    seed: int | str
    n: int
    better: int
    worse: int
    difference: float
    p: float


class Untested(NamedTuple):
    """A hypothesis of the family without its results; `iteration` as in the preregistration."""

    arm: str
    baseline: str
    iteration: int | str
    task: str
    test: str
    reason: str
    count: int  # of tests


class PermutationDraws(NamedTuple):
    """The most patterns of signs that are summed, and the seed from which they are drawn where there are more."""

    count: int
    seed: int

    def rng(self) -> np.random.Generator:
        """A new generator, the same for every test."""
        return row_generator(self.seed, "permutation")


@dataclass(frozen=True)
class StudySamples:
    """The samples of models, the seeds of arms and models of the registry, and the (name, replicate) among these."""

    models: Models
    seeds: Mapping[str, int]
    replicates: Sequence[tuple[str, str]]
    groups: Groups
    draws: PermutationDraws

    @cached_property
    def binary(self) -> set[str]:
        """Tasks whose documents have the values 0 and 1 alone, whatever model answers."""
        leaves = [(task, leaf) for tasks in self.models.values() for task in tasks for leaf in tasks[task]]
        return {task for task, _ in leaves} - {task for task, leaf in leaves if not np.isin(leaf.values, (0, 1)).all()}

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks and means of tasks, as in the other tables."""
        return table_columns(self.groups, next(iter(self.models.values())))

    def iterations(self, arm: str, baseline: str) -> list[int | None]:
        """The iterations that both have, by number; those of an arm beside a model of the registry; [None] of two."""
        numbered = [set(self._numbers(name)) for name in (arm, baseline) if name not in self.models]
        return sorted(set.intersection(*numbered)) if numbered else [None]

    def _numbers(self, arm: str) -> list[int]:
        parsed = filter(None, map(Iteration.parse, self.models))
        return [iteration.k for iteration in parsed if iteration.arm == arm]

    def pairs(self, arm: str, baseline: str, k: int | None) -> dict[int, Pair]:
        """Seed -> the models of both that have this seed."""
        first, second = (self._by_seed(name, k) for name in (arm, baseline))
        return {seed: (first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}

    def _by_seed(self, name: str, k: int | None) -> dict[int, str]:
        """Seed -> the model of the replicate that has it."""
        names = [name, *(replicate for first, replicate in self.replicates if first == name)]
        if missing := [other for other in names if other not in self.seeds]:
            raise StudyError(f"--seeds: expected a seed of {missing[0]!r}, found those of {', '.join(self.seeds)}")
        models = {self.seeds[other]: other if other in self.models else f"{other}/ite{k}" for other in names}
        return {seed: model for seed, model in models.items() if model in self.models}

    def common_seeds(self, arm: str, baseline: str) -> list[int]:
        """The seeds that both have at some iteration."""
        return sorted({seed for k in self.iterations(arm, baseline) for seed in self.pairs(arm, baseline, k)})

    def unpaired(self, arm: str, baseline: str) -> tuple[str, ...]:
        """The arms and replicates of both whose seed the other does not have at an iteration."""
        names = []
        for k in self.iterations(arm, baseline):
            first, second = (self._by_seed(name, k) for name in (arm, baseline))
            names += [(first | second)[seed] for seed in sorted(first.keys() ^ second.keys())]
        parsed = {name: Iteration.parse(name) for name in names}
        return tuple(dict.fromkeys(iteration.arm if iteration else name for name, iteration in parsed.items()))

    def obstacle(self, arm: str, baseline: str, k: int | str | None = LAST) -> str:
        """Why a contrast has no differences at all, or none at an iteration; empty if it has."""
        for name in (arm, baseline):
            if name not in self.models and not self._numbers(name):
                return f"no {name} among the models"
        iterations = self.iterations(arm, baseline)
        if not iterations:
            return "no iteration in common"
        if k != LAST and k not in iterations:
            return f"no iteration {k}"
        return "" if self.pairs(arm, baseline, iterations[-1] if k == LAST else k) else "no seed in common"

    def results(self, arm: str, baseline: str) -> Iterator[Result]:
        """Every test that a contrast allows: by iteration and task those of each seed, then those of several."""
        for k in self.iterations(arm, baseline):
            pairs = self.pairs(arm, baseline, k)
            shares = {seed: self._shares(*pair) for seed, pair in pairs.items()}
            for task in self.tasks if shares else ():
                by_seed = {seed: of_pair[task] for seed, of_pair in shares.items()}
                yield from self._results(Hypothesis(arm, baseline, k, task, ""), by_seed)

    def _shares(self, model: str, baseline: str) -> dict[str, Floats]:
        """The shares of the differences of two models. Raises `StudyError` if they have other documents."""
        shares, (first, second) = {}, paired_tasks(self.models, model, baseline)
        for task, strata in first.items():
            values, others = np.concatenate(list(strata)), np.concatenate(list(second[task]))
            shares[task] = (values - others) / len(values)
        for group, tasks in with_average(self.groups, first).items():
            shares[group] = np.concatenate([shares[task] for task in tasks]) / len(tasks)
        return shares

    def _results(self, question: Hypothesis, shares: Mapping[int, Floats]) -> Iterator[Result]:
        test = "mcnemar" if question.task in self.binary else "documents"
        for seed, of_seed in shares.items():
            yield self._result(question._replace(test=test), seed, of_seed)
        if len(shares) > 1:
            yield self._result(question._replace(test="documents"), POOLED, np.mean([*shares.values()], axis=0))
            differences = np.array([math.fsum(of_seed) for of_seed in shares.values()])
            yield self._result(question._replace(test="seeds"), POOLED, differences)

    def _result(self, hypothesis: Hypothesis, seed: int | str, units: Floats) -> Result:
        units = np.where(np.abs(units) < SMALLEST, 0.0, units)
        better, worse = int((units > 0.0).sum()), int((units < 0.0).sum())
        total = math.fsum(units)
        difference = total if abs(total) >= SMALLEST else 0.0
        match hypothesis.test:
            case "mcnemar":
                p = mcnemar(better, worse)
            case "documents":
                p = sign_permutation(units, self.draws.count, self.draws.rng())
            case "seeds":
                p, difference = seeds_test(units), difference / len(units)
        return Result(hypothesis, seed, len(units), better, worse, difference, p)


# The family


class Outcome(NamedTuple):
    """The results, a row each; members of the family without one; (arm, baseline, reason) of contrasts without any;
    (arm, baseline, names) of those with arms or replicates that have no partner of their seed.
    """

    frame: pd.DataFrame
    untested: tuple[Untested, ...]
    uncompared: tuple[tuple[str, str, str], ...]
    unpaired: tuple[tuple[str, str, tuple[str, ...]], ...]


def run_tests(samples: StudySamples, contrasts: Iterable[Pair], preregistration: Preregistration | None) -> Outcome:
    """Every test of the contrasts and of those preregistered.

    In the frame `holm` is p adjusted for the family, members without a result included, and missing outside of it.
    """
    registered = preregistration.pairs if preregistration else []
    compared = dict.fromkeys([*registered, *contrasts])
    tested = with_progress(compared, len(compared), "report: tests", "contrasts")
    results = [result for pair in tested for result in samples.results(*pair)]
    members, untested = _family(samples, preregistration, results) if preregistration else (set(), ())
    inside = [(result.hypothesis, result.seed) in members for result in results]
    p = [result.p for result, member in zip(results, inside, strict=True) if member]
    adjusted = iter(holm([*p, *[math.nan] * sum(member.count for member in untested)]))
    rows = [
        (*result.hypothesis, *result[1:], next(adjusted) if member else math.nan, LABELS[member])
        for result, member in zip(results, inside, strict=True)
    ]
    columns = [*Hypothesis._fields, *Result._fields[1:], "holm", "label"]
    frame = pd.DataFrame(rows, columns=columns).astype({"iteration": "Int64"})
    obstacles = {pair: samples.obstacle(*pair) for pair in compared}
    missing = [(*pair, reason) for pair, reason in obstacles.items() if reason and pair not in registered]
    unpaired = {pair: samples.unpaired(*pair) for pair, reason in obstacles.items() if not reason}
    return Outcome(frame, untested, tuple(missing), tuple((*pair, names) for pair, names in unpaired.items() if names))


def _family(
    samples: StudySamples, preregistration: Preregistration, results: Iterable[Result]
) -> tuple[set[tuple[Hypothesis, int | str]], tuple[Untested, ...]]:
    """The (hypothesis, seed) of the results that a preregistration names, and what it names without a result.

    `documents` is the test of all seeds where there are several, `mcnemar` one of each seed, done or not.
    """
    seeds: dict[Hypothesis, list[int | str]] = {}
    for result in results:
        seeds.setdefault(result.hypothesis, []).append(result.seed)
    in_common = [samples.common_seeds(*pair) for pair in preregistration.pairs]
    most = len(preregistration.seeds or max(in_common, key=len)) or 1
    members, untested = set(), {}
    named = (preregistration.pairs, preregistration.iterations, preregistration.tasks, preregistration.tests)
    for pair, wanted, task, test in product(*named):
        iterations = samples.iterations(*pair)
        k = None if iterations == [None] else iterations[-1] if wanted == LAST and iterations else wanted
        hypothesis, count = Hypothesis(*pair, k, task, test), most if test == "mcnemar" else 1
        tested = _tested(hypothesis, seeds)
        reason = _reason(samples, hypothesis, preregistration.seeds)
        if tested and not reason:
            members |= tested
            count, reason = count - len(tested), f"{count - len(tested)} of {count} seeds not in common"
        if count > 0:
            untested.setdefault(hypothesis, Untested(*pair, wanted, task, test, reason, count))
    return members, tuple(untested.values())


def _tested(hypothesis: Hypothesis, seeds: Mapping[Hypothesis, list[int | str]]) -> set[tuple[Hypothesis, int | str]]:
    """The (hypothesis, seed) of the results of a member."""
    tested = seeds.get(hypothesis, [])
    if hypothesis.test == "documents" and POOLED in tested:
        return {(hypothesis, POOLED)}
    exact = hypothesis._replace(test="mcnemar")
    if hypothesis.test == "documents" and len(seeds.get(exact, [])) == 1:  # has the p of the permutation
        hypothesis, tested = exact, seeds[exact]
    return {(hypothesis, seed) for seed in tested}


def _reason(samples: StudySamples, hypothesis: Hypothesis, expected: Sequence[int] | None) -> str:
    """Why a member cannot be tested, with the seeds `expected` in common; empty if it can."""
    *pair, k, task, test = hypothesis
    if obstacle := samples.obstacle(*pair, k):
        return obstacle
    seeds = list(samples.pairs(*pair, k))
    if expected and sorted(expected) != seeds:
        return f"seeds {', '.join(map(str, seeds))} in common, expected {', '.join(map(str, sorted(expected)))}"
    if task not in samples.tasks:
        return f"no task {task}"
    if test == "mcnemar" and task not in samples.binary:
        single = task in next(iter(samples.models.values()))
        return "its answers are not all right or wrong" if single else "a mean of tasks"
    return "one seed in common" if test == "seeds" and len(seeds) == 1 else ""
