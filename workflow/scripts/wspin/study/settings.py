"""What the arms and models of a study are set to, and which of them differ in their seed alone."""

from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from typing import Any

from wspin.config.replicates import replicate_name
from wspin.config.scorers import TEACHER_SOURCES, Scorer
from wspin.config.study import Study
from wspin.config.weigh import Weigh
from wspin.iteration import Iteration


class Settings:
    """The resolved settings of one study's arms and models."""

    def __init__(self, study: Study):
        self.study = study

    def start(self, arm: str) -> str:
        return self.study.arms[arm].start or self.study.start

    def seed(self, name: str) -> int:
        """The seed of an arm or a model of the registry."""
        seed = (self.study.arms.get(name) or self.study.models[name]).seed
        return self.study.seed if seed is None else seed

    @cache
    def teacher(self, arm: str) -> str | None:
        """The model that weighs an arm's tokens; None for an arm without token weights, or with equal ones."""
        if not self.study.weighted(arm) or self.study.arm_weigh(arm).source not in TEACHER_SOURCES:
            return None
        return self.study.arms[arm].teacher or self.study.teacher

    def weighted(self, model: str) -> bool:
        """Whether an iteration or registry model is trained with token weights."""
        iteration = Iteration.parse(model)
        return self.study.weighted(iteration.arm) if iteration else model in self.study.weighted_models()

    @cache
    def weigh_settings(self, model: str) -> Weigh:
        """How the tokens of the pairs are weighed that an iteration or registry model with loss wspin is trained on."""
        iteration = Iteration.parse(model)
        return self.study.arm_weigh(iteration.arm) if iteration else self.study.model_weigh(model)

    def window(self, arm: str) -> int:
        return self.study.arms[arm].data_window or self.study.data_window

    # Replicates

    @cache
    def baseline(self, arm: str) -> str | None:
        """The baseline arm of an arm's seed: `report.baseline` or a replicate of it; None where there is neither."""
        alike = self.replicates(self.study.report.baseline)
        return next((other for other in alike if self.seed(other) == self.seed(arm)), None)

    def replicates(self, name: str) -> list[str]:
        """An arm or model and those that differ from it in the seed alone, one of each seed, the study's first."""
        return self._replicates[name]

    @cached_property
    def _replicates(self) -> dict[str, list[str]]:
        """By name: the replicates of every arm and model, each in one list with the others."""
        arms = sorted(self.study.arms, key=lambda arm: arm != self.study.report.baseline)
        lists = [*self._alike(arms), *self._alike(self.study.models)]
        return {name: names for names in lists for name in names}

    def _alike(self, names: Iterable[str]) -> Iterator[list[str]]:
        """The names in lists of replicates.

        Of arms with one recipe and seed, each has the replicates that are named after it (`config.replicates`); one
        with another seed and name belongs to the first.
        """
        recipes: list[list[str]] = []
        for name in names:
            alike = next((alike for alike in recipes if self._recipe(alike[0]) == self._recipe(name)), [])
            recipes += [] if alike else [alike]
            alike.append(name)
        for alike in recipes:
            by_seed: dict[str, dict[int, str]] = {}
            for name in alike:
                seed = self.seed(name)
                first = next((other for other in alike if replicate_name(other, seed) == name), name)
                by_seed.setdefault(first, {})[seed] = name
            first, *others = by_seed
            for other in others:
                if by_seed[other].keys().isdisjoint(by_seed[first]):
                    by_seed[first] |= by_seed.pop(other)
            for named in by_seed.values():
                yield [named[seed] for seed in sorted(named, key=lambda seed: (seed != self.study.seed, seed))]

    @cache
    def _recipe(self, name: str | None) -> Any:
        """What determines an arm's or model's weights besides its seed and the number of its iterations."""
        model, view = Scorer.parse(name) if name else (name, None)
        if iteration := Iteration.parse(model) if model else None:
            return self._recipe(iteration.arm), iteration.k, view
        if model in self.study.arms:
            return self._arm_recipe(model)
        entry = self.study.models.get(model)
        if not entry or not entry.trained:
            return name
        trained_on = (self._recipe(entry.from_), entry.data, self._recipe(entry.of), entry.reverse)
        return trained_on, self.study.model_train(model), self._weigh_recipe(model), view

    def _arm_recipe(self, arm: str) -> Any:
        fork = self.study.arms[arm].fork
        above = (fork.at, self._recipe(fork.from_)) if fork else self._recipe(self.start(arm))
        return above, self.window(arm), self.study.arm_train(arm), self._weigh_recipe(Iteration(arm, 0).name)

    def _weigh_recipe(self, model: str) -> Any:
        """How a model's tokens are weighed; replicates may have scorers of their seed."""
        if not self.weighted(model):
            return None
        weigh, iteration = self.weigh_settings(model), Iteration.parse(model)
        teacher = self.teacher(iteration.arm) if iteration else self.study.teacher
        scorers = [self._recipe(scorer) for scorer in (teacher, weigh.positive, weigh.negative)]
        return weigh.model_copy(update={"positive": None, "negative": None}), scorers
