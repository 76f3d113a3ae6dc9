"""Runs a training to its end, from the start or from its last saved state."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments

from wspin.config.stages import Train
from wspin.engine.attention import shared_prefix
from wspin.engine.batches import plan_steps
from wspin.engine.flops import matmul_rate
from wspin.engine.packing import Item
from wspin.engine.support import check_model
from wspin.errors import StudyError
from wspin.interruption import stop_requests

from .distributed import rank, world_size
from .journal import Journal, last_saved
from .tracking import TrackedRun
from .trainer import PlannedTrainer


def train(
    model: Any,
    items: Sequence[Item],
    settings: Train,
    precision: str,
    seed: Sequence[int],
    state: Path,
    tracked: TrackedRun | None = None,
) -> dict[str, float]:
    """Train `model` in place on all items; returns the time over all attempts and the speed, in rank 0.

    Saves to `state` every `save_every` steps and starts from the last complete save. The curve is
    `state/metrics.jsonl`, one line per step. Raises `StudyError` for a model that the engine does not support, a loss
    that is not finite, a first margin above its bound, or when the training was stopped on request.
    """
    check_model(model)
    steps = plan_steps(len(items), seed, items_per_step(items, settings), settings.epochs)
    rate = matmul_rate(model.device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    journal, saved = Journal(state, rate * world_size()), last_saved(state)
    trainer_class = PlannedTrainer
    if settings.parallel == "fsdp" and world_size() > 1:
        from .fsdp import ShardedTrainer as trainer_class
    with stop_requests() as stop_requested, shared_prefix(model):
        arguments = training_arguments(settings, len(steps), seed[0], state, model.device.type == "cpu", tracked)
        options = {"args": arguments, "train_dataset": steps, "callbacks": [journal] if rank() == 0 else []}
        trainer = trainer_class(settings, precision, items, stop_requested, model=model, **options)
        trainer.remove_callback(PrinterCallback)  # the journal prints the progress
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    done = trainer.state.global_step
    if done < len(steps):
        raise StudyError(f"train: stop requested (SIGURG): saved at step {done} of {len(steps)}; run again to continue")
    return journal.speed() if rank() == 0 else {}


def items_per_step(items: Sequence[Item], settings: Train) -> int:
    """Items that fill one step. Raises `StudyError` unless these are whole items, and one or more per process."""
    pairs, batch = items[0].pairs, settings.global_batch
    if batch < pairs * world_size():
        expected = f"expected at least {pairs * world_size()} pairs for {world_size()} processes"
        raise StudyError(f"train.global_batch: {expected}, found {batch}; use fewer GPUs")
    if batch % pairs:
        expected = f"expected a multiple of the {pairs} pairs of an item (train.triplets)"
        raise StudyError(f"train.global_batch: {expected}, found {batch}")
    return batch // pairs


def training_arguments(
    settings: Train, steps: int, seed: int, state: Path, on_cpu: bool, tracked: TrackedRun | None = None
) -> TrainingArguments:
    """The settings as the Trainer's arguments; its own mixed precision stays off, `logprobs.autocast` is used."""
    arguments = TrainingArguments(
        output_dir=str(state),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type={"linear": "linear", "constant": "constant_with_warmup"}[settings.schedule.decay],
        warmup_steps=math.ceil(settings.schedule.warmup * steps),
        save_steps=settings.save_every,
        save_total_limit=2,  # an interrupted save leaves the one before it
        logging_steps=1,
        logging_nan_inf_filter=False,
        **{"report_to": [], **(tracked.arguments() if tracked else {})},
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
        use_cpu=on_cpu,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # a process that repeats a pass would wait for the others
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # the Trainer would use DataParallel over all visible GPUs
    return arguments
