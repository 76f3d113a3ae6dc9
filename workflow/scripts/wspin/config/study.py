"""The whole study: its sections together, its arms, and what each arm changes."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from .base import Name, Section
from .sources import Data, Model, Push
from .stages import (
    Dialogue,
    Eval,
    GenerateSection,
    Logprobs,
    Preflight,
    Report,
    Resources,
    Train,
    TrainSection,
    Weigh,
    WeighSection,
)

RESERVED = frozenset(
    ("data", "fetched", "logprobs", "logs", "benchmarks", "tables", "figures", "pages", "gold", "preferences", "demo")
) | {"config.yaml", "swift_paper", "spin_settings"}  # the last two: results of overlays


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
