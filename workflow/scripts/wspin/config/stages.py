"""The sections of the configuration, one class for each stage, and what is asked and assumed for jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from .base import Loss, Name, NotNegative, PerIteration, Precision, Section, Share
from .sources import TaskSource

# How a training is watched over and kept in memory, without a trace in its result.
UNTRACKED = ("save_every", "margin_bound", "gradient_checkpointing", "parallel")


class Dialogue(Section):
    template: str = Field(
        description="name of a template, `chat` for the model's own chat template, or a text that holds {prompt} once"
    )
    eos: str = Field(description="the study's one end-of-answer token: generation stops on it, training appends it")
    max_prompt_tokens: PositiveInt = Field(
        description="longest prompt, template included; longer rows are dropped in data"
    )
    max_tokens: PositiveInt = Field(description="longest prompt + answer; longer rows are dropped in data")
    eos_on_cut: bool = Field(description="append EOS to an answer that generation cut short (the published code does)")

    @model_validator(mode="after")
    def _fits(self) -> Dialogue:
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError(
                f"max_prompt_tokens {self.max_prompt_tokens} leaves no answer in max_tokens {self.max_tokens}"
            )
        return self


class Generate(Section):
    engine: Literal["transformers", "vllm"] = Field(
        description="library that samples the answers; vllm has an environment of its own (docs/generation.md)"
    )
    temperature: NotNegative = Field(description="sampling temperature; 0 is greedy")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(description="nucleus: smallest set of tokens with this mass")
    max_new_tokens: PositiveInt = Field(description="longest answer, EOS included")
    batch_size: PositiveInt | None = Field(
        None, description="engine transformers: prompts decoded together; moves results by rounding only"
    )
    dtype: Precision | None = Field(None, description="engine vllm: precision of weights and products")
    gpu_memory: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="engine vllm: share of the GPU's memory for weights and cache"
    )

    @property
    def required_keys(self) -> frozenset[str]:
        """Of the settings that only one engine has, those that this one reads, and that must be given."""
        return frozenset(("dtype", "gpu_memory") if self.engine == "vllm" else ("batch_size",))

    def for_its_engine(self) -> Generate:
        """The same sampling without the other engine's settings: an edit of those samples nothing again."""
        others = {"batch_size", "dtype", "gpu_memory"} - self.required_keys
        return self.model_copy(update=dict.fromkeys(others))


class GenerateSection(Generate):
    """The section `generate`: how answers are sampled, or a file that holds those of iteration 0."""

    given: str | None = Field(
        None,
        description="JSONL of SPIN's or TIS-DPO's with the answers of `start`: they open the study instead of sampled "
        "ones. Arms with another start or seed sample theirs",
    )


class Logprobs(Section):
    autocast: Precision = Field(description="precision of matrix products, in scoring and training alike")
    token_budget: PositiveInt = Field(description="tokens of a scoring batch, every prompt counted once")


class Weigh(Section):
    """How log-probabilities become token weights: k exp(mu clamp(r, lower, upper)) of r = log teacher - log student."""

    source: Literal["teacher", "equal"] = Field(
        description="teacher: from its log-probabilities; equal: every weight 1"
    )
    form: Literal["exp_clamp"] | None = Field(None, description="source teacher: k exp(mu clamp(r, lower, upper))")
    k: Annotated[FiniteFloat, Field(gt=0.0)] | None = Field(
        None, description="source teacher: factor of every weight but that of EOS"
    )
    mu_chosen: FiniteFloat | None = Field(None, description="source teacher: sign and strength on chosen answers")
    mu_rejected: FiniteFloat | None = Field(None, description="source teacher: the same on rejected answers")
    lower: float | None = Field(None, description="source teacher: r is clamped from below, nat; before mu acts")
    upper: float | None = Field(None, description="source teacher: r is clamped from above, nat")
    segment_agg: Literal["paper_mean", "log_mean", "sum_spread"] | None = Field(
        None, description="source teacher: how a word's tokens share its weight where the tokenizers differ"
    )
    control: Literal["none", "one_minus", "inverse", "permuted", "random", "random_matched", "noise"] = Field(
        description="what is done to the weights to see whether they matter (docs/token-weights.md)"
    )
    normalise: Literal["none", "mean_one", "sum_to"] = Field(
        description="within each answer, its EOS left out: mean one, or a fixed sum (a hidden length normalisation)"
    )
    normalise_to: PositiveFloat | None = Field(None, description="normalise sum_to: the sum")
    eos_weight: NotNegative = Field(description="weight of the closing EOS")

    @property
    def required_keys(self) -> list[str]:
        """Of the settings that only some weights have, those that these are made from, and that must be given."""
        scores = ["form", "k", "mu_chosen", "mu_rejected", "lower", "upper", "segment_agg"]
        total = ["normalise_to"] if self.normalise == "sum_to" else []
        return [*(scores if self.source == "teacher" else []), *total]

    @classmethod
    def optional(cls) -> set[str]:
        """The settings that only some weights are made from."""
        return {name for name, info in cls.model_fields.items() if not info.is_required()}

    def for_its_source(self) -> Weigh:
        """The same weights without the settings that they are not made from: an edit of those makes none again."""
        return self.model_copy(update=dict.fromkeys(self.optional().difference(self.required_keys)))


