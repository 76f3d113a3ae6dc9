"""The sections of the configuration, one class for each stage."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .base import (
    BelowHalf,
    Confidence,
    Count,
    CountOrZero,
    Draws,
    Engine,
    FilePath,
    FolderName,
    Fraction,
    Name,
    NotNegative,
    PerIteration,
    Positive,
    Precision,
    Section,
    Seed,
    Share,
    Task,
    Text,
)
from .losses import LOSS_INPUTS, Loss, loss_keys
from .published import PublishedTable
from .sources import TaskSource
from .trackers import Tracker

# Settings of a training's memory and supervision: they leave no trace in its result
UNTRACKED = ("save_every", "margin_bound", "gradient_checkpointing", "parallel", "report_to")


class Dialogue(Section):
    template: str = Field(description="a template's name, `chat` (the model's own), or a text that holds {prompt} once")
    eos: str = Field(
        min_length=1, description="the study's one end-of-answer token: generation stops on it, training appends it"
    )
    max_prompt_tokens: Count = Field(description="longest prompt, with template; longer rows are dropped in data")
    max_tokens: Count = Field(description="longest prompt + answer; longer rows are dropped in data")
    eos_on_cut: bool = Field(description="append EOS to a truncated answer, as the published code does")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError(
                f"max_prompt_tokens {self.max_prompt_tokens} leaves no room for answers in max_tokens {self.max_tokens}"
            )
        return self


class Generate(Section):
    engine: Engine = Field(
        description="library that samples the answers; vllm has an environment of its own (docs/generation.md)"
    )
    temperature: NotNegative = Field(description="sampling temperature; 0 is greedy")
    top_p: Fraction = Field(description="nucleus: smallest set of tokens with this mass")
    max_new_tokens: Count = Field(description="longest answer, EOS included")
    batch_size: Count | None = Field(
        None, description="engine transformers: prompts decoded together; changes results by rounding only"
    )
    dtype: Precision | None = Field(None, description="engine vllm: precision of weights and products")
    gpu_memory: Fraction | None = Field(None, description="engine vllm: share of GPU memory to use")

    @property
    def required_keys(self) -> frozenset[str]:
        return frozenset(("dtype", "gpu_memory") if self.engine == "vllm" else ("batch_size",))


class GenerateSection(Generate):
    """The section `generate`: how answers are sampled, and a file that may hold those of iteration 0."""

    given: FilePath | None = Field(
        None,
        description="JSONL in SPIN's or TIS-DPO's format: answers of `start`, used at iteration 0 instead of sampled "
        "ones; arms with another start or seed sample their own",
    )
    answers: Literal["greedy", "sampled"] | None = Field(
        None,
        description="how models answer whose answers others are trained on (data `answers`): greedy, or as self-play",
    )


class Logprobs(Section):
    autocast: Precision = Field(description="precision of matrix products, in scoring and training alike")
    token_budget: Count = Field(description="tokens of a scoring batch, every prompt counted once")


class Schedule(Section):
    warmup: Share = Field(description="share of the steps over which the learning rate rises linearly")
    decay: Literal["linear", "constant"] = Field(description="after the warm-up: linear to zero, or constant")


class MarginBound(Section):
    float32: Positive = Field(description="bound under autocast float32, nat")
    bfloat16: Positive = Field(description="bound under autocast bfloat16, nat")


class Train(Section):
    """The settings of one training. `PerIteration` values are a scalar, or a list with one value per iteration."""

    loss: Loss = Field(description="sft, or a loss of pairs (docs/losses.md); wspin has token weights")
    beta: PerIteration[Positive] | None = Field(None, description="strength of the tie to the reference, SPIN's λ")
    learning_rate: PerIteration[Positive] = Field(description="peak learning rate")
    epochs: PerIteration[Count] = Field(description="passes over the data of one training")
    global_batch: Count = Field(description="pairs (sft: rows) per optimiser step, whatever the number of GPUs")
    token_budget: Count = Field(
        description="tokens of a micro-batch, every prompt counted once; halved where memory is short; moves results "
        "by rounding only"
    )
    triplets: bool = Field(
        description="keep the pairs of a prompt, this iteration's and the replayed ones, in one step: the real answer "
        "is computed once, but steps consist of other pairs"
    )
    gradient_checkpointing: bool = Field(description="recompute activations: less memory, a third more work")
    parallel: Literal["ddp", "fsdp"] = Field(
        description="on several GPUs: ddp keeps a whole model on each, fsdp a shard of model, gradients and optimiser; "
        "changes results by rounding only"
    )
    optimizer: Literal["rmsprop", "adamw"] = Field(description="optimiser of torch")
    schedule: Schedule
    weight_decay: NotNegative = Field(description="weight decay of the optimiser")
    max_grad_norm: Positive = Field(description="gradients are clipped to this global norm")
    label_smoothing: BelowHalf | None = Field(
        None, description="probability that a pair's labels are swapped (conservative DPO); 0 disables it"
    )
    alpha: NotNegative | None = Field(
        None, description="losses wspin, tdpo2: weight of the KL term; above 0 the reference model stays loaded"
    )
    reference_free: bool | None = Field(
        None, description="losses without KL term: true leaves the reference out of the loss"
    )
    reduction: Literal["token_mean", "sum"] | None = Field(
        None, description="loss sft: mean over the response tokens of a step, or sum per answer"
    )
    margin_bound: MarginBound = Field(
        description="largest |margin| of the first step against the stored reference; above it training stops"
    )
    save_every: Count = Field(description="steps between saved states; a killed job repeats at most this many")
    report_to: Tracker = Field(
        description="tracker that also gets the curve, from a package of this name; on this machine alone, unless its "
        "own environment variables say otherwise (docs/cluster.md)"
    )

    @property
    def required_keys(self) -> frozenset[str]:
        return loss_keys(self.loss) | {key for key in LOSS_INPUTS[self.loss].switches if getattr(self, key)}

    def recorded(self) -> dict[str, Any]:
        """The settings that decide the result; a switch that is off is left out, as before there was one."""
        off = set() if self.reference_free else {"reference_free"}
        return self.model_dump(exclude={*UNTRACKED, *off})


class TrainedAnswers(Section):
    """Which answers of its files a training is about; no section of the configuration, but flags like those."""

    replays: CountOrZero = Field(description="replayed response sets that are trained on")
    unreplayed: bool | None = Field(None, description="true: however many the reference holds, none is trained on")
    side: Literal["chosen", "rejected"] | None = Field(None, description="loss sft: this side of preference pairs")
    reverse: bool | None = Field(None, description="true: chosen and rejected answers are swapped")


class TrainSection(Train):
    """The section `train`: the defaults of arms, and overrides by loss for models outside the arms."""

    sft: dict[str, Any] = Field({}, description="overrides for registry models trained with loss sft")
    dpo: dict[str, Any] = Field({}, description="overrides for registry models trained with a loss of pairs")


class EvalSettings(Section):
    """How lm-eval runs a model on one suite."""

    engine: Engine = Field(description="library that runs models for lm-eval")
    autocast: Precision = Field(
        description="precision of matrix products over weights in float32 (engine vllm: of weights too); tables refuse "
        "to mix the two"
    )
    token_budget: Count | None = Field(
        None,
        description="engine transformers: tokens of a scoring pass, every context counted once; recorded, since it "
        "changes scores by rounding",
    )
    batch_size: Count = Field(
        description="prompts decoded together; fixed and recorded, since it changes scores by rounding"
    )
    seeds: Annotated[list[Seed], Field(min_length=4, max_length=4)] = Field(
        description="lm-eval's seeds: python, numpy, torch, few-shot examples"
    )

    @property
    def required_keys(self) -> frozenset[str]:
        return frozenset(("token_budget",) if self.engine == "transformers" else ())

    def weights_precision(self, dtype: Precision) -> Precision:
        """Of a model with this `dtype` as the engine loads it: vLLM has weights and products in one precision."""
        return self.autocast if self.engine == "vllm" and dtype == "float32" else dtype


class Eval(EvalSettings):
    """How lm-eval runs the models, and on what."""

    engine: Engine | dict[Name, Engine] = Field(
        description="library that runs models for lm-eval: one for all suites, or one for each, `{suite: engine}`; "
        "tables refuse to mix two in one suite"
    )
    token_budget: Count = Field(description=EvalSettings.model_fields["token_budget"].description)
    models: list[str] = Field(description="registry models in the tables, beside every arm's iterations")
    suites: dict[Name, Annotated[dict[Task, CountOrZero], Field(min_length=1)]] = Field(
        min_length=1, description="suite: {task: shots}; a suite is one job"
    )
    sources: dict[str, TaskSource] = Field(description="suite: where its tasks come from")
    too_long: Literal["refuse", "cut"] = Field(
        description="requests longer than a model's context: stop before the first forward pass, or let lm-eval cut "
        "their beginning and keep their number with the scores"
    )

    def engine_of(self, suite: str) -> str:
        return self.engine if isinstance(self.engine, str) else self.engine[suite]

    def settings(self, suite: str) -> EvalSettings:
        """How a suite is run, without the settings of the other engine: an edit of those re-runs nothing."""
        values = {key: getattr(self, key) for key in EvalSettings.model_fields}
        return EvalSettings.model_validate(values | {"engine": self.engine_of(suite)}).without_unused_keys()


def at_iteration(train: Train, k: int) -> Train:
    """The training of iteration k: lists resolved to their k-th value."""
    values = {name: value[k] if isinstance(value, list) else value for name, value in train}
    return train.model_copy(update=values)


class Peak(Section):
    bfloat16: Positive = Field(description="peak TFLOP/s of a GPU in bfloat16")
    float32: Positive = Field(description="peak TFLOP/s of a GPU in float32; TF32 is never used")


class Preflight(Section):
    """Assumptions of `preflight` about GPUs, prices and lengths; they change no result."""

    gpu_memory_gb: Positive = Field(description="memory of a GPU")
    tflops: Peak
    bandwidth_tb: Positive = Field(description="memory bandwidth of a GPU, TB per second")
    utilisation: Fraction = Field(description="share of peak and bandwidth that jobs reach")
    launch_ms: NotNegative = Field(
        description="ms in which Python launches the kernels of a layer's forward pass; a pass takes no less, and its "
        "backward pass twice that"
    )
    start_seconds: NotNegative = Field(
        description="time from a job's start to its first model: Python, CUDA, with vllm the engine"
    )
    disk_gb: Positive = Field(description="GB per second at which jobs read, hash and write models and states")
    price: NotNegative = Field(description="price of a GPU hour, in any currency")
    prompt_tokens: Positive = Field(description="mean tokens of a prompt")
    response_tokens: Positive = Field(description="mean tokens of a real answer, until the start model has scored some")
    generated_tokens: Positive = Field(description="mean tokens of a generated answer, until some exist")
    evaluation_tokens: Positive = Field(
        description="mean tokens that an evaluation of one suite reads, every context once, until the suite is fetched"
    )
    greedy_tokens: Positive = Field(description="mean tokens of a greedy answer in an evaluation (gsm8k)")


class Report(Section):
    folder: FolderName | None = Field(
        None,
        description="folder of these tables and figures, below `tables/` and `figures/`: studies that share their "
        "results, and so their models, each need one; default: none, for one of them",
    )
    metrics: dict[str, Text] = Field(description="task: its metric in the tables, in lm-eval's words (`acc_norm,none`)")
    groups: dict[Name, Annotated[list[str], Field(min_length=1)]] = Field(
        {},
        description="mean of some tasks, a column of the tables: {name: [task, ...]}. `average` is what is drawn and "
        "stands on cards; default: of all tasks. Tasks of no group stand beside the means",
    )
    baseline: str = Field(
        description="arm that every other arm of its seed is compared to, iteration by iteration; arms of another seed "
        "are compared to the arm that differs from it in the seed alone"
    )
    examples: Count = Field(
        description="prompts that tables/examples.md and pages/answers.html show with the models' answers"
    )
    bootstrap: Draws = Field(
        description="draws of the paired bootstrap over items; the most sign patterns that a permutation test sums, "
        "which draws as many where there are more"
    )
    confidence: Confidence = Field(description="level of the intervals")
    preregistration: FilePath | None = Field(
        None,
        description="file with the family of tests that was fixed before the results were looked at: its `level`, "
        "`contrasts`, `tasks`, `iterations`, `tests`, perhaps `seeds` (docs/statistics.md); without it all tests are "
        "exploratory",
    )
    published: dict[Name, PublishedTable] = Field({}, description="tables of papers beside models of this study")
