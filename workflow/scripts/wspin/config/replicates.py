"""Replicates: an arm or model with several `seeds` stands for one of each seed, alike in everything else.

The one with the study's seed keeps the name, the others are `{name}.s{seed}`. What a replicate names (the model that it
starts from, its scorers) is the replicate of its own seed where there is one, and otherwise the model that all share.
"""

from collections.abc import Iterator
from typing import Any

from wspin.iteration import Iteration

from .arms import repeated
from .explain import Complaint
from .reader import Place
from .scorers import Scorer
from .sources import Model
from .study import Arm, Study

SECTIONS = ("models", "arms")
SCORERS = ("positive", "negative")  # keys of `weigh`


def replicate_name(name: str, seed: int) -> str:
    return f"{name}.s{seed}"


def check_seeds(study: Study) -> Iterator[Complaint]:
    """Seeds of which `Replicates` cannot make names."""
    for section in SECTIONS:
        for name, entry in getattr(study, section).items():
            place = (section, name, "seeds")
            if entry.seeds is None:
                continue
            yield from repeated(place, entry.seeds)
            if study.seed not in entry.seeds:
                yield place, f"expected the study's seed {study.seed} among them, which {name!r} itself has; add it"
            for other in (replicate_name(name, seed) for seed in entry.seeds if seed != study.seed):
                if other in study.models or other in study.arms:
                    yield place, f"{other!r} is given too; rename that one, or remove its seed here"


class Replicates:
    """The replicates that the `seeds` of a study's models and arms ask for."""

    def __init__(self, study: Study):
        self.study = study
        entries = {**study.models, **study.arms}
        self.seeds = {name: entry.seeds for name, entry in entries.items() if entry.seeds}
        if study.replicates == "all":
            for arm in study.arms.values():
                self._add_start(arm)

    def _add_start(self, arm: Arm) -> None:
        """Give the models of the registry that an arm is trained from the arm's seeds."""
        name = None if arm.fork else arm.start or self.study.start
        while arm.seeds and name in self.study.models and self.study.models[name].trained:
            self.seeds[name] = list(dict.fromkeys([*self.seeds.get(name, [self.study.seed]), *arm.seeds]))
            name = self.study.models[name].from_

    def expanded(self) -> Study:
        """The study with every replicate as an entry of its own; `eval.models` names those of its models too."""
        models = {
            other: self._model(model, seed)
            for name, model in self.study.models.items()
            for seed, other in self._names(name).items()
        }
        arms = {
            other: self._arm(arm, seed)
            for name, arm in self.study.arms.items()
            for seed, other in self._names(name).items()
        }
        shown = [other for name in self.study.eval.models for other in (name, *self._others(name))]
        evaluation = self.study.eval.model_copy(update={"models": shown})
        return self.study.model_copy(update={"models": models, "arms": arms, "eval": evaluation})

    def origins(self) -> dict[Place, Place]:
        """{section and name of a replicate: those of the entry that it was made from}."""
        return {
            (section, other): (section, name)
            for section in SECTIONS
            for name in getattr(self.study, section)
            for other in self._others(name)
        }

    def _names(self, name: str) -> dict[int, str]:
        """Seed -> replicate of a model or arm, itself first."""
        others = [seed for seed in self.seeds.get(name, []) if seed != self.study.seed]
        return {self.study.seed: name} | {seed: replicate_name(name, seed) for seed in others}

    def _others(self, name: str) -> list[str]:
        """The replicates of a model or arm that are not named in `eval.models` beside it."""
        return [other for other in self._names(name).values() if other not in (name, *self.study.eval.models)]

    def _model(self, model: Model, seed: int) -> Model:
        if seed == self.study.seed:
            return model.model_copy(update={"seeds": None})
        named = {key: self._at(getattr(model, key), seed) for key in ("from_", "of")}
        scorers = self._scorers(model.weigh, seed) if model.loss == "wspin" else {}
        return model.model_copy(update={"seeds": None, "seed": seed, **named, "weigh": {**model.weigh, **scorers}})

    def _arm(self, arm: Arm, seed: int) -> Arm:
        if seed == self.study.seed:
            return arm.model_copy(update={"seeds": None})
        update: dict[str, Any] = {"seeds": None, "seed": seed}
        for key in ("start", "teacher"):
            shared = getattr(arm, key) or getattr(self.study, key)
            if self._at(shared, seed) != shared:
                update[key] = self._at(shared, seed)
        if arm.fork:
            update["fork"] = arm.fork.model_copy(update={"from_": self._at(arm.fork.from_, seed)})
        if scorers := self._scorers(arm.weigh, seed):
            update["weigh"] = {**arm.weigh, **scorers}
        return arm.model_copy(update=update)

    def _scorers(self, weigh: dict[str, Any], seed: int) -> dict[str, str]:
        """The scorers in the settings of an arm or model that have a replicate of this seed, by key: that replicate."""
        named = {key: weigh.get(key, getattr(self.study.weigh, key)) for key in SCORERS}
        return {key: self._at(name, seed) for key, name in named.items() if self._at(name, seed) != name}

    def _at(self, name: str | None, seed: int) -> str | None:
        """The replicate of this seed of a model, an iteration or a view, if there is one; otherwise itself."""
        if not isinstance(name, str):
            return name
        model, view = Scorer.parse(name)
        if iteration := Iteration.parse(model):
            arm = self._names(iteration.arm).get(seed, iteration.arm)
            return Scorer(Iteration(arm, iteration.k).name, view).name
        return Scorer(self._names(model).get(seed, model), view).name
