"""FSDP2: every process holds a shard of the model, its gradients and the optimiser's state.

By torch's `fully_shard`: each layer is a unit, and the rest (embedding, last norm, head) is another, since the head's
weight is used without a call of the head. Saved states are unsharded, so any number of processes can resume them.
"""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from wspin.errors import StudyError

from .distributed import full_state_dict, world_size
from .trainer import PlannedTrainer

UNSHARDED = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: Any) -> None:
    """Shard a model over all processes, in place. Raises `StudyError` if the model has no list of layers."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise StudyError(f"train.parallel: expected `layers` for fsdp, found none in {type(model).__name__}; use ddp")
    mesh = init_device_mesh(model.device.type, (world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


class ShardedTrainer(PlannedTrainer):
    """Trains a shard of the model in each process."""

    sharded = True

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        if self.reference_model is not None:
            found = "found fsdp, which does not shard the reference model of the loss's KL term"
            raise StudyError(f"train.parallel: expected ddp, {found}; use ddp, or a loss or alpha without it")
        self.is_distributed_loading_by_transformers = True  # the Trainer then neither wraps nor moves the model

    def create_optimizer(self, *arguments: Any) -> torch.optim.Optimizer:
        """Shard the model before the optimiser takes its parameters."""
        shard(self.model)
        return super().create_optimizer(*arguments)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        weights = full_state_dict(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=UNSHARDED)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, state, options=UNSHARDED)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
