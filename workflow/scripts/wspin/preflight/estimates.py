"""Work, time and memory of every stage of a study, from the models' configs, mean lengths and counted requests.

The cost model: the matrix products of a packed forward pass over every prompt with its answers (`engine.flops`), three
times that for a training step, at an assumed share of the GPU's peak in the stage's precision; what optimiser, cache
and weights move in memory; the launches of kernels, where a pass is shorter than they take; and each job's start. Jobs
are counted by the study's lineage, so an arm, a fork or a replicate costs what it adds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wspin.config.scorers import Scorer
from wspin.config.stages import Train
from wspin.engine.flops import BACKWARD, Cost, attending_pairs
from wspin.iteration import Iteration
from wspin.storage import tables
from wspin.study.files import GOLD, PREFERENCE_SIDES
from wspin.study.paths import StudyPaths

from . import memory
from .gpu import PASS_TRAFFIC, STEP_TRAFFIC, Gpu
from .requests import RequestCounts, Suites
from .sizes import Size

VLLM_BATCH = 256  # answers that vLLM decodes at a time
VLLM_TOKENS, VLLM_SHARE = 8192, 0.9  # in evaluations, vLLM's own: tokens of a pass, share of the GPU's memory
WIDTHS = {"bfloat16": 2, "float32": 4}  # bytes of a number


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
    hours: float  # of one job, its start included

    @property
    def what(self) -> str:
        return f"{self.label} {self.name}".strip()

    @property
    def gpu_hours(self) -> float:
        return self.jobs * self.gpus * self.hours


@dataclass(frozen=True)
class Decoding:
    """How a batch of answers is decoded."""

    batch: int
    precision: str
    launches: bool  # of kernels, one by one from Python; vLLM replays graphs of them


def forward(cost: Cost, prompt: float, *answers: float) -> float:
    """FLOPs of a forward pass over one prompt with its answers, which predicts every token of these."""
    lengths = (round(prompt), *(round(answer) - 1 for answer in answers))
    pairs, predicted = attending_pairs(lengths), sum(map(round, answers))
    return cost.per_token * sum(lengths) + cost.per_pair * pairs + cost.per_prediction * predicted


class Estimator:
    """The estimates of one study.

    `sizes` holds every model of the registry whose config is known; `requests` the counted requests of suites, by the
    fetched model whose tokens they are and the suite.
    """

    def __init__(
        self,
        paths: StudyPaths,
        sizes: dict[str, Size],
        lengths: Lengths,
        requests: Suites | None = None,
    ):
        self.paths, self.study, self.sizes, self.lengths = paths, paths.study, sizes, lengths
        self.assumed, self.gpu, self.requests = self.study.preflight, Gpu(self.study.preflight), requests or {}
        self.prompt, self.real, self.generated = lengths.prompt, lengths.response, lengths.generated
        self.rows, self.pairs = self.study.data.sft.prompts, self.study.data.preferences.pairs

    def all(self) -> list[Estimate]:
        """In running order; stages of models of unknown size are left out."""
        stages = (self._registry(), self._generations(), self._logprobs(), self._arms(), self._evaluations())
        return [estimate for stage in stages for estimate in stage if estimate]

    def without(self, models: Iterable[str]) -> Self:
        """The estimator without the stages of these fetched models."""
        sizes = {name: size for name, size in self.sizes.items() if name not in models}
        return type(self)(self.paths, sizes, self.lengths, self.requests)

    def root(self, model: str) -> str:
        """The fetched model that a model descends from, or the model itself."""
        return [model, *self.paths.ancestors(model)][-1]

    def size(self, model: str) -> Size | None:
        """The size of a model, which is that of its root; None if that is unknown."""
        return self.sizes.get(self.root(model))

    def loaded(self, model: str, autocast: str) -> tuple[str, int]:
        """(precision of the products, bytes of a weight) where `models.X.dtype` may apply."""
        entry = self.study.models.get(model)
        return ("bfloat16", 2) if entry and entry.dtype == "bfloat16" else (autocast, 4)

    def files(self, model: str) -> float:
        """Bytes of a model's files: trained here in float32, published mostly in bfloat16."""
        return self.size(model).parameters * (2 if self.root(model) == model else 4)

    # Trainings

    def _registry(self) -> Iterable[Estimate | None]:
        for name in self.paths.trained_models:
            train = self.study.model_train(name)
            answers = (self.real,) if train.loss == "sft" else (self.real, self.generated)
            pairs = self.study.models[name].data.startswith("preferences")
            yield self._training(name, train, self.pairs if pairs else self.rows, answers)

    def _arms(self) -> Iterable[Estimate | None]:
        for model in self.paths.contrast_models:
            yield self._training(model, self.paths.train_settings(model), self.rows, (self.real, self.generated))
        for iteration in self.paths.all_iterations():
            train = self.paths.train_settings(iteration.name)
            sets = 1 + len(self.paths.replayed_sets(iteration))
            if train.triplets:
                yield self._training(iteration.name, train, self.rows, (self.real, *[self.generated] * sets))
            else:
                yield self._training(iteration.name, train, sets * self.rows, (self.real, self.generated))

    def _training(self, model: str, train: Train, items: int, answers: tuple[float, ...]) -> Estimate | None:
        """`answers`: the lengths of the answers to an item's prompt; several rejected ones are as many pairs."""
        size = self.size(model)
        if size is None:
            return None
        gpus, pairs = max(1, self.study.resources.train.gpu), max(1, len(answers) - 1)
        passes_over = 1 + BACKWARD + train.gradient_checkpointing + memory.keeps_reference(train)
        work = items * train.epochs * passes_over * forward(size.cost, self.prompt, *answers)
        steps = train.epochs * math.ceil(items * pairs / train.global_batch)
        tokens = (self.prompt + sum(answer - 1 for answer in answers)) * train.global_batch / pairs / gpus
        passes = max(1, math.ceil(tokens / train.token_budget))  # of a GPU in a step
        seconds = steps * self._step_seconds(size, train, work / steps / gpus, passes, passes_over)
        saved = math.ceil(steps / train.save_every) * size.parameters * (4 + memory.OPTIMIZER[train.optimizer])
        files = self.files(self.paths.parent(model)) + saved + 4 * size.parameters
        needed = memory.training(size, train, self.study.logprobs.autocast, gpus)
        return self._estimate("train", ("", model), 1, work, needed, seconds, files)

    def _step_seconds(self, size: Size, train: Train, flops: float, passes: int, passes_over: int) -> float:
        """Seconds of an optimiser step of `flops` on a GPU: its micro-batches, and what the optimiser moves."""
        gpus, precision = max(1, self.study.resources.train.gpu), self.study.logprobs.autocast
        launches = self.gpu.launches(passes * passes_over * size.config.num_hidden_layers)
        shared = gpus if train.parallel == "fsdp" else 1
        moved = passes * PASS_TRAFFIC[precision] + STEP_TRAFFIC[train.optimizer] / shared
        return max(self.gpu.products(flops, precision), launches) + self.gpu.traffic(size.parameters * moved)

    # Answers and log-probabilities

    def _generations(self) -> Iterable[Estimate | None]:
        settings, jobs = self.study.generate, len(self.paths.shards())
        vllm = settings.engine == "vllm"
        decoding = Decoding(
            VLLM_BATCH if vllm else settings.batch_size, settings.dtype if vllm else "float32", launches=not vllm
        )
        longest = self.study.dialogue.max_prompt_tokens + settings.max_new_tokens
        sampled = [name for name in self.paths.response_sets() if name not in self.study.given_answers()]
        answering = [*map(self.paths.generator, sampled), *self.paths.answering_models]
        shares = [("by", model, jobs, self.rows) for model in answering]
        shares += [("examples by", model, 1, self.study.report.examples) for model in self.paths.silent_models()]
        for what, model, jobs, rows in shares:
            if size := self.size(model):
                needed = memory.generation(size, settings, longest, self.assumed.gpu_memory_gb)
                work, seconds = self._decoding(size, decoding, rows, self.prompt, self.generated)
                yield self._estimate("generate", (what, model), jobs, work, needed, seconds / jobs, self.files(model))

    def _decoding(self, size: Size, decoding: Decoding, rows: int, prompt: float, new: float) -> tuple[float, float]:
        """(FLOPs, seconds) of answers to `rows` prompts; the seconds include reading cache and weights from memory."""
        width, steps = WIDTHS[decoding.precision], max(rows / decoding.batch, 1.0) * new
        flops = rows * forward(size.cost, prompt, new)
        cache = rows * (new * prompt + new * new / 2) * size.cached_values * width
        weights = steps * (size.parameters - size.embedding) * width
        seconds = self.gpu.products(flops, decoding.precision) + self.gpu.traffic(cache + weights)
        launches = self.gpu.launches(steps * size.config.num_hidden_layers) if decoding.launches else 0
        return flops, max(seconds, launches)

    def _logprobs(self) -> Iterable[Estimate | None]:
        shards, real, generated = len(self.paths.shards()), self.real, self.generated
        for folder in dict.fromkeys(map(self.paths.reference_folder, self.paths.all_iterations())):
            answers = (real, generated, *[generated] * len(self.paths.replayed_sets(Iteration.parse(folder))))
            model = self.paths.generator(self.paths.scored_set(folder))
            yield self._scoring(model, ("reference by", model), shards, self.rows, *answers)
        for scorer, responses in self._scored_sets():
            pairs, real = responses in PREFERENCE_SIDES, responses in (GOLD, PREFERENCE_SIDES[0])
            rows, jobs = (self.pairs, len(self.paths.shards("pairs"))) if pairs else (self.rows, shards)
            what, length = (f"{scorer} scores", responses), self.real if real else self.generated
            yield self._scoring(Scorer.parse(scorer).model, what, jobs, rows, length)
        for model in self.paths.preference_references:
            count = len(self.paths.shards("pairs"))
            yield self._scoring(model, ("preferences by", model), count, self.pairs, real, generated)

    def _scored_sets(self) -> list[tuple[str, str]]:
        """(scorer, response set) of all that scorers score, each once."""
        sets = {}
        given = {Iteration(arm, 0).name for arm in self.study.given_weights()}
        for model in self.paths.weighted_folders:
            scorers = () if model in given else filter(None, self.paths.scorer_pair(model))
            sets |= dict.fromkeys((scorer, side) for scorer in scorers for side in self.paths.scored_sides(model))
        return list(sets)

    def _scoring(self, model: str, what: tuple[str, str], jobs: int, rows: int, *answers: float) -> Estimate | None:
        size = self.size(model)
        if size is None:
            return None
        settings = self.study.logprobs
        precision, width = self.loaded(model, settings.autocast)
        needed = memory.scoring(size, precision, width, settings.token_budget)
        work = rows * forward(size.cost, self.prompt, *answers)
        tokens = rows * (self.prompt + sum(answer - 1 for answer in answers))
        seconds = self._passes(size, precision, work, tokens / settings.token_budget)
        return self._estimate("logprobs", what, jobs, work, needed, seconds / jobs, self.files(model))

    def _passes(self, size: Size, precision: str, flops: float, passes: float) -> float:
        """Seconds of forward passes."""
        return max(self.gpu.products(flops, precision), self.gpu.launches(passes * size.config.num_hidden_layers))

    # Evaluations

    def _evaluations(self) -> Iterable[Estimate | None]:
        """Of every counted suite, then of the others, whose requests are assumed; models of a root side by side."""
        models = [model for root in self.sizes for model in self.paths.table_models() if self.root(model) == root]
        suites = list(self.study.eval.suites)
        for suite in suites:
            for model in models:
                if counts := self.requests.get((self.root(model), suite)):
                    yield self._evaluation(model, f"{suite} of", self.study.eval.engine_of(suite), 1, counts)
        assumed = RequestCounts(tokens=round(self.assumed.evaluation_tokens))
        engines = list(dict.fromkeys(map(self.study.eval.engine_of, suites)))
        for engine in engines:
            for model in models:
                missing = [suite for suite in suites if (self.root(model), suite) not in self.requests]
                if jobs := [suite for suite in missing if self.study.eval.engine_of(suite) == engine]:
                    label = f"with {engine}," if len(engines) > 1 else ""
                    yield self._evaluation(model, label, engine, len(jobs), assumed)

    def _evaluation(self, model: str, label: str, engine: str, jobs: int, counts: RequestCounts) -> Estimate:
        """`jobs` evaluations with as many requests each."""
        size, settings, vllm = self.size(model), self.study.eval, engine == "vllm"
        precision, width = self.loaded(model, settings.autocast)
        work = counts.work(shared=not vllm)
        scored, budget = size.cost.flops(work), VLLM_TOKENS if vllm else settings.token_budget
        seconds = self._passes(size, precision, scored, work.tokens / budget)
        decoding = Decoding(settings.batch_size, precision, launches=not vllm)
        answers = (counts.prompts, counts.mean_prompt, self.assumed.greedy_tokens)
        generated, decoding_seconds = self._decoding(size, decoding, *answers) if counts.prompts else (0, 0)
        loaded = (size, precision, WIDTHS[precision] if vllm else width)
        needed = max(memory.scoring(*loaded, budget), memory.cached(*loaded, settings.batch_size * counts.longest))
        needed = max(needed, VLLM_SHARE * self.assumed.gpu_memory_gb * vllm)
        work, seconds = jobs * (scored + generated), seconds + decoding_seconds
        return self._estimate("eval", (label, model), jobs, work, needed, seconds, self.files(model))

    def _estimate(
        self, stage: str, what: tuple[str, str], jobs: int, flops: float, gb: float, seconds: float, files: float
    ) -> Estimate:
        """`flops` of all jobs; `seconds` of one job's work, and `files` bytes that it reads and writes."""
        gpus, hours = max(1, getattr(self.study.resources, stage).gpu), (seconds + self.gpu.start(files)) / 3600
        return Estimate(stage, *what, jobs, gpus, gb, flops / 1e15, hours)


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
