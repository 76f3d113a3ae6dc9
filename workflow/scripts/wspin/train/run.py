"""Runs a training to its end, or from its last saved state: plan, trainer, journal."""

from __future__ import annotations

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

from .distributed import processes, rank
from .journal import Journal, last_saved
from .preemption import stop_requests
from .trainer import PlannedTrainer


def train(
    model: Any, items: Sequence[Item], settings: Train, precision: str, seed: Sequence[int], state: Path
) -> dict[str, float]:
    """Train `model` in place on all items; returns the seconds spent over all attempts, and how fast it was.

    Saves its state in `state` every `save_every` steps and starts from the last one that is whole. The curve is
    `state/metrics.jsonl`, one line per step. Raises `StudyError` on a model that the layout cannot read, a loss that is
    not finite, if the first margin exceeds its bound, or after a training that was asked to stop (see `grace`).
    """
    check_model(model)
    steps = plan_steps(len(items), seed, items_per_step(items, settings), settings.epochs)
    rate = matmul_rate(model.device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    journal, saved = Journal(state, rate * processes()), last_saved(state)
    with stop_requests() as asked, shared_prefix(model):
        trainer = trainer_class(settings)(
            settings,
            precision,
            items,
            asked,
            model=model,
            args=arguments(settings, len(steps), seed[0], state, on_cpu=model.device.type == "cpu"),
            train_dataset=steps,
            callbacks=[journal] if rank() == 0 else [],
        )
        trainer.remove_callback(PrinterCallback)  # the journal tells what the user wants to know
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    done = trainer.state.global_step
    if done < len(steps):
        told = f"asked to stop (SIGURG): saved at step {done} of {len(steps)}; start it again to go on"
        raise StudyError(f"train: {told}")
    return journal.speed() if rank() == 0 else {}


def trainer_class(settings: Train) -> type[PlannedTrainer]:
    """The trainer that keeps a whole model in each process, or a share of it."""
    if settings.parallel == "ddp" or processes() == 1:
        return PlannedTrainer
    from .fsdp import ShardedTrainer

    return ShardedTrainer


def items_per_step(items: Sequence[Item], settings: Train) -> int:
    """Items whose pairs fill one optimiser step. Raises `StudyError` where they cannot, or are fewer than processes."""
    pairs = items[0].pairs
    if settings.global_batch < pairs * processes():
        told = f"expected {pairs * processes()} pairs at least for {processes()} processes"
        raise StudyError(f"train.global_batch: {told}, found {settings.global_batch}; use fewer GPUs")
    if settings.global_batch % pairs:
        found = f"items of {pairs} pairs (train.triplets)"
        raise StudyError(f"train.global_batch: expected a multiple of {pairs}, found {settings.global_batch}; {found}")
    return settings.global_batch // pairs


def arguments(settings: Train, steps: int, seed: int, state: Path, on_cpu: bool) -> TrainingArguments:
    """Our settings in the Trainer's words; its own precision stays off, `logprobs.autocast` is the study's."""
    made = TrainingArguments(
        output_dir=str(state),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type={"linear": "linear", "constant": "constant_with_warmup"}[settings.schedule.decay],
        warmup_steps=math.ceil(settings.schedule.warmup * steps),
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,  # a save that is interrupted leaves the one before it
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
        use_cpu=on_cpu,
        bf16=False,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # a process that takes a pass again would be alone with it
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    made._n_gpu = min(made.n_gpu, 1)  # the Trainer would spread one process over all GPUs it sees (DataParallel)
    return made
