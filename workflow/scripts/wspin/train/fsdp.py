"""Training a model that is too large for one GPU with its gradients and optimiser: each process holds a share (FSDP2).

Torch's `fully_shard` itself: layer by layer, and the rest (embedding, last norm, head) as one, since the head's weight
is read without calling the head. What is saved is whole again, so a state can be continued by any number of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from wspin.errors import StudyError

from .distributed import processes, whole_weights
from .trainer import PlannedTrainer

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: Any) -> None:
    """Spread a model over all processes, in place. Raises `StudyError` where its layers are hidden."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise StudyError(f"train.parallel: fsdp expects a model with `layers`, found none in {type(model).__name__}")
    mesh = init_device_mesh(model.device.type, (processes(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


class ShardedTrainer(PlannedTrainer):
    """Trains a share of the model in each process."""

    sharded = True

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        if self.frozen is not None:
            raise StudyError("train.alpha: expected 0 with parallel: fsdp, which does not shard the reference it keeps")
        self.is_distributed_loading_by_transformers = True  # to the Trainer: neither wrap nor move the model

    def create_optimizer(self, *arguments: Any) -> torch.optim.Optimizer:
        """Shard first: an optimiser keeps the parameters that it is given."""
        shard(self.model)
        return super().create_optimizer(*arguments)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        weights = whole_weights(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=WHOLE)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, state, options=WHOLE)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
