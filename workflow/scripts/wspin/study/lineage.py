"""Which model, answers and weights belong to an iteration, and which of them arms share. Names only, no paths.

* A *model* is a registry name (`sft`), an iteration's (`spin/ite2`), or of a pair trained in it (`spin/ite2/plus`).
* A *scorer* is a model, or a view of one (`sft@good`), whose log-probabilities become token weights.
* A *response set* is the folder whose `generations/` holds answers of one opponent: for iteration 0 `{start}`, or
  `{start}/s{seed}` for replicates, shared by all arms of a start and a seed, and after that the iteration's own folder.
"""

from functools import cache, cached_property
from typing import NamedTuple

from wspin.config.scorers import NO_MODEL, SHIFTED, TEACHER_SOURCES, Scorer
from wspin.iteration import Contrast, Iteration, StartAnswers

from .settings import Settings


class ScorerPair(NamedTuple):
    """The scorers of r = log positive - log negative; None: the student, or log-probability 0, for which no file is."""

    positive: str | None = None
    negative: str | None = None


class Lineage(Settings):
    """The relations of one study between models, response sets and what is computed from them."""

    # Names

    @cached_property
    def fetched_models(self) -> list[str]:
        return [name for name, model in self.study.models.items() if not model.trained]

    @cached_property
    def trained_models(self) -> list[str]:
        return [name for name, model in self.study.models.items() if model.trained]

    @cached_property
    def start_sets(self) -> list[str]:
        """The response sets of all iterations 0; arms share them, and their log-probabilities."""
        return sorted({self.response_set(Iteration(arm, 0)) for arm in self.study.arms})

    @cached_property
    def weighted_folders(self) -> list[str]:
        """Iterations and registry models whose `weights/` are computed: all that a weighted training reads."""
        windows = [self.training_window(iteration) for iteration in self.weighted_iterations()]
        folders = [self.weights_folder(earlier) for window in windows for earlier in window]
        return [*dict.fromkeys(folders), *self.study.weighted_models()]

    @cached_property
    def scorers(self) -> list[str]:
        """Models and views whose log-probabilities weigh tokens."""
        return sorted({scorer for folder in self.weighted_folders for scorer in self.scorer_pair(folder) if scorer})

    @cached_property
    def contrast_models(self) -> list[str]:
        """The pairs of models that iterations train to weigh their tokens."""
        return [scorer for scorer in self.scorers if Contrast.parse(scorer)]

    @cached_property
    def preference_references(self) -> list[str]:
        """Models whose log-probabilities of the preference pairs are the reference of a baseline."""
        return sorted({m.from_ for m in self.study.models.values() if m.data == "preferences"})

    @cached_property
    def answering_models(self) -> list[str]:
        """Models on whose answers to the study's prompts others are trained."""
        return sorted({model.of for model in self.study.models.values() if model.of})

    @cached_property
    def policies(self) -> set[str]:
        """Fetched models that must have the study's EOS: models are trained from them, or held-out tasks ask them."""
        roots = {self.ancestors(model)[-1] for model in (*self.trained_models, *self.iteration_models())}
        heldout = any(source.heldout for source in self.study.eval.sources.values())
        return roots | (set(self.study.eval.models) & set(self.fetched_models) if heldout else set())

    @cache
    def scorer_pair(self, model: str) -> ScorerPair:
        """The scorers that weigh the tokens of the pairs which a weighted iteration or registry model is trained on."""
        iteration, weigh = Iteration.parse(model), self.weigh_settings(model)
        if weigh.source in TEACHER_SOURCES:
            teacher = self.teacher(iteration.arm) if iteration else self.study.teacher
            return ScorerPair(Scorer(teacher, SHIFTED if weigh.shifted else None).name)
        if weigh.retrain:
            return ScorerPair(*(Contrast(iteration, side).name for side in Contrast.SIDES))
        return ScorerPair(*(None if name in NO_MODEL else name for name in (weigh.positive, weigh.negative)))

    # Iterations

    @cached_property
    def arms(self) -> list[str]:
        """The arms in the order of tables and figures: the baseline and its replicates first, the others by name."""
        first = self.replicates(self.study.report.baseline)
        return sorted(self.study.arms, key=lambda arm: (arm not in first, arm))

    def first(self, arm: str) -> int:
        """Number of an arm's first iteration: 0, or where a fork leaves its parent."""
        fork = self.study.arms[arm].fork
        return fork.at if fork else 0

    def iterations(self, arm: str) -> list[Iteration]:
        stop = self.study.arms[arm].iterations or self.study.iterations
        return [Iteration(arm, k) for k in range(self.first(arm), stop)]

    def all_iterations(self) -> list[Iteration]:
        return [iteration for arm in self.arms for iteration in self.iterations(arm)]

    def weighted_iterations(self) -> list[Iteration]:
        """Every iteration that trains with token weights."""
        return [iteration for iteration in self.all_iterations() if self.study.weighted(iteration.arm)]

    def iteration_models(self) -> list[str]:
        return [iteration.name for iteration in self.all_iterations()]

    def opponent(self, iteration: Iteration) -> str:
        """Opponent, generator, reference and start of an iteration: one model."""
        arm, k = iteration
        if k > self.first(arm):
            return Iteration(arm, k - 1).name
        return Iteration(self.study.arms[arm].fork.from_, k - 1).name if k else self.start(arm)

    # Folders of an iteration's answers, log-probabilities and weights, which arms may share

    @cache
    def response_set(self, iteration: Iteration) -> str:
        """The response set of an iteration; shared by the arms whose opponent and seed are the same."""
        arm, k = iteration
        fork = self.study.arms[arm].fork
        if fork and (k < fork.at or (k == fork.at and self.seed(arm) == self.seed(fork.from_))):
            return self.response_set(Iteration(fork.from_, k))
        if k:
            return iteration.name
        start, seed = self.start(arm), self.seed(arm)
        return start if seed == self.seed(start) else StartAnswers(start, seed).name

    @cache
    def replayed_sets(self, iteration: Iteration | None) -> list[str]:
        """Response sets of earlier iterations that an iteration trains on again, the latest first.

        A model outside the arms (None) replays nothing.
        """
        return [self.response_set(earlier) for earlier in self.training_window(iteration)[1:]] if iteration else []

    def training_window(self, iteration: Iteration) -> list[Iteration]:
        """The iterations whose pairs an iteration trains on: itself, then earlier ones, the latest first."""
        arm, k = iteration
        return [Iteration(arm, j) for j in range(k, max(-1, k - self.window(arm)), -1)]

    @cache
    def reference_folder(self, iteration: Iteration) -> str:
        """The folder whose `reference/` holds the opponent's log-probabilities of all that an iteration trains on."""
        arm, k = iteration
        fork = self.study.arms[arm].fork
        if fork and k == fork.at and self.window(arm) != self.window(fork.from_):
            return iteration.name
        return self.response_set(iteration)

    def weights_folder(self, iteration: Iteration) -> str:
        """The folder whose `weights/` holds the weights of an iteration's answers, computed once for all trainings.

        A fork takes over its parent's; from a parent without any it computes its own for the answers that it replays.
        """
        arm, k = iteration
        fork = self.study.arms[arm].fork
        inherited = fork and k < fork.at and self.study.weighted(fork.from_)
        return Iteration(fork.from_, k).name if inherited else iteration.name

    # From a folder or model back to what it was computed from

    @cache
    def generator(self, responses: str) -> str:
        """The model that generates a response set."""
        if answers := StartAnswers.parse(responses):
            return answers.start
        iteration = Iteration.parse(responses)
        return self.opponent(iteration) if iteration else responses

    @cache
    def scored_set(self, reference: str) -> str:
        """The response set whose log-probabilities a reference folder holds, beside those of replayed ones."""
        iteration = Iteration.parse(reference)
        return self.response_set(iteration) if iteration else reference

    def parent(self, model: str) -> str:
        """The model a trained model starts from."""
        if contrast := Contrast.parse(model):
            return self.opponent(contrast.iteration)
        iteration = Iteration.parse(model)
        return self.opponent(iteration) if iteration else self.study.models[model].from_

    def ancestors(self, model: str) -> list[str]:
        """The models that a model was trained from, its parent first; the last one was not trained here."""
        chain = []
        while model not in self.fetched_models:
            model = self.parent(model)
            chain.append(model)
        return chain

    # What tables and figures show

    def table_models(self) -> list[str]:
        return [*self.study.eval.models, *self.iteration_models()]

    def response_sets(self) -> list[str]:
        """Every response set of the study, each once, in the order of the arms' iterations."""
        return list(dict.fromkeys(map(self.response_set, self.all_iterations())))

    def comparisons(self) -> list[tuple[str, str]]:
        """(iteration, the same iteration of its baseline arm) of every other arm."""
        pairs = [(iteration, self.baseline(iteration.arm)) for iteration in self.all_iterations()]
        return [
            (iteration.name, Iteration(arm, iteration.k).name)
            for iteration, arm in pairs
            if arm not in (None, iteration.arm) and Iteration(arm, iteration.k) in self.iterations(arm)
        ]

    def pooled_comparisons(self) -> list[tuple[str, str]]:
        """`comparisons`, and each model with replicates against the baseline arm of its seed, at its last iteration.

        That is the last one that the baseline's replicates all have.
        """
        arms = self.replicates(self.study.report.baseline)
        k = min(self.iterations(arm)[-1].k for arm in arms)
        last = {self.seed(arm): Iteration(arm, k) for arm in arms}
        models = [name for pair in self.replicate_pairs() for name in pair if name in self.study.models]
        outside = [(name, last[self.seed(name)].name) for name in dict.fromkeys(models) if self.seed(name) in last]
        return [*self.comparisons(), *outside]

    def replicate_pairs(self) -> list[tuple[str, str]]:
        """(first, other) of every family of replicates among the arms and models that tables show."""
        names = [*self.study.eval.models, *self.arms]
        families = dict.fromkeys(tuple(other for other in self.replicates(name) if other in names) for name in names)
        return [(first, other) for first, *others in families for other in others]

    def uncompared(self) -> list[str]:
        """ARM=SEED of every arm without a baseline arm."""
        return [f"{arm}={self.seed(arm)}" for arm in self.arms if self.baseline(arm) is None]
