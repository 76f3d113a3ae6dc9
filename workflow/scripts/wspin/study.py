"""The study's structure: which model, data and files belong to an arm's iteration k. Pure strings, no file is touched.

The grammar of the results (`results/README.md`) is written here and in the output lines of the rules, nowhere else.
Two words carry it:

* a *model* is a registry name (`sft`) or an iteration (`spin/ite2`);
* a *response set* is the folder whose `generations/` holds the answers: `{start}` for iteration 0, which the arms
  share, and `{arm}/ite{k}` after that. Its answers come from the opponent of that iteration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

from . import config
from .once import answered_once

GOLD = "gold"  # in place of a response set: the real answers


def alternatives(names: Iterable[str]) -> str:
    """A pattern that matches the names and nothing else, the longest first; no names match nothing."""
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)"


class Layout:
    """Paths and relations of one study."""

    def __init__(self, study: config.Study):
        self.study = study
        self.results = study.results

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

    @answered_once
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
        return [f"{arm}/ite{k}" for arm in self.arms for k in self.iterations(arm)]

    def opponent(self, arm: str, k: int) -> str:
        """Opponent, generator, reference and start of iteration k: one model."""
        if k > self.first(arm):
            return f"{arm}/ite{k - 1}"
        return f"{self.study.arms[arm].fork.from_}/ite{k - 1}" if k else self.start(arm)

    # Who owns what arms share

    @answered_once
    def responses(self, arm: str, k: int) -> str:
        """The response set of iteration k; shared where another arm's opponent and seed are the same."""
        fork = self.study.arms[arm].fork
        if fork and (k < fork.at or (k == fork.at and self.seed(arm) == self.seed(fork.from_))):
            return self.responses(fork.from_, k)
        if k == 0 and self.seed(arm) == self.study.seed:
            return self.start(arm)
        return f"{arm}/ite{k}"

    def replayed(self, arm: str, k: int) -> list[str]:
        """Response sets of earlier iterations that iteration k trains on again, the latest first."""
        return [self.responses(arm, j) for j in range(k - 1, max(-1, k - self.window(arm)), -1)]

    @answered_once
    def scored(self, arm: str, k: int) -> str:
        """The folder whose `reference/` holds the opponent's log-probabilities of all that iteration k trains on."""
        fork = self.study.arms[arm].fork
        if fork and k == fork.at and self.window(arm) != self.window(fork.from_):
            return f"{arm}/ite{k}"
        return self.responses(arm, k)

    def weighed(self, arm: str, k: int) -> str:
        """The folder whose `weights/` holds the weights of iteration k's answers, once made and never renewed.

        A fork takes over its parent's; from a parent without any it makes its own for the answers that it replays.
        """
        fork = self.study.arms[arm].fork
        taken_over = fork and k < fork.at and self.study.weighted(fork.from_)
        return f"{fork.from_ if taken_over else arm}/ite{k}"

    # From a folder name back to what made it

    def origin(self, responses: str) -> tuple[str | None, int]:
        """(arm, k) of a response set; (None, 0) for a start model's shared one."""
        match = re.fullmatch(r"(.+)/ite(\d+)", responses)
        return (match[1], int(match[2])) if match else (None, 0)

    @answered_once
    def generator(self, responses: str) -> str:
        arm, k = self.origin(responses)
        return self.opponent(arm, k) if arm else responses

    @answered_once
    def replays(self, scored: str) -> list[str]:
        arm, k = self.origin(scored)
        return self.replayed(arm, k) if arm else []

    @answered_once
    def answers(self, scored: str) -> str:
        """The response set that belongs to a folder of reference log-probabilities."""
        arm, k = self.origin(scored)
        return self.responses(arm, k) if arm else scored

    def parent(self, model: str) -> str:
        """The model a trained model starts from."""
        arm, k = self.origin(model)
        return self.opponent(arm, k) if arm else self.study.models[model].from_

    # Files

    @answered_once
    def shards(self, rows: str = "prompts") -> list[str]:
        """Shard names of the study's prompts, or of its preference `pairs`: they follow from the config alone."""
        source = self.study.data.sft if rows == "prompts" else self.study.data.preferences
        count = -(-getattr(source, rows) // source.shard)
        width = max(2, len(str(count - 1)))
        return [f"{i:0{width}d}" for i in range(count)]

    def model(self, name: str) -> str:
        return f"{self.results}/{name}/model"

    def manifest(self, name: str) -> str:
        return f"{self.results}/{name}/manifest.json"

    def metrics(self, name: str) -> str:
        return f"{self.results}/{name}/metrics.jsonl"

    def files(self, folder: str, kind: str, rows: str = "prompts") -> list[str]:
        return [f"{self.results}/{folder}/{kind}/{shard}.parquet" for shard in self.shards(rows)]

    def file(self, folder: str, kind: str, shard: str) -> str:
        return f"{self.results}/{folder}/{kind}/{shard}.parquet"

    def scores(self, model: str) -> list[str]:
        return [f"{self.results}/{model}/scores/{suite}.json" for suite in self.study.eval.suites]

    def table_models(self) -> list[str]:
        """Rows of the tables, in their order."""
        return [*self.study.eval.models, *self.iteration_models()]

    def fetched(self, dataset: str) -> str:
        return f"{self.results}/fetched/{dataset}"

    def data(self, name: str) -> str:
        return f"{self.results}/data/{name}.parquet"

    def log(self, *place: str) -> str:
        """The log of a job, by its stage, what the job is about and its shard."""
        return f"{self.results}/logs/{'/'.join(place)}.log"

    def tables(self) -> list[str]:
        names = [f"{name}.{kind}" for name in ("scores", "differences") for kind in ("csv", "md", "tex")]
        return [f"{self.results}/tables/{name}" for name in (*names, "weights.csv", "weights.md")]

    def figures(self) -> list[str]:
        return [f"{self.results}/figures/averages.{kind}" for kind in ("pdf", "svg", "png")]

    def all_scores(self) -> list[str]:
        return [path for model in self.table_models() for path in self.scores(model)]

    def all_samples(self) -> list[str]:
        return [self.samples(path) for path in self.all_scores()]

    def samples(self, scores: str) -> str:
        """The answers behind a file of scores."""
        return f"{scores.removesuffix('.json')}.samples.parquet"

    def weighted_iterations(self) -> list[tuple[str, int]]:
        """(arm, k) of every iteration whose tokens are weighed."""
        return [(arm, k) for arm in self.arms if self.study.weighted(arm) for k in self.iterations(arm)]

    def weight_files(self) -> dict[str, list[str]]:
        """Shards of the weights, references and generations of these iterations, iteration by iteration."""
        folders = {"weights": self.weighed, "reference": self.scored, "generations": self.responses}
        found = {kind: [of(*one) for one in self.weighted_iterations()] for kind, of in folders.items()}
        return {kind: [path for one in names for path in self.files(one, kind)] for kind, names in found.items()}

    def comparisons(self) -> list[tuple[str, str]]:
        """(iteration, the baseline arm's same iteration) of every other arm."""
        baseline = self.study.report.baseline
        return [
            (f"{arm}/ite{k}", f"{baseline}/ite{k}")
            for arm in self.arms
            for k in self.iterations(arm)
            if arm != baseline and k in self.iterations(baseline)
        ]

    def fits_models(self) -> list[str]:
        return [self.model(name) for name in self.study.data.fits]

    def fits_manifests(self) -> list[str]:
        return [self.manifest(name) for name in self.study.data.fits]

    def state(self, model: str) -> str:
        """Where a model's training keeps what it resumes from; its program adds a fingerprint."""
        return f"{self.results}/.state/train/{model}"

    def all_models(self) -> list[str]:
        return [self.model(name) for name in (*self.study.models, *self.iteration_models())]

    def targets(self) -> dict[str, list[str]]:
        """Every iteration's target, `<results>/{arm}/ite{k}`, with the files that it gathers."""
        pairs = [(arm, k) for arm in self.study.arms for k in self.iterations(arm)]
        return {f"{self.results}/{arm}/ite{k}": self.iteration_files(arm, k) for arm, k in pairs}

    def iteration_files(self, arm: str, k: int) -> list[str]:
        """What the target `<results>/{arm}/ite{k}` gathers."""
        name = f"{arm}/ite{k}"
        generations = self.files(self.responses(arm, k), "generations")
        weights = self.files(self.weighed(arm, k), "weights") if self.study.weighted(arm) else []
        return [
            *generations,
            *weights,
            self.model(name),
            self.manifest(name),
            self.metrics(name),
            *self.scores(name),
        ]

    # Inputs of the rules, by the names of their wildcards

    def scratch_text(self, model: str) -> list[str]:
        """The raw text that trains a scratch model's tokenizer; nothing for other models."""
        scratch = self.study.models[model].scratch
        return [self.fetched(scratch.text)] if scratch else []

    def parent_model(self, model: str) -> str:
        return self.model(self.parent(model))

    def parent_manifest(self, model: str) -> str:
        return self.manifest(self.parent(model))

    def training_rows(self, model: str) -> str:
        preferences = not self.origin(model)[0] and self.study.models[model].data == "preferences"
        return self.data("preferences" if preferences else "prompts")

    def training_reference(self, model: str) -> list[str]:
        """Shards of the start model's log-probabilities of the pairs; sft needs none."""
        arm, k = self.origin(model)
        if arm:
            return self.files(self.scored(arm, k), "reference")
        entry = self.study.models[model]
        return self.files(entry.from_, "preferences", "pairs") if entry.data == "preferences" else []

    def training_weights(self, model: str) -> list[str]:
        """Shards of the weights of all that an iteration trains on: its own answers', then those of the replayed."""
        arm, k = self.origin(model)
        if not arm or not self.study.weighted(arm):
            return []
        weighed = [self.weighed(arm, j) for j in range(k, max(-1, k - self.window(arm)), -1)]
        return [path for folder in weighed for path in self.files(folder, "weights")]

    def generator_model(self, responses: str) -> str:
        return self.model(self.generator(responses))

    def generator_manifest(self, responses: str) -> str:
        return self.manifest(self.generator(responses))

    def own_answers(self, responses: str, shard: str) -> str:
        return self.file(self.answers(responses), "generations", shard)

    def replayed_answers(self, responses: str, shard: str) -> list[str]:
        return [self.file(name, "generations", shard) for name in self.replays(responses)]

    def read_answers(self, responses: str, shard: str) -> list[str]:
        """What a teacher reads beside the prompts; nothing for the real answers."""
        return [] if responses == GOLD else [self.file(responses, "generations", shard)]

    def weighed_answers(self, arm: str, k: str, shard: str) -> str:
        return self.file(self.responses(arm, int(k)), "generations", shard)

    def weighed_reference(self, arm: str, k: str, shard: str) -> str:
        return self.file(self.scored(arm, int(k)), "reference", shard)

    def teacher_reading(self, arm: str, k: str, shard: str) -> list[str]:
        """A teacher's log-probabilities of iteration k's real and generated answers; none where nobody reads."""
        teacher = self.teacher(arm)
        sets = (GOLD, self.responses(arm, int(k))) if teacher else ()
        return [self.file(f"logprobs/{teacher}", responses, shard) for responses in sets]

    def heldout(self, suite: str) -> list[str]:
        return [self.data("heldout")] if self.study.eval.sources[suite].heldout else []

    # What the programs are told

    def training(self, model: str) -> config.Train:
        """The settings of one training, per-iteration values resolved; triplets only where answers are replayed."""
        arm, k = self.origin(model)
        train = config.at_iteration(self.study.arm_train(arm), k) if arm else self.study.model_train(model)
        return train if arm and self.replayed(arm, k) else train.model_copy(update={"triplets": False})

    def draw_seed(self, responses: str) -> tuple[int, int]:
        """(seed, iteration) from which the random numbers of a response set derive; never from an arm's name."""
        arm, k = self.origin(responses)
        return (self.seed(arm), k) if arm else (self.study.seed, 0)

    def template(self, model: str) -> str:
        """The template in which a model sees a prompt; trained models keep the study's."""
        entry = self.study.models.get(model)
        return (entry and entry.template) or self.study.dialogue.template
