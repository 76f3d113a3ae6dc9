"""Work, time, memory and disk of every stage of a study, from the models' configs and mean lengths.

The cost model: the matrix products of a packed forward pass over every prompt with its answers (`engine.flops`), three
times that for a training step, at an assumed share of the GPU's peak; generation is also bound by reading its cache and
weights from memory. Jobs are counted by the study's lineage, so an arm, a fork or a replicate costs what it adds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wspin.config.stages import Train
from wspin.engine.flops import BACKWARD, Cost, attending_pairs
from wspin.iteration import Iteration
from wspin.storage import tables
from wspin.study.paths import GOLD, StudyPaths

from .sizes import Size

GB = 1e9
VLLM_BATCH = 256  # answers that vLLM decodes at a time
LOGITS = 3 * 4 * 1024  # bytes per entry of the vocabulary: rows of logits at a time, their softmax and its gradient
OPTIMIZER = {"rmsprop": 4, "adamw": 8}  # bytes per parameter
REQUEST = 1024  # tokens of an evaluation's longest request


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt, a real answer, a generated answer."""

    prompt: float
    response: float
    generated: float
    source: str  # measured or assumed, for the reader


@dataclass(frozen=True)
class Estimate:
    """Jobs of one stage that take the same resources, for one model or response set, `name`."""

    stage: str  # its section in `resources`
    label: str  # what they do with it, `reference by`; may be empty
    name: str
    jobs: int
    gpus: int
    memory: float  # GB of each GPU
    petaflop: float  # of all jobs
    hours: float  # of one job

    @property
    def what(self) -> str:
        return f"{self.label} {self.name}".strip()

    @property
    def gpu_hours(self) -> float:
        return self.jobs * self.gpus * self.hours


def forward(cost: Cost, prompt: float, *answers: float) -> float:
    """FLOPs of a forward pass over one prompt with its answers, which predicts every token of these."""
    lengths = (round(prompt), *(round(answer) - 1 for answer in answers))
    pairs, predicted = attending_pairs(lengths), sum(map(round, answers))
    return cost.per_token * sum(lengths) + cost.per_pair * pairs + cost.per_prediction * predicted


