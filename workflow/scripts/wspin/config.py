"""What a valid study is: the one typed definition from which checks, flags, schema and option table follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

RESERVED = frozenset(
    ("data", "fetched", "logprobs", "logs", "benchmarks", "tables", "figures", "pages", "gold", "preferences", "demo")
) | {"config.yaml"}

T = TypeVar("T")
PerIteration = Annotated[T | list[T], Field(union_mode="left_to_right")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
Precision = Literal["float32", "bfloat16"]
Loss = Literal["sft", "dpo", "spin"]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def one_of(section: Section, *keys: str) -> str:
    """The one key of `keys` that is given; anything but exactly one is an error."""
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)}; found {', '.join(given) or 'none'}")
    return given[0]


def needs_revision(section: Section) -> None:
    """A hub name without a commit hash would let the study change under its feet."""
    if (section.hub is None) != (section.revision is None):
        raise ValueError("hub and revision belong together: a name on the hub and the 40 hex digits of a commit")


class Scratch(Section):
    """A small model with random weights and a tokenizer trained on a data set's raw text."""

    architecture: Literal["qwen2"] = Field(description="model class of transformers")
    text: str = Field(description="data set whose raw text trains the tokenizer")
    vocabulary: PositiveInt = Field(description="tokens of the byte-level BPE, special tokens included (at least 257)")
    hidden: PositiveInt = Field(description="width of the residual stream")
    intermediate: PositiveInt = Field(description="width of the feed-forward layer")
    layers: PositiveInt = Field(description="transformer blocks")
    heads: PositiveInt = Field(description="attention heads, each with its own keys and values")
    context: PositiveInt = Field(description="longest sequence in tokens")


class Model(Section):
    """An entry of the registry: on the hub, in a local folder, made from scratch, or trained from another model."""

    hub: str | None = Field(None, description="name on the model hub, with `revision`")
    revision: Revision | None = Field(None, description="commit hash of the hub model; branches are refused")
    path: str | None = Field(None, description="local folder that `from_pretrained` loads")
    scratch: Scratch | None = Field(None, description="random weights and a tokenizer trained on given text")
    from_: str | None = Field(None, alias="from", description="registry model this one is trained from")
    loss: Loss | None = Field(None, description="loss of the training (with `from`)")
    data: Literal["sft", "preferences"] | None = Field(None, description="data of the training (with `from`)")
    train: dict[str, Any] = Field({}, description="settings of `train` that this model overrides (with `from`)")
    template: str | None = Field(None, description="how this model sees a prompt; default: `dialogue.template`")

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        kind = one_of(self, "hub", "path", "scratch", "from_")
        needs_revision(self)
        trained = self.loss is not None and self.data is not None
        if (kind == "from_") != trained or (kind != "from_" and (self.loss or self.data or self.train)):
            raise ValueError("`from`, `loss` and `data` belong together, and `train` goes with them only")
        if trained and (self.loss == "sft") != (self.data == "sft"):
            raise ValueError("loss sft trains on data sft, and a preference loss on data preferences")
        return self

    @property
    def trained(self) -> bool:
        return self.from_ is not None


class ReasoningGym(Section):
    """Procedurally generated tasks with answers, from the package reasoning-gym."""

    tasks: dict[str, dict[str, int | float | str | bool]] = Field(
        min_length=1, description="name of a task: its settings, as reasoning-gym calls them"
    )
    rows: PositiveInt = Field(description="rows drawn of each task; repeated prompts are kept once")
    heldout: Share = Field(description="share of the rows in split `test`, chosen by a hash of the prompt")


class Source(Section):
    hub: str | None = Field(None, description="data set on the hub, with `revision`")
    revision: Revision | None = Field(None, description="commit hash of the hub data set; branches are refused")
    path: str | None = Field(None, description="local folder with one {split}.parquet or {split}.jsonl per split")


class Sft(Source):
    """Prompts and real answers."""

    reasoning_gym: ReasoningGym | None = Field(None, description="rows made by the package reasoning-gym")
    split: str = Field(description="split the prompts are drawn from")
    prompts: PositiveInt = Field(description="rows of the study: drawn by the seed until so many fit, or an error")
    shard: PositiveInt = Field(description="prompts per file of generations and log-probabilities")

    @model_validator(mode="after")
    def _one_source(self) -> Sft:
        one_of(self, "hub", "path", "reasoning_gym")
        needs_revision(self)
        return self


class Heldout(Section):
    """Rows that no training sees."""

    from_: Literal["sft"] = Field(alias="from", description="data set of the held-out rows")
    split: str = Field(description="split they are drawn from")
    prompts: PositiveInt = Field(description="number of rows")


class Preferences(Source):
    """Chosen and rejected answers, for the preference baselines."""

    from_: Literal["sft"] | None = Field(
        None,
        alias="from",
        description="make pairs from this data set: chosen = its answer, rejected = a corruption of it",
    )
    split: str = Field(description="split the pairs are drawn from")
    pairs: PositiveInt = Field(description="number of pairs: drawn by the seed until so many fit, or an error")
    shard: PositiveInt = Field(description="pairs per file of log-probabilities")

    @model_validator(mode="after")
    def _one_source(self) -> Preferences:
        one_of(self, "hub", "path", "from_")
        needs_revision(self)
        return self


class Data(Section):
    fits: list[str] = Field(
        min_length=1,
        description="registry models (none trained here) in whose context a row must fit; others drop no row",
    )
    sft: Sft
    heldout: Heldout
    preferences: Preferences


