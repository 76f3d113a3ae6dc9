"""Which model, answers and weights belong to an arm's iteration k, and who owns what arms share. Names only, no paths.

Two words carry it:

* a *model* is a registry name (`sft`) or an iteration (`spin/ite2`);
* a *response set* is the folder whose `generations/` holds the answers: `{start}` for iteration 0, which the arms
  share, and `{arm}/ite{k}` after that. Its answers come from the opponent of that iteration.
"""

from __future__ import annotations

from functools import cached_property

from wspin.config.study import Study
from wspin.iteration import Iteration

from .memoize import memoized_method


class Lineage:
    """The relations of one study."""

    def __init__(self, study: Study):
        self.study = study

    # Names

    @cached_property
    def fetched_models(self) -> list[str]:
        return [name for name, model in self.study.models.items() if not model.trained]

    @cached_property
    def trained_models(self) -> list[str]:
        return [name for name, model in self.study.models.items() if model.trained]

    @cached_property
    def starts(self) -> list[str]:
        """Models whose answers and log-probabilities open an arm, shared by all arms that start there."""
        return sorted({arm.start or self.study.start for arm in self.study.arms.values()})

    @cached_property
    def teachers(self) -> list[str]:
        """Models that read every text which some arm weighs by them."""
        return sorted({self.teacher(arm) for arm in self.study.arms} - {None})

    @cached_property
    def preference_references(self) -> list[str]:
        """Models whose log-probabilities of the preference pairs are the reference of a baseline."""
        return sorted({m.from_ for m in self.study.models.values() if m.data == "preferences"})

    # An arm's iterations

    def first(self, arm: str) -> int:
        """First iteration of the arm's own: 0, or where a fork leaves its parent."""
        fork = self.study.arms[arm].fork
        return fork.at if fork else 0

    def iterations(self, arm: str) -> range:
        return range(self.first(arm), self.study.arms[arm].iterations or self.study.iterations)

    def start(self, arm: str) -> str:
        return self.study.arms[arm].start or self.study.start

    def seed(self, arm: str) -> int:
        own = self.study.arms[arm].seed
        return self.study.seed if own is None else own

    @memoized_method
    def teacher(self, arm: str) -> str | None:
        """The model that weighs an arm's tokens; none where nothing is weighed, or all alike."""
        if not self.study.weighted(arm) or self.study.arm_weigh(arm).source != "teacher":
            return None
        return self.study.arms[arm].teacher or self.study.teacher

    def window(self, arm: str) -> int:
        return self.study.arms[arm].data_window or self.study.data_window

    @cached_property
    def arms(self) -> list[str]:
        """The arms in the order of tables and figures: the baseline first, the others by name."""
        return sorted(self.study.arms, key=lambda arm: (arm != self.study.report.baseline, arm))

    def iteration_models(self) -> list[str]:
        return [Iteration(arm, k).name for arm in self.arms for k in self.iterations(arm)]

    def opponent(self, arm: str, k: int) -> str:
        """Opponent, generator, reference and start of iteration k: one model."""
        if k > self.first(arm):
            return Iteration(arm, k - 1).name
        return Iteration(self.study.arms[arm].fork.from_, k - 1).name if k else self.start(arm)

    # Who owns what arms share

    @memoized_method
    def responses(self, arm: str, k: int) -> str:
        """The response set of iteration k; shared where another arm's opponent and seed are the same."""
        fork = self.study.arms[arm].fork
        if fork and (k < fork.at or (k == fork.at and self.seed(arm) == self.seed(fork.from_))):
            return self.responses(fork.from_, k)
        if k == 0 and self.seed(arm) == self.study.seed:
            return self.start(arm)
        return Iteration(arm, k).name

    def replayed(self, arm: str, k: int) -> list[str]:
        """Response sets of earlier iterations that iteration k trains on again, the latest first."""
        return [self.responses(arm, j) for j in range(k - 1, max(-1, k - self.window(arm)), -1)]

    @memoized_method
    def scored(self, arm: str, k: int) -> str:
        """The folder whose `reference/` holds the opponent's log-probabilities of all that iteration k trains on."""
        fork = self.study.arms[arm].fork
        if fork and k == fork.at and self.window(arm) != self.window(fork.from_):
            return Iteration(arm, k).name
        return self.responses(arm, k)

    def weighed(self, arm: str, k: int) -> str:
        """The folder whose `weights/` holds the weights of iteration k's answers, once made and never renewed.

        A fork takes over its parent's; from a parent without any it makes its own for the answers that it replays.
        """
        fork = self.study.arms[arm].fork
        taken_over = fork and k < fork.at and self.study.weighted(fork.from_)
        return Iteration(fork.from_ if taken_over else arm, k).name

    # From a folder name back to what made it

    def origin(self, responses: str) -> tuple[str | None, int]:
        """(arm, k) of a response set; (None, 0) for a start model's shared one."""
        return Iteration.parse(responses) or (None, 0)

    @memoized_method
    def generator(self, responses: str) -> str:
        arm, k = self.origin(responses)
        return self.opponent(arm, k) if arm else responses

    @memoized_method
    def replays(self, scored: str) -> list[str]:
        arm, k = self.origin(scored)
        return self.replayed(arm, k) if arm else []

    @memoized_method
    def answers(self, scored: str) -> str:
        """The response set that belongs to a folder of reference log-probabilities."""
        arm, k = self.origin(scored)
        return self.responses(arm, k) if arm else scored

    def parent(self, model: str) -> str:
        """The model a trained model starts from."""
        arm, k = self.origin(model)
        return self.opponent(arm, k) if arm else self.study.models[model].from_

    def ancestors(self, model: str) -> list[str]:
        """The models that a model was trained from, its parent first; the last one was not trained here."""
        found = []
        while Iteration.parse(model) or self.study.models[model].trained:
            model = self.parent(model)
            found.append(model)
        return found

    # What tables and figures show

    def table_models(self) -> list[str]:
        """Rows of the tables, in their order."""
        return [*self.study.eval.models, *self.iteration_models()]

    def weighted_iterations(self) -> list[tuple[str, int]]:
        """(arm, k) of every iteration whose tokens are weighed."""
        return [(arm, k) for arm in self.arms if self.study.weighted(arm) for k in self.iterations(arm)]

    def response_sets(self) -> list[str]:
        """Every folder of answers of the study, each once, in the order of the arms' iterations."""
        return list(dict.fromkeys(self.responses(arm, k) for arm in self.arms for k in self.iterations(arm)))

    def comparisons(self) -> list[tuple[str, str]]:
        """(iteration, the baseline arm's same iteration) of every other arm."""
        baseline = self.study.report.baseline
        return [
            (Iteration(arm, k).name, Iteration(baseline, k).name)
            for arm in self.arms
            for k in self.iterations(arm)
            if arm != baseline and k in self.iterations(baseline)
        ]