class Estimator:
    """The estimates of one study; `sizes` holds every model of the registry whose config is known."""

    def __init__(self, paths: StudyPaths, sizes: dict[str, Size], lengths: Lengths):
        self.paths, self.study, self.sizes, self.lengths = paths, paths.study, sizes, lengths
        self.assumed = self.study.preflight
        self.prompt, self.real, self.generated = lengths.prompt, lengths.response, lengths.generated
        self.roof = self.assumed.tflops * 1e12 * self.assumed.utilisation  # FLOPs per second
        self.bandwidth = self.assumed.bandwidth_tb * 1e12 * self.assumed.utilisation  # bytes per second
        self.rows, self.pairs = self.study.data.sft.prompts, self.study.data.preferences.pairs

    def all(self) -> list[Estimate]:
        """In running order; stages of models of unknown size are left out."""
        stages = (self._registry(), self._generations(), self._logprobs(), self._arms(), self._evaluations())
        return [estimate for stage in stages for estimate in stage if estimate]

    def size(self, model: str) -> Size | None:
        """The size of a model, which is that of the fetched model it descends from; None if that is unknown."""
        return self.sizes.get([model, *self.paths.ancestors(model)][-1])

    # Trainings

    def _registry(self) -> Iterable[Estimate | None]:
        for name in self.paths.trained_models:
            train = self.study.model_train(name)
            sft = train.loss == "sft"
            answers = (self.real,) if sft else (self.real, self.generated)
            yield self._training(name, train, self.rows if sft else self.pairs, [answers])

    def _arms(self) -> Iterable[Estimate | None]:
        for iteration in self.paths.all_iterations():
            train = self.paths.train_settings(iteration.name)
            sets = 1 + len(self.paths.replayed_sets(iteration))
            pairs, together = [(self.real, self.generated)] * sets, [(self.real, *[self.generated] * sets)]
            yield self._training(iteration.name, train, self.rows, together if train.triplets else pairs)

    def _training(self, model: str, train: Train, rows: int, passes: list[tuple[float, ...]]) -> Estimate | None:
        """`passes`: the lengths of the answers after a prompt, for each forward pass over the rows."""
        size = self.size(model)
        if size is None:
            return None
        work = sum(rows * forward(size.cost, self.prompt, *answers) for answers in passes)
        work *= (1 + BACKWARD + train.gradient_checkpointing) * train.epochs
        gpus = max(1, self.study.resources.train.gpu)
        return self._estimate("train", "", model, 1, work, self.training_memory(size, train, gpus))

    def training_memory(self, size: Size, train: Train, gpus: int) -> float:
        """GB of each GPU: float32 weights, gradients, optimiser, the products' copies of weights, one micro-batch."""
        precision = self.study.logprobs.autocast
        states = size.parameters * (4 + 4 + OPTIMIZER[train.optimizer])
        copies = size.parameters * 2 * (precision == "bfloat16")
        shared = gpus if train.parallel == "fsdp" else 1
        batch = train.token_budget * size.activations(precision, train.gradient_checkpointing)
        return (states / shared + copies / shared + batch + size.config.vocab_size * LOGITS) / GB

    # Answers and log-probabilities

    def _generations(self) -> Iterable[Estimate | None]:
        shards = len(self.paths.shards())
        for responses in self.paths.response_sets():
            model = self.paths.generator(responses)
            size = self.size(model)
            if size and responses not in self.study.given_answers():
                flops, seconds = self._generation(size)
                yield self._estimate("generate", "by", model, shards, flops, self.generation_memory(size), seconds)

    def _generation(self, size: Size) -> tuple[float, float]:
        """(FLOPs, seconds) of the answers to all prompts; the seconds include reading cache and weights from memory."""
        settings, prompt, new = self.study.generate, self.prompt, self.generated
        width = 4 if "float32" in (settings.dtype or "float32") else 2
        batch = settings.batch_size if settings.engine == "transformers" else VLLM_BATCH
        flops = self.rows * forward(size.cost, prompt, new)
        cache = self.rows * (new * prompt + new * new / 2) * size.cached_values * width
        weights = self.rows / batch * new * (size.parameters - size.embedding) * width
        return flops, flops / self.roof + (cache + weights) / self.bandwidth

    def generation_memory(self, size: Size) -> float:
        """GB: weights and the cache of the longest answers; with vLLM at least its share of the GPU."""
        settings = self.study.generate
        longest = self.study.dialogue.max_prompt_tokens + settings.max_new_tokens
        if settings.engine == "vllm":
            width = 4 if settings.dtype == "float32" else 2
            least = (size.parameters * width + longest * size.cached_values * width) / GB
            return max(least, settings.gpu_memory * self.assumed.gpu_memory_gb)
        return (size.parameters + settings.batch_size * longest * size.cached_values) * 4 / GB

    def _logprobs(self) -> Iterable[Estimate | None]:
        shards, real, generated = len(self.paths.shards()), self.real, self.generated
        for folder in dict.fromkeys(map(self.paths.reference_folder, self.paths.all_iterations())):
            answers = (real, generated, *[generated] * len(self.paths.replayed_sets(Iteration.parse(folder))))
            model = self.paths.generator(self.paths.scored_set(folder))
            yield self._scoring(model, ("reference by", model), shards, self.rows, *answers)
        for teacher, responses in self._teacher_sets():
            length = real if responses == GOLD else generated
            yield self._scoring(teacher, (f"{teacher} scores", responses), shards, self.rows, length)
        for model in self.paths.preference_references:
            count = len(self.paths.shards("pairs"))
            yield self._scoring(model, ("preferences by", model), count, self.pairs, real, generated)

    def _teacher_sets(self) -> list[tuple[str, str]]:
        """(teacher, response set) of all that teachers score, each once."""
        sets = {}
        for iteration in self.paths.weighted_iterations():
            given = iteration.k == 0 and iteration.arm in self.study.given_weights()
            if (teacher := self.paths.teacher(iteration.arm)) and not given:
                sets |= {(teacher, GOLD): None, (teacher, self.paths.response_set(iteration)): None}
        return list(sets)

    def _scoring(self, model: str, what: tuple[str, str], jobs: int, rows: int, *answers: float) -> Estimate | None:
        size = self.size(model)
        if size is None:
            return None
        precision = self.study.logprobs.autocast
        weights = size.parameters * (4 + 2 * (precision == "bfloat16"))
        layer = size.activations(precision) / size.config.num_hidden_layers
        memory = (weights + self.study.logprobs.token_budget * layer + size.config.vocab_size * LOGITS) / GB
        return self._estimate("logprobs", *what, jobs, rows * forward(size.cost, self.prompt, *answers), memory)

    def _evaluations(self) -> Iterable[Estimate | None]:
        for model in self.paths.table_models():
            if size := self.size(model):
                work = self.assumed.evaluation_tokens * (size.cost.per_token + size.cost.per_prediction)
                logits = self.study.eval.batch_size * REQUEST * size.config.vocab_size * 4 * 2
                memory = (size.parameters * 4 + logits) / GB
                yield self._estimate("eval", "", model, len(self.study.eval.suites), work, memory)

    def _estimate(
        self, stage: str, label: str, name: str, jobs: int, flops: float, memory: float, seconds: float | None = None
    ) -> Estimate:
        """Jobs that share the work evenly; `seconds` is the time of all of it if it is not that of its FLOPs."""
        gpus = max(1, getattr(self.study.resources, stage).gpu)
        seconds = flops / self.roof if seconds is None else seconds
        return Estimate(stage, label, name, jobs, gpus, memory, flops / 1e15, seconds / jobs / gpus / 3600)

    # Disk

    def disk(self) -> dict[str, float]:
        """GB by kind: what the study writes and keeps, and the states of trainings that run side by side."""
        models = {name: self.size(name) for name in (*self.study.models, *self.paths.iteration_models())}
        parameters = {name: size.parameters for name, size in models.items() if size}
        fetched = sum(2 * count for name, count in parameters.items() if name in self.paths.fetched_models)
        trained = sum(4 * count for name, count in parameters.items() if name not in self.paths.fetched_models)
        # One saved state for each arm; the trainings of one arm follow each other.
        firsts = [Iteration(arm, self.paths.first(arm)).name for arm in self.study.arms]
        optimizer = OPTIMIZER[self.study.train.optimizer]
        # Twice: a saved state is removed when the next one is complete.
        states = sum(2 * parameters[name] * (4 + optimizer) for name in firsts if name in parameters)
        tokens = self.rows * (self.real + self.generated) * len(self.paths.iteration_models())
        kinds = {"fetched models": fetched, "trained models": trained, "states": states, "tables": 24 * tokens}
        return {kind: size / GB for kind, size in kinds.items()}


def mean_lengths(paths: StudyPaths) -> Lengths:
    """Mean lengths: measured once the start model has scored the study's first shard, assumed before."""
    assumed = paths.study.preflight
    measured = Path(paths.file(paths.study.start, "reference", paths.shards()[0]))
    if not measured.exists():
        means = (assumed.prompt_tokens, assumed.response_tokens, assumed.generated_tokens)
        return Lengths(*means, "assumed in the config, nothing is measured yet")
    reference = tables.read_reference(measured)
    chosen, rejected = (
        reference[f"{side}_token_ids"].combine_chunks().value_lengths().to_numpy().mean() for side in tables.SIDES
    )
    source = f"answers measured in {measured}, prompts assumed"
    return Lengths(assumed.prompt_tokens, float(chosen), float(rejected), source)
