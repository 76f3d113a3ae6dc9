"""The files of a study, the inputs of its rules, and the settings that their programs take."""

import re
from collections.abc import Iterable, Sequence
from functools import cache

from wspin.config.sources import Source
from wspin.config.stages import Train, at_iteration
from wspin.config.study import Study
from wspin.iteration import Iteration

from .lineage import Lineage

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

    @cache
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
        return [self.file(folder, kind, shard) for shard in self.shards(rows)]

    def file(self, folder: str, kind: str, shard: str) -> str:
        return f"{self.results}/{folder}/{kind}/{shard}.parquet"

    def scores(self, model: str) -> list[str]:
        return [f"{self.results}/{model}/scores/{suite}.json" for suite in self.study.eval.suites]

    def fetched(self, dataset: str) -> str:
        return f"{self.results}/fetched/{dataset}"

    def fetched_manifest(self, dataset: str) -> str:
        return f"{self.fetched(dataset)}.json"

    def source(self, dataset: str) -> Source:
        """Where a data set comes from; one whose rows are `from` another has that one's source."""
        entry = getattr(self.study.data, dataset)
        return getattr(self.study.data, getattr(entry, "from_", None) or dataset)

    def data(self, name: str) -> str:
        return f"{self.results}/data/{name}.parquet"

    def rows_digest(self, name: str) -> str:
        """What tracks the rows of `data(name)`: another file with equal rows re-runs nothing."""
        return f"{self.results}/data/{name}.json"

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

    def weight_folders(self) -> dict[str, list[str]]:
        """Folders of every iteration's token weights, and of the references and generations they belong to, by kind."""
        owners = {"weights": self.weights_folder, "reference": self.reference_folder, "generations": self.response_set}
        return {
            kind: [f"{self.results}/{owner(iteration)}/{kind}" for iteration in self.weighted_iterations()]
            for kind, owner in owners.items()
        }

    def weight_files(self, shards: Sequence[str] = ()) -> list[str]:
        """The files in `weight_folders`, each once; of some shards or of all."""
        folders = dict.fromkeys(folder for kind in self.weight_folders().values() for folder in kind)
        return [f"{folder}/{shard}.parquet" for folder in folders for shard in shards or self.shards()]

    def opponents(self) -> dict[str, str]:
        """A name for every opponent's response set, with the seed where the model answered with an earlier one too."""
        named: dict[str, str] = {}
        for responses in self.response_sets():
            model = self.generator(responses)
            named.setdefault(f"{model}, seed {self.draw_seed(responses)[0]}" if model in named else model, responses)
        return named

    def example_answers(self) -> list[str]:
        return [self.file(responses, "generations", self.shards()[0]) for responses in self.opponents().values()]

    def example_files(self) -> list[str]:
        """The first shards of all answers, and of the files in `weight_folders`."""
        return [*self.example_answers(), *self.weight_files(self.shards()[:1])]

    def fits_models(self) -> list[str]:
        return [self.model(name) for name in self.study.data.fits]

    def fits_manifests(self) -> list[str]:
        return [self.manifest(name) for name in self.study.data.fits]

    def state(self, stage: str, *names: str) -> str:
        """Where the job of these wildcards keeps what it resumes from; its program adds a fingerprint."""
        return "/".join([self.results, ".state", stage, *names])

    def all_models(self) -> list[str]:
        return [self.model(name) for name in (*self.study.models, *self.iteration_models())]

    def targets(self) -> dict[str, list[str]]:
        """Every iteration's target, `<results>/{arm}/ite{k}`, with the files that it gathers."""
        iterations = [iteration for arm in self.study.arms for iteration in self.iterations(arm)]
        return {f"{self.results}/{iteration.name}": self.iteration_files(iteration) for iteration in iterations}

    def iteration_files(self, iteration: Iteration) -> list[str]:
        """What the target of an iteration gathers."""
        name, answers = iteration.name, self.files(self.response_set(iteration), "generations")
        weighted = self.study.weighted(iteration.arm)
        weights = self.files(self.weights_folder(iteration), "weights") if weighted else []
        return [*answers, *weights, self.model(name), self.manifest(name), self.metrics(name), *self.scores(name)]

    # Inputs of the rules, by the names of their wildcards

    def scratch_text(self, model: str) -> list[str]:
        """The raw text that trains a scratch model's tokenizer; nothing for other models."""
        scratch = self.study.models[model].scratch
        return [self.fetched(scratch.text)] if scratch else []

    def scratch_text_manifest(self, model: str) -> list[str]:
        scratch = self.study.models[model].scratch
        return [self.fetched_manifest(scratch.text)] if scratch else []

    def parent_model(self, model: str) -> str:
        return self.model(self.parent(model))

    def parent_manifest(self, model: str) -> str:
        return self.manifest(self.parent(model))

    def training_rows(self, model: str) -> str:
        return self.data(self._training_data(model))

    def training_digest(self, model: str) -> str:
        return self.rows_digest(self._training_data(model))

    def _training_data(self, model: str) -> str:
        entry = self.study.models.get(model)
        return "preferences" if entry and entry.data == "preferences" else "prompts"

    def training_reference(self, model: str) -> list[str]:
        """Shards of the start model's log-probabilities of the pairs; sft needs none."""
        if iteration := Iteration.parse(model):
            return self.files(self.reference_folder(iteration), "reference")
        entry = self.study.models[model]
        return self.files(entry.from_, "preferences", "pairs") if entry.data == "preferences" else []

    def training_weights(self, model: str) -> list[str]:
        """Shards of the weights of all that an iteration trains on: of its own answers, then of the replayed ones."""
        iteration = Iteration.parse(model)
        if not iteration or not self.study.weighted(iteration.arm):
            return []
        folders = [self.weights_folder(replayed) for replayed in self.training_window(iteration)]
        return [path for folder in folders for path in self.files(folder, "weights")]

    def generator_model(self, responses: str) -> str:
        return self.model(self.generator(responses))

    def generator_manifest(self, responses: str) -> str:
        return self.manifest(self.generator(responses))

    def scored_answers(self, responses: str, shard: str) -> str:
        return self.file(self.scored_set(responses), "generations", shard)

    def replayed_answers(self, responses: str, shard: str) -> list[str]:
        replayed = self.replayed_sets(Iteration.parse(responses))
        return [self.file(folder, "generations", shard) for folder in replayed]

    def teacher_answers(self, responses: str, shard: str) -> list[str]:
        """What a teacher scores beside the prompts; nothing for the real answers, which lie with the prompts."""
        return [] if responses == GOLD else [self.file(responses, "generations", shard)]

    def weighted_answers(self, arm: str, k: str, shard: str) -> str:
        return self.file(self.response_set(Iteration(arm, int(k))), "generations", shard)

    def weighted_reference(self, arm: str, k: str, shard: str) -> str:
        return self.file(self.reference_folder(Iteration(arm, int(k))), "reference", shard)

    def teacher_logprobs(self, arm: str, k: str, shard: str) -> list[str]:
        """The teacher's log-probabilities of an iteration's real and generated answers; none for an arm without one."""
        teacher = self.teacher(arm)
        sets = (GOLD, self.response_set(Iteration(arm, int(k)))) if teacher else ()
        return [self.file(f"logprobs/{teacher}", responses, shard) for responses in sets]

    def heldout(self, suite: str) -> list[str]:
        return [self.data("heldout")] if self.study.eval.sources[suite].heldout else []

    def heldout_digest(self, suite: str) -> list[str]:
        return [self.rows_digest("heldout")] if self.study.eval.sources[suite].heldout else []

    # Settings of the programs

    def train_settings(self, model: str) -> Train:
        """The settings of one training, per-iteration values resolved; triplets only where answers are replayed."""
        iteration = Iteration.parse(model)
        if not iteration:
            return self.study.model_train(model).model_copy(update={"triplets": False})
        settings = at_iteration(self.study.arm_train(iteration.arm), iteration.k)
        return settings if self.replayed_sets(iteration) else settings.model_copy(update={"triplets": False})

    def draw_seed(self, responses: str) -> tuple[int, int]:
        """(seed, iteration) from which the random numbers of a response set derive; never from an arm's name."""
        iteration = Iteration.parse(responses)
        return (self.seed(iteration.arm), iteration.k) if iteration else (self.study.seed, 0)

    def template(self, model: str) -> str:
        """The template in which a model sees a prompt; trained models keep the study's."""
        entry = self.study.models.get(model)
        return (entry and entry.template) or self.study.dialogue.template