class WeighSection(Weigh):
    """The section `weigh`: how log-probabilities become token weights k exp(mu clamp(r)), or a file with ready ones."""

    given: str | None = Field(
        None,
        description="JSONL of TIS-DPO's with the token weights of `generate.given`: those of iteration 0, as they are, "
        "in arms that set no weigh, teacher, start, seed or fork of their own; all else is weighed as configured",
    )


class Schedule(Section):
    warmup: Share = Field(description="share of the steps over which the learning rate rises linearly")
    decay: Literal["linear", "constant"] = Field(description="after the warm-up: linear to zero, or constant")


class MarginBound(Section):
    float32: PositiveFloat = Field(description="bound under autocast float32, nat")
    bfloat16: PositiveFloat = Field(description="bound under autocast bfloat16, nat")


class Train(Section):
    """The settings of one training. `PerIteration` values are a scalar, or a list with one value per iteration."""

    loss: Loss = Field(
        description="sft; dpo; spin (logistic loss on real versus generated answers); wspin (spin with weighed tokens)"
    )
    beta: PerIteration[PositiveFloat] | None = Field(
        None, description="strength of the tie to the reference (SPIN's lambda)"
    )
    learning_rate: PerIteration[PositiveFloat] = Field(description="peak learning rate")
    epochs: PerIteration[PositiveInt] = Field(description="passes over the data of one training")
    global_batch: PositiveInt = Field(description="pairs (sft: rows) per optimiser step, whatever the number of GPUs")
    token_budget: PositiveInt = Field(
        description="tokens of a micro-batch, every prompt counted once; halved where memory is short; moves results "
        "by rounding only"
    )
    triplets: bool = Field(
        description="read the pairs of one prompt together, this iteration's and the replayed ones: the real answer "
        "once, but then other pairs meet in a step",
    )
    gradient_checkpointing: bool = Field(
        description="keep fewer activations and compute them again: less memory, a third more work"
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        description="on several GPUs: ddp keeps a whole model on each, fsdp a share of model, gradients and optimiser; "
        "moves results by rounding only"
    )
    optimizer: Literal["rmsprop", "adamw"] = Field(description="optimiser of torch")
    schedule: Schedule
    weight_decay: NotNegative = Field(description="weight decay of the optimiser")
    max_grad_norm: PositiveFloat = Field(description="gradients are clipped to this global norm")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] | None = Field(
        None, description="probability that a pair's labels are swapped (conservative DPO); 0 is plain"
    )
    alpha: NotNegative | None = Field(
        None, description="loss wspin: weight of the weighted KL term; 0 computes none, more keeps the reference loaded"
    )
    reduction: Literal["token_mean", "sum"] | None = Field(
        None, description="loss sft: mean over the response tokens of a step, or sum per answer"
    )
    margin_bound: MarginBound = Field(
        description="largest |margin| of the first step against the stored reference; above it training stops"
    )
    save_every: PositiveInt = Field(description="optimiser steps between two saved states: what a killed job can lose")

    @property
    def required_keys(self) -> frozenset[str]:
        """Of the settings that only some losses have, those that this one reads, and that must be given."""
        return required_keys(self.loss)

    def for_its_loss(self) -> Train:
        """The same training without the settings that its loss does not read: an edit of those re-trains nothing."""
        return self.model_copy(update=dict.fromkeys(LOSS_KEYS - self.required_keys))


