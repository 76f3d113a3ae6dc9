"""The study as a graph: who descends from whom, which files belong to it, and the flags of every rule."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wspin.config.stages import Train, at_iteration
from wspin.config.study import Study

from .lineage import Lineage
from .memoize import memoized_method

GOLD = "gold"  # in place of a response set: the real answers


def alternatives(names: Iterable[str]) -> str:
    """A pattern that matches the names and nothing else, the longest first; no names match nothing."""
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)"


class StudyPaths(Lineage):
    """Paths and relations of one study."""

    def __init__(self, study: Study):
        super().__init__(study)
        self.results = study.results

    # Files

    @memoized_method
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

    def fetched(self, dataset: str) -> str:
        return f"{self.results}/fetched/{dataset}"

    def data(self, name: str) -> str:
        return f"{self.results}/data/{name}.parquet"

    def log(self, *place: str) -> str:
        """The log of a job, by its stage, what the job is about and its shard."""
        return f"{self.results}/logs/{'/'.join(place)}.log"

    def tables(self) -> list[str]:
        names = [f"{name}.{kind}" for name in ("scores", "differences") for kind in ("csv", "md", "tex")]
        return [f"{self.results}/tables/{name}" for name in (*names, "weights.csv", "weights.md", "examples.md")]

    def figures(self) -> list[str]:
        return [f"{self.results}/figures/averages.{kind}" for kind in ("pdf", "svg", "png")]

    def all_scores(self) -> list[str]:
        return [path for model in self.table_models() for path in self.scores(model)]

    def all_samples(self) -> list[str]:
        return [self.samples(path) for path in self.all_scores()]

    def samples(self, scores: str) -> str:
        """The answers behind a file of scores."""
        return f"{scores.removesuffix('.json')}.samples.parquet"

    def weight_files(self) -> dict[str, list[str]]:
        """Shards of the weights, references and generations of these iterations, iteration by iteration."""
        folders = {"weights": self.weighed, "reference": self.scored, "generations": self.responses}
        found = {kind: [of(*one) for one in self.weighted_iterations()] for kind, of in folders.items()}
        return {kind: [path for one in names for path in self.files(one, kind)] for kind, names in found.items()}

    def example_files(self) -> dict[str, list[str]]:
        """The first shards of all answers, and of what belongs to the weighed ones, iteration by iteration."""
        first = self.shards()[0]
        count = len(self.shards())
        weighed = {kind: paths[::count] for kind, paths in self.weight_files().items()}
        return {"answers": [self.file(name, "generations", first) for name in self.response_sets()], **weighed}

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

    def training(self, model: str) -> Train:
        """The settings of one training, per-iteration values resolved; triplets only where answers are replayed."""
        arm, k = self.origin(model)
        train = at_iteration(self.study.arm_train(arm), k) if arm else self.study.model_train(model)
        return train if arm and self.replayed(arm, k) else train.model_copy(update={"triplets": False})

    def draw_seed(self, responses: str) -> tuple[int, int]:
        """(seed, iteration) from which the random numbers of a response set derive; never from an arm's name."""
        arm, k = self.origin(responses)
        return (self.seed(arm), k) if arm else (self.study.seed, 0)

    def template(self, model: str) -> str:
        """The template in which a model sees a prompt; trained models keep the study's."""
        entry = self.study.models.get(model)
        return (entry and entry.template) or self.study.dialogue.template
