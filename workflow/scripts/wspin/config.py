"""What a valid study is: the one typed definition from which checks, flags, schema and option table follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from .origins import Data, Model, Push, TaskSource
from .running import Preflight, Report, Resources
from .sections import Loss, Name, NotNegative, PerIteration, Precision, Section, Share

RESERVED = frozenset(
    ("data", "fetched", "logprobs", "logs", "benchmarks", "tables", "figures", "pages", "gold", "preferences", "demo")
) | {"config.yaml", "swift_paper", "spin_settings"}  # the last two: results of config/presets/


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
    def reads(self) -> frozenset[str]:
        """Of the settings that only one engine has, those that this one reads, and that must be given."""
        return frozenset(("dtype", "gpu_memory") if self.engine == "vllm" else ("batch_size",))

    def for_its_engine(self) -> Generate:
        """The same sampling without the other engine's settings: an edit of those samples nothing again."""
        others = {"batch_size", "dtype", "gpu_memory"} - self.reads
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
    def reads(self) -> list[str]:
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
        return self.model_copy(update=dict.fromkeys(self.optional().difference(self.reads)))


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
    def reads(self) -> frozenset[str]:
        """Of the settings that only some losses have, those that this one reads, and that must be given."""
        return reads(self.loss)

    def for_its_loss(self) -> Train:
        """The same training without the settings that its loss does not read: an edit of those re-trains nothing."""
        return self.model_copy(update=dict.fromkeys(LOSS_KEYS - self.reads))


LOSS_KEYS = frozenset(("beta", "label_smoothing", "alpha", "reduction"))


def reads(loss: str) -> frozenset[str]:
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


class Fork(Section):
    from_: str = Field(alias="from", description="arm whose iterations are taken over")
    at: PositiveInt = Field(description="first iteration of this arm's own")


class Arm(Section):
    """What an arm changes. Everything else is the study's."""

    train: dict[str, Any] = Field({}, description="settings of `train` that this arm overrides")
    weigh: dict[str, Any] = Field({}, description="settings of `weigh` that this arm overrides")
    teacher: str | None = Field(None, description="registry model that weighs tokens; default: the study's `teacher`")
    start: str | None = Field(None, description="registry model the arm starts from; default: the study's `start`")
    seed: int | None = Field(None, description="seed of a replicate; default: the study's `seed`")
    data_window: PositiveInt | None = Field(None, description="default: the study's `data_window`")
    iterations: PositiveInt | None = Field(None, description="default: the study's `iterations`")
    fork: Fork | None = Field(None, description="start from another arm's iteration instead of `start`")


class Study(Section):
    """A whole study."""

    results: str = Field(description="folder of the results")
    seed: int = Field(description="seed of everything random; an arm may have its own")
    models: dict[Name, Model] = Field(description="the registry")
    start: str = Field(description="registry model every arm starts from")
    teacher: str | None = Field(None, description="registry model that weighs tokens; arms with source equal need none")
    data: Data
    dialogue: Dialogue
    generate: GenerateSection
    logprobs: Logprobs
    weigh: WeighSection
    train: TrainSection
    eval: Eval
    arms: dict[Name, Arm] = Field(min_length=1, description="the arms of the study, each with what it changes")
    iterations: PositiveInt = Field(description="rounds of self-play")
    data_window: PositiveInt = Field(
        description="iterations whose pairs one training sees: 2 = this one and the one before"
    )
    resources: Resources
    report: Report
    preflight: Preflight
    push: Push | None = Field(None, description="what the target `push` uploads; nothing else reads it")

    def arm_train(self, arm: str) -> Train:
        """An arm's training, with per-iteration values still lists."""
        return Train.model_validate(merge(_plain(self.train), self.arms[arm].train)).for_its_loss()

    def arm_weigh(self, arm: str) -> Weigh:
        """How an arm's tokens are weighed; of consequence for arms whose loss reads weights."""
        return Weigh.model_validate(
            merge(self.weigh.model_dump(exclude={"given"}), self.arms[arm].weigh)
        ).for_its_source()

    def weighted(self, arm: str) -> bool:
        """Whether an arm's loss reads token weights."""
        return self.arm_train(arm).loss == "wspin"

    def given_answers(self) -> list[str]:
        """The start model whose answers a file holds (`generate.given`), if there is one."""
        return [self.start] if self.generate.given else []

    def given_weights(self) -> list[str]:
        """Arms whose weights of iteration 0 a file holds (`weigh.given`): those that start and weigh as the study."""
        alike = [name for name, arm in self.arms.items() if not arm.model_fields_set & OWN_WEIGHTS]
        return [name for name in alike if self.weighted(name)] if self.weigh.given else []

    def model_train(self, model: str) -> Train:
        """The training of a registry model: `train`, then `train.<loss>`, then the model's own overrides."""
        entry = self.models[model]
        by_loss = {"sft": self.train.sft, "dpo": self.train.dpo}.get(entry.loss, {})
        merged = merge(_plain(self.train), by_loss, entry.train, {"loss": entry.loss})
        return Train.model_validate(merged).for_its_loss()


# What makes an arm's weights of iteration 0 others than the study's
OWN_WEIGHTS = {"weigh", "teacher", "start", "seed", "fork"}


def _plain(train: TrainSection) -> dict[str, Any]:
    return train.model_dump(exclude={"sft", "dpo"})


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Deep-merge mappings, later ones win; lists are replaced whole; `None` deletes an inherited key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if value is None:
                merged.pop(key, None)
            elif isinstance(value, dict):
                below = merged.get(key)
                merged[key] = merge(below if isinstance(below, dict) else {}, value)
            else:
                merged[key] = value
    return merged


def at_iteration(train: Train, k: int) -> Train:
    """The training of iteration k: lists resolved to their k-th value."""
    values = {name: value[k] if isinstance(value, list) else value for name, value in train}
    return train.model_copy(update=values)