LOSS_KEYS = frozenset(("beta", "label_smoothing", "alpha", "reduction"))


def required_keys(loss: str) -> frozenset[str]:
    """Of the settings that only some losses have, those that a loss reads, and that must be given for it."""
    of_pairs = frozenset(("beta", "label_smoothing"))
    return {"sft": frozenset(("reduction",)), "wspin": of_pairs | {"alpha"}}.get(loss, of_pairs)


class TrainSection(Train):
    """The section `train`: an arm's defaults, and by loss what models outside the arms override."""

    sft: dict[str, Any] = Field({}, description="overrides for registry models trained with loss sft")
    dpo: dict[str, Any] = Field({}, description="overrides for registry models trained with loss dpo")


class Eval(Section):
    engine: Literal["transformers", "vllm"] = Field(
        description="library that runs the model under lm-eval, in float32; tables refuse to mix the two"
    )
    batch_size: PositiveInt = Field(description="fixed and stored: batch size moves scores by rounding")
    seeds: Annotated[list[int], Field(min_length=4, max_length=4)] = Field(
        description="lm-eval's seeds: python, numpy, torch, few-shot examples"
    )
    models: list[str] = Field(description="registry models in the tables, beside every arm's iterations")
    suites: dict[Name, Annotated[dict[str, int], Field(min_length=1)]] = Field(
        min_length=1, description="suite: {task: shots}; a suite is one job"
    )
    sources: dict[str, TaskSource] = Field(description="suite: where its tasks come from")


def at_iteration(train: Train, k: int) -> Train:
    """The training of iteration k: lists resolved to their k-th value."""
    values = {name: value[k] if isinstance(value, list) else value for name, value in train}
    return train.model_copy(update=values)


class Resource(Section):
    gpu: Annotated[int, Field(ge=0)] = Field(0, description="GPUs of a job")
    threads: PositiveInt = Field(1, description="CPU threads of a job; bitwise claims hold for equal threads")
    mem_mb: PositiveInt = Field(description="memory of a job in MB")
    runtime: PositiveInt = Field(description="minutes of a job; grows with the attempt")


class Resources(Section):
    fetch: Resource
    data: Resource
    train: Resource
    generate: Resource
    logprobs: Resource
    weigh: Resource
    eval: Resource
    report: Resource


class Preflight(Section):
    """What `preflight` assumes of GPUs, prices and lengths; nothing else reads it."""

    gpu_memory_gb: PositiveFloat = Field(description="memory of a GPU")
    tflops: PositiveFloat = Field(description="its peak in the study's precision")
    bandwidth_tb: PositiveFloat = Field(description="its memory's bandwidth, TB per second")
    utilisation: Annotated[float, Field(gt=0.0, le=1.0)] = Field(description="share of both that jobs reach")
    price: NotNegative = Field(description="of a GPU for an hour, in whatever currency")
    prompt_tokens: PositiveFloat = Field(description="mean tokens of a prompt, until `data` exists")
    response_tokens: PositiveFloat = Field(description="mean tokens of a real answer, until `data` exists")
    generated_tokens: PositiveFloat = Field(description="mean tokens of a generated answer, until there are some")
    evaluation_tokens: PositiveFloat = Field(description="tokens that all suites together read, for one model")


class Report(Section):
    metrics: dict[str, str] = Field(
        description="task: its metric in the tables, as lm-eval writes it (`acc_norm,none`)"
    )
    baseline: str = Field(description="arm that every other arm is compared to, iteration by iteration")
    examples: PositiveInt = Field(description="prompts shown with every model's answers and their weights")
    bootstrap: PositiveInt = Field(description="draws of the paired bootstrap over items")
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(description="level of the intervals")