class Dialogue(Section):
    template: str = Field(description="name of a template, or a text that holds {prompt} once")
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
    engine: Literal["transformers"] = Field(description="library that samples the answers")
    temperature: NotNegative = Field(description="sampling temperature; 0 is greedy")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(description="nucleus: smallest set of tokens with this mass")
    max_new_tokens: PositiveInt = Field(description="longest answer, EOS included")
    batch_size: PositiveInt = Field(description="prompts decoded together; moves results by rounding only")


class Logprobs(Section):
    autocast: Precision = Field(description="precision of matrix products, in scoring and training alike")
    token_budget: PositiveInt = Field(description="tokens of a scoring batch, padding included")


class Schedule(Section):
    warmup: Share = Field(description="share of the steps over which the learning rate rises linearly")
    decay: Literal["linear", "constant"] = Field(description="after the warm-up: linear to zero, or constant")


class MarginBound(Section):
    float32: PositiveFloat = Field(description="bound under autocast float32, nat")
    bfloat16: PositiveFloat = Field(description="bound under autocast bfloat16, nat")


class Train(Section):
    """The settings of one training. `PerIteration` values are a scalar, or a list with one value per iteration."""

    loss: Loss = Field(description="sft; dpo; spin (logistic loss on real versus generated answers)")
    beta: PerIteration[PositiveFloat] | None = Field(
        None, description="strength of the tie to the reference (SPIN's lambda)"
    )
    learning_rate: PerIteration[PositiveFloat] = Field(description="peak learning rate")
    epochs: PerIteration[PositiveInt] = Field(description="passes over the data of one training")
    global_batch: PositiveInt = Field(description="pairs (sft: rows) per optimiser step, whatever the number of GPUs")
    token_budget: PositiveInt = Field(
        description="tokens of a micro-batch, padding included; moves results by rounding only"
    )
    optimizer: Literal["rmsprop", "adamw"] = Field(description="optimiser of torch")
    schedule: Schedule
    weight_decay: NotNegative = Field(description="weight decay of the optimiser")
    max_grad_norm: PositiveFloat = Field(description="gradients are clipped to this global norm")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] | None = Field(
        None, description="probability that a pair's labels are swapped (conservative DPO); 0 is plain"
    )
    reduction: Literal["token_mean", "sum"] | None = Field(
        None, description="loss sft: mean over the response tokens of a step, or sum per answer"
    )
    margin_bound: MarginBound = Field(
        description="largest |margin| of the first step against the stored reference; above it training stops"
    )
    save_every: PositiveInt = Field(description="optimiser steps between two saved states: what a killed job can lose")

    def for_its_loss(self) -> Train:
        """The same training without the settings that its loss does not read: an edit of those re-trains nothing."""
        unread = ("beta", "label_smoothing") if self.loss == "sft" else ("reduction",)
        return self.model_copy(update=dict.fromkeys(unread))


class TrainSection(Train):
    """The section `train`: an arm's defaults, and by loss what models outside the arms override."""

    sft: dict[str, Any] = Field({}, description="overrides for registry models trained with loss sft")
    dpo: dict[str, Any] = Field({}, description="overrides for registry models trained with loss dpo")


class TaskSource(Section):
    """Where the tasks of a suite come from."""

    hub: str | None = Field(None, description="data set on the hub that lm-eval's own tasks read, with `revision`")
    revision: Revision | None = Field(None, description="commit hash of the hub data set; branches are refused")
    path: str | None = Field(None, description="folder of task files (YAML) of lm-eval's format")
    heldout: bool = Field(False, description="the task files read the study's held-out rows")

    @model_validator(mode="after")
    def _one_source(self) -> TaskSource:
        one_of(self, "hub", "path")
        needs_revision(self)
        return self


class Eval(Section):
    engine: Literal["transformers"] = Field(description="library that runs the model under lm-eval")
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
    start: str | None = Field(None, description="registry model the arm starts from; default: the study's `start`")
    seed: int | None = Field(None, description="seed of a replicate; default: the study's `seed`")
    data_window: PositiveInt | None = Field(None, description="default: the study's `data_window`")
    iterations: PositiveInt | None = Field(None, description="default: the study's `iterations`")
    fork: Fork | None = Field(None, description="start from another arm's iteration instead of `start`")


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
    eval: Resource
    report: Resource


class Report(Section):
    metrics: dict[str, str] = Field(
        description="task: its metric in the tables, as lm-eval writes it (`acc_norm,none`)"
    )


class Study(Section):
    """A whole study."""

    results: str = Field(description="folder of the results")
    seed: int = Field(description="seed of everything random; an arm may have its own")
    models: dict[Name, Model] = Field(description="the registry")
    start: str = Field(description="registry model every arm starts from")
    data: Data
    dialogue: Dialogue
    generate: Generate
    logprobs: Logprobs
    train: TrainSection
    eval: Eval
    arms: dict[Name, Arm] = Field(min_length=1, description="the arms of the study, each with what it changes")
    iterations: PositiveInt = Field(description="rounds of self-play")
    data_window: PositiveInt = Field(
        description="iterations whose pairs one training sees: 2 = this one and the one before"
    )
    resources: Resources
    report: Report

    def arm_train(self, arm: str) -> Train:
        """An arm's training, with per-iteration values still lists."""
        return Train.model_validate(merge(_plain(self.train), self.arms[arm].train)).for_its_loss()

    def model_train(self, model: str) -> Train:
        """The training of a registry model: `train`, then `train.<loss>`, then the model's own overrides."""
        entry = self.models[model]
        by_loss = {"sft": self.train.sft, "dpo": self.train.dpo}.get(entry.loss, {})
        merged = merge(_plain(self.train), by_loss, entry.train, {"loss": entry.loss})
        return Train.model_validate(merged).for_its_loss()


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
