"""What a study will take: work, time, memory and disk of every stage, from the models' configs and mean lengths.

The cost model: matrix products of a packed pass that reads every prompt once (`flops`), three times that for a training
step, at an assumed share of the GPU's peak; generation also reads its cache and its weights from memory all the time.
Jobs are counted from the study's own relations, so an arm, a fork or a replicate costs what it adds.
"""

from __future__ import annotations

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
TOGETHER = 256  # answers that vLLM decodes at a time
LOGITS = 3 * 4 * 1024  # bytes per entry of the vocabulary: rows of logits at a time, their softmax and its gradient
OPTIMIZER = {"rmsprop": 4, "adamw": 8}  # bytes per parameter
READ = 1024  # tokens of an evaluation's longest request


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt, a real answer, a generated answer."""

    prompt: float
    response: float
    generated: float
    source: str  # where they are from, in words


@dataclass(frozen=True)
class Estimate:
    """Jobs of a stage that are alike."""

    stage: str  # its section in `resources`
    what: str
    jobs: int
    gpus: int
    memory: float  # GB of each GPU
    petaflop: float  # of all jobs
    hours: float  # of one job

    @property
    def gpu_hours(self) -> float:
        return self.jobs * self.gpus * self.hours


def forward(cost: Cost, prompt: float, *answers: float) -> float:
    """FLOPs of a pass that reads a prompt once with its answers and predicts every token of these."""
    lengths = (round(prompt), *(round(answer) - 1 for answer in answers))
    return (
        cost.per_token * sum(lengths)
        + cost.per_pair * attending_pairs(lengths)
        + cost.per_prediction * sum(map(round, answers))
    )


class Estimates:
    """Estimates of one study; `sizes` holds every model of the registry whose config is known."""

    def __init__(self, paths: StudyPaths, sizes: dict[str, Size], lengths: Lengths):
        self.paths, self.study, self.sizes, self.lengths = paths, paths.study, sizes, lengths
        self.assumed = self.study.preflight
        self.roof = self.assumed.tflops * 1e12 * self.assumed.utilisation  # FLOPs per second
        self.rows, self.pairs = self.study.data.sft.prompts, self.study.data.preferences.pairs

    def all(self) -> list[Estimate]:
        """In running order; stages of models whose size is not known are left out."""
        made = [*self._registry(), *self._generations(), *self._readings(), *self._arms(), *self._evaluations()]
        return [one for one in made if one]

    def root(self, model: str) -> str:
        """The model of the registry that a model has its size from."""
        return [model, *self.paths.ancestors(model)][-1]

    def size(self, model: str) -> Size | None:
        return self.sizes.get(self.root(model))

    # Trainings

    def _registry(self) -> Iterable[Estimate | None]:
        for name in self.paths.trained_models:
            train = self.study.model_train(name)
            real, other = self.lengths.response, self.lengths.generated
            passes = [(self.rows, (real,))] if train.loss == "sft" else [(self.pairs, (real, other))]
            yield self._training(name, train, passes)

    def _arms(self) -> Iterable[Estimate | None]:
        for iteration in self.paths.all_iterations():
            train = self.paths.train_settings(iteration.name)
            sets = 1 + len(self.paths.replayed_sets(iteration))
            real, generated = self.lengths.response, self.lengths.generated
            pairs = [(self.rows, (real, generated))] * sets
            together = [(self.rows, (real, *[generated] * sets))]
            yield self._training(iteration.name, train, together if train.triplets else pairs)

    def _training(self, model: str, train: Train, passes: list[tuple[int, tuple[float, ...]]]) -> Estimate | None:
        size = self.size(model)
        if size is None:
            return None
        work = sum(rows * forward(size.cost, self.lengths.prompt, *answers) for rows, answers in passes)
        work *= (1 + BACKWARD + train.gradient_checkpointing) * train.epochs
        gpus = max(1, self.study.resources.train.gpu)
        return self._estimate("train", model, 1, work, self.training_memory(size, train, gpus))

    def training_memory(self, size: Size, train: Train, gpus: int) -> float:
        """GB of each GPU: float32 weights, gradients, optimiser, the products' copies of weights, one micro-batch."""
        precision = self.study.logprobs.autocast
        states = size.parameters * (4 + 4 + OPTIMIZER[train.optimizer])
        copies = size.parameters * 2 * (precision == "bfloat16")
        shared = gpus if train.parallel == "fsdp" else 1
        batch = train.token_budget * size.activations(precision, train.gradient_checkpointing)
        return (states / shared + copies / shared + batch + size.vocabulary * LOGITS) / GB

    # Answers and readings

    def _generations(self) -> Iterable[Estimate | None]:
        for responses in self.paths.response_sets():
            if responses in self.study.given_answers():
                continue
            model = self.paths.generator(responses)
            if size := self.size(model):
                flops, seconds = self._generation(size)
                memory = self.generation_memory(size)
                shards = len(self.paths.shards())
                yield self._estimate("generate", f"by {model}", shards, flops, memory, seconds)

    def _generation(self, size: Size) -> tuple[float, float]:
        """(FLOPs, seconds) of answering all prompts, reading cache and weights from memory included."""
        settings, prompt, new = self.study.generate, self.lengths.prompt, self.lengths.generated
        width = 4 if "float32" in (settings.dtype or "float32") else 2
        together = settings.batch_size if settings.engine == "transformers" else TOGETHER
        flops = self.rows * forward(size.cost, prompt, new)
        cache = self.rows * (new * prompt + new * new / 2) * size.cached_values * width
        weights = self.rows / together * new * (size.parameters - size.embedding) * width
        return flops, flops / self.roof + (cache + weights) / self._bandwidth

    @property
    def _bandwidth(self) -> float:
        return self.assumed.bandwidth_tb * 1e12 * self.assumed.utilisation

    def generation_memory(self, size: Size) -> float:
        """GB: weights and the cache of the longest answers; of vLLM the share of the GPU that it takes."""
        settings, dialogue = self.study.generate, self.study.dialogue
        longest = dialogue.max_prompt_tokens + settings.max_new_tokens
        if settings.engine == "vllm":
            width = 4 if settings.dtype == "float32" else 2
            least = (size.parameters * width + longest * size.cached_values * width) / GB
            return max(least, settings.gpu_memory * self.assumed.gpu_memory_gb)
        return (size.parameters + settings.batch_size * longest * size.cached_values) * 4 / GB

    def _readings(self) -> Iterable[Estimate | None]:
        shards, prompt = len(self.paths.shards()), self.lengths.prompt
        real, own = self.lengths.response, self.lengths.generated
        for folder in dict.fromkeys(map(self.paths.reference_folder, self.paths.all_iterations())):
            answers = (real, own, *[own] * len(self.paths.replayed_sets(Iteration.parse(folder))))
            model = self.paths.generator(self.paths.scored_set(folder))
            yield self._reading(model, f"reference by {model}", shards, self.rows, prompt, *answers)
        for teacher, responses in self._teacher_readings():
            length = real if responses == GOLD else own
            yield self._reading(teacher, f"{teacher} reads {responses}", shards, self.rows, prompt, length)
        for model in self.paths.preference_references:
            count = len(self.paths.shards("pairs"))
            yield self._reading(model, f"preferences by {model}", count, self.pairs, prompt, real, own)

    def _teacher_readings(self) -> list[tuple[str, str]]:
        """(teacher, response set) of every text that a teacher reads, each once."""
        found = {}
        for iteration in self.paths.weighted_iterations():
            given = iteration.k == 0 and iteration.arm in self.study.given_weights()
            if (teacher := self.paths.teacher(iteration.arm)) and not given:
                found |= {(teacher, GOLD): None, (teacher, self.paths.response_set(iteration)): None}
        return list(found)

    def _reading(self, model: str, what: str, jobs: int, rows: int, *lengths: float) -> Estimate | None:
        size = self.size(model)
        if size is None:
            return None
        precision = self.study.logprobs.autocast
        weights = size.parameters * (4 + 2 * (precision == "bfloat16"))
        layer = size.activations(precision) / size.config.num_hidden_layers
        memory = (weights + self.study.logprobs.token_budget * layer + size.vocabulary * LOGITS) / GB
        return self._estimate("logprobs", what, jobs, rows * forward(size.cost, *lengths), memory)

    def _evaluations(self) -> Iterable[Estimate | None]:
        for model in self.paths.table_models():
            if size := self.size(model):
                work = self.assumed.evaluation_tokens * (size.cost.per_token + size.cost.per_prediction)
                logits = self.study.eval.batch_size * READ * size.vocabulary * 4 * 2
                memory = (size.parameters * 4 + logits) / GB
                yield self._estimate("eval", model, len(self.study.eval.suites), work, memory)

    def _estimate(
        self, stage: str, what: str, jobs: int, flops: float, memory: float, seconds: float | None = None
    ) -> Estimate:
        """Jobs that share the work evenly; `seconds` of all of it, if they are more than the products take."""
        gpus = max(1, getattr(self.study.resources, stage).gpu)
        seconds = flops / self.roof if seconds is None else seconds
        return Estimate(stage, what, jobs, gpus, memory, flops / 1e15, seconds / jobs / gpus / 3600)

    # Disk

    def disk(self) -> dict[str, float]:
        """GB by kind: what the study writes and keeps, and the states of trainings that run side by side."""
        models = {name: self.size(name) for name in (*self.study.models, *self.paths.iteration_models())}
        known = {name: size.parameters for name, size in models.items() if size}
        fetched = sum(2 * count for name, count in known.items() if name in self.paths.fetched_models)
        trained = sum(4 * count for name, count in known.items() if name not in self.paths.fetched_models)
        # One saved state for each arm; the trainings of one arm follow each other.
        arms = [known[first.name] for arm in self.study.arms if (first := self.paths.iterations(arm)[0]).name in known]
        optimizer = OPTIMIZER[self.study.train.optimizer]
        states = sum(2 * count * (4 + optimizer) for count in arms)  # the last saved state, and the next before it goes
        tokens = self.rows * (self.lengths.response + self.lengths.generated) * len(self.paths.iteration_models())
        kinds = {"fetched models": fetched, "trained models": trained, "states": states, "tables": 24 * tokens}
        return {kind: size / GB for kind, size in kinds.items()}


def mean_lengths(layout: StudyPaths) -> Lengths:
    """Mean lengths: measured where the student has read the study's rows, assumed before."""
    assumed = layout.study.preflight
    measured = Path(layout.file(layout.study.start, "reference", layout.shards()[0]))
    if not measured.exists():
        means = (assumed.prompt_tokens, assumed.response_tokens, assumed.generated_tokens)
        return Lengths(*means, "assumed in the config, nothing is measured yet")
    reference = tables.read_reference(measured)
    chosen, rejected = (
        reference[f"{side}_token_ids"].combine_chunks().value_lengths().to_numpy().mean() for side in tables.SIDES
    )
    told = f"answers measured in {measured}, prompts assumed"
    return Lengths(assumed.prompt_tokens, float(chosen), float(rejected), told)
