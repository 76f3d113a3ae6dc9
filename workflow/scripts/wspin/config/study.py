"""The whole study: all sections, the arms, and the settings of each training."""

from typing import Any, Literal

from pydantic import Field

from . import stages
from .base import FilePath, Name, Replicated, Rounds, Section, Seed
from .resources import Resources
from .sources import Data, Model, Push
from .stages import Train
from .weigh import Weigh, WeighSection

# No names for models or arms: what lies in the results, real answers in place of a response set, the overlays' results.
FOLDERS = ("config.yaml", "data", "fetched", "logprobs", "logs", "benchmarks", "tables", "figures", "pages")
OVERLAYS = ("demo", "everything", "smollm2", "spin_settings", "spin_zephyr", "swift_as_released", "swift_paper")
OVERLAYS += ("findings", "findings_words", "swift12_mistral", "swift12_qwen", "paper_demo")
RESPONSES = ("gold", "preferences", "preferences.chosen", "preferences.rejected")
RESERVED = frozenset((*FOLDERS, *RESPONSES, *OVERLAYS))

# An arm that sets one of these keys has weights of its own at iteration 0
OWN_WEIGHT_KEYS = {"weigh", "teacher", "start", "seed", "fork"}


class Fork(Section):
    from_: str = Field(alias="from", description="arm whose iterations are taken over")
    at: Rounds = Field(description="first iteration that this arm trains itself")


class Arm(Replicated):
    """What an arm changes. Everything else is the study's."""

    train: dict[str, Any] = Field({}, description="settings of `train` that this arm overrides")
    weigh: dict[str, Any] = Field({}, description="settings of `weigh` that this arm overrides")
    teacher: str | None = Field(None, description="registry model that weighs tokens; default: the study's `teacher`")
    start: str | None = Field(None, description="registry model the arm starts from; default: the study's `start`")
    data_window: Rounds | None = Field(None, description="default: the study's `data_window`")
    iterations: Rounds | None = Field(None, description="default: the study's `iterations`")
    fork: Fork | None = Field(None, description="start from another arm's iteration instead of `start`")


class Study(Section):
    """A whole study."""

    results: FilePath = Field(description="folder of the results")
    seed: Seed = Field(description="seed of everything random; arms and trained models may have others (`seeds`)")
    replicates: Literal["generation and training", "all"] = Field(
        "generation and training",
        description="what the `seeds` of an arm vary: its sampling and training, or also the training of the model "
        "that it starts from (its own SFT)",
    )
    models: dict[Name, Model] = Field(description="the registry")
    start: str = Field(description="registry model every arm starts from")
    teacher: str | None = Field(None, description="registry model that weighs tokens; source equal needs none")
    data: Data
    dialogue: stages.Dialogue
    generate: stages.GenerateSection
    logprobs: stages.Logprobs
    weigh: WeighSection
    train: stages.TrainSection
    eval: stages.Eval
    arms: dict[Name, Arm] = Field(min_length=1, description="the arms of the study, each with what it changes")
    iterations: Rounds = Field(description="rounds of self-play")
    data_window: Rounds = Field(description="iterations whose pairs a training sees: 2 = this and the one before")
    resources: Resources
    report: stages.Report
    preflight: stages.Preflight
    push: Push | None = Field(None, description="what the target `push` uploads; changes no result")

    def arm_train(self, arm: str) -> Train:
        """An arm's training, with per-iteration values still lists."""
        return Train.model_validate(merge(_defaults(self.train), self.arms[arm].train)).without_unused_keys()

    def arm_weigh(self, arm: str) -> Weigh:
        """How an arm's tokens are weighed, if its loss has token weights."""
        merged = merge(self.weigh.model_dump(exclude={"given"}), self.arms[arm].weigh)
        return Weigh.model_validate(merged).without_unused_keys()

    def model_weigh(self, model: str) -> Weigh:
        """How the tokens of the pairs are weighed that a registry model with loss wspin is trained on."""
        merged = merge(self.weigh.model_dump(exclude={"given"}), self.models[model].weigh)
        return Weigh.model_validate(merged).without_unused_keys()

    def weighted(self, arm: str) -> bool:
        """Whether an arm's loss has token weights."""
        return self.arm_train(arm).loss == "wspin"

    def weighted_models(self) -> list[str]:
        """Models of the registry whose loss has token weights."""
        return [name for name, model in self.models.items() if model.loss == "wspin"]

    def given_answers(self) -> list[str]:
        """The start model, if a file holds its answers (`generate.given`)."""
        return [self.start] if self.generate.given else []

    def given_weights(self) -> list[str]:
        """Arms whose weights of iteration 0 a file holds (`weigh.given`): those that start and weigh as the study."""
        arms = [name for name, arm in self.arms.items() if not arm.model_fields_set & OWN_WEIGHT_KEYS]
        return [name for name in arms if self.weighted(name)] if self.weigh.given else []

    def loss_train(self, loss: str) -> Train:
        """The training of models outside the arms with this loss: `train`, then `train.<loss>`."""
        return Train.model_validate(merge(_defaults(self.train), getattr(self.train, loss), {"loss": loss}))

    def model_train(self, model: str) -> Train:
        """The training of a registry model: `train`, then `train.sft` or `train.dpo`, then the model's own settings."""
        entry = self.models[model]
        by_loss = self.train.sft if entry.loss == "sft" else self.train.dpo
        merged = merge(_defaults(self.train), by_loss, entry.train, {"loss": entry.loss})
        return Train.model_validate(merged).without_unused_keys()


def _defaults(train: stages.TrainSection) -> dict[str, Any]:
    return train.model_dump(exclude={"sft", "dpo"})


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Deep-merge mappings, later ones win; lists are replaced whole; `None` deletes an inherited key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if value is None:
                merged.pop(key, None)
            elif isinstance(value, dict):
                inherited = merged.get(key)
                merged[key] = merge(inherited if isinstance(inherited, dict) else {}, value)
            else:
                merged[key] = value
    return merged
