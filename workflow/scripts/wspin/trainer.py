"""Training: a thin `transformers.Trainer` whose batches come from the plan and whose losses come from `losses`.

One item of the data loader is one optimiser step, a list of micro-batches; `gradient_accumulation_steps` stays 1 and
the loop over micro-batches runs inside `training_step`, each scaled by its share of `global_batch`. So a step means
the same on any number of devices, and to resume is to continue the plan at an index with the Trainer's own state.
"""

from __future__ import annotations

import copy
import json
import math
import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from . import StudyError, losses
from .config import Train
from .files import naming, sync, write_json
from .logprobs import autocast, check_head, chosen, token_logits
from .packing import Batch, Item, Step, lay_out, plan

COMPLETE = "complete"  # marks a saved state whose files are all on the disk


@dataclass(frozen=True)
class Steps:
    """The optimiser steps of a training as a data set: step i is its list of micro-batches."""

    items: Sequence[Item]
    plan: Sequence[Step]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> list[Batch]:
        return [lay_out([self.items[i] for i in chosen], pad=0) for chosen in self.plan[index]]


class PlannedTrainer(Trainer):
    """Runs the plan; see the module's description."""

    def __init__(self, settings: Train, precision: str, **trainer: Any):
        super().__init__(**trainer)
        self.settings, self.precision = settings, precision
        keeps = settings.loss == "wspin" and settings.alpha
        self.frozen = copy.deepcopy(self.model).requires_grad_(False).eval() if keeps else None
        self.measured: dict[str, float] = {}

    def get_train_dataloader(self) -> DataLoader:
        """The plan in its own order: shuffling has happened there, and no process takes a part of its own."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=operator.itemgetter(0))

    def training_step(self, model: Any, inputs: list[Batch], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of one optimiser step, scaled by pairs / global_batch; returns the mean over its pairs.

        (Loss sft: over its tokens or rows, see `reduction`.)
        """
        model.train()
        parts = [self._micro_step(model, batch.to(self.args.device), inputs) for batch in inputs]
        self._measure([part[1] for part in parts])
        answers = sum(len(batch.counts) for batch in inputs)
        items = answers if self.settings.loss == "sft" else answers // 2
        return torch.stack([part[0] for part in parts]).sum() * self.settings.global_batch / items

    def _micro_step(self, model: Any, batch: Batch, step: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(self.args.device, self.precision):
            logits = token_logits(model, batch)
        logprobs, divergence = chosen(logits, batch), self._divergence(logits, batch)
        del logits  # (T, V): must not live through the backward pass
        if self.settings.loss == "sft":
            loss, measured = losses.sft(logprobs) * sft_scale(step, self.settings), {}
        else:
            loss, measured = self._preference(logprobs, batch, divergence)
        self.accelerator.backward(loss)
        return loss.detach(), measured

    def _divergence(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """Weighted KL sums of the answers (2 B,), nats; None without that term, and then no reference is asked."""
        if self.frozen is None:
            return None
        with torch.no_grad(), autocast(self.args.device, self.precision):
            reference = token_logits(self.frozen, batch)
        return losses.answer_sums(losses.token_kl(logits, reference) * batch.weights, batch.counts)

    def _preference(
        self, logprobs: Tensor, batch: Batch, divergence: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings, delta = self.settings, logprobs - batch.reference
        plain = losses.answer_sums(delta, batch.counts)  # M, chosen and rejected in turn
        moved = losses.answer_sums(delta * batch.weights, batch.counts) if settings.loss == "wspin" else plain
        measured = {"moved": moved.detach(), "plain": plain.detach()}
        measured["logprobs"] = losses.answer_sums(logprobs.detach(), batch.counts)
        more = {}
        if divergence is not None:
            more = {"alpha": settings.alpha, "divergence": divergence[0::2] - divergence[1::2]}
            measured["kl"] = divergence.detach()
        margin = moved[0::2] - moved[1::2]
        per_pair = losses.PREFERENCE[settings.loss](margin, settings.beta, settings.label_smoothing, **more)
        return per_pair.sum() / settings.global_batch, measured

    def _measure(self, parts: list[dict[str, Tensor]]) -> None:
        """Rewards as the loss sees them and unweighted, sequence log-probabilities; guards a step's first margin."""
        if self.settings.loss == "sft":
            return
        moved, plain, logprobs = (torch.cat([part[key] for part in parts]) for key in ("moved", "plain", "logprobs"))
        largest = float((plain[0::2] - plain[1::2]).abs().max())
        if self.state.global_step == 0:
            check_first_margin(largest, self.settings, self.precision)
        self.measured = {
            **rewards("rewards", moved, self.settings.beta),
            **rewards("unweighted", plain, self.settings.beta),
            "margin/largest": largest,
            "logprobs/chosen": float(logprobs[0::2].mean()),
            "logprobs/rejected": float(logprobs[1::2].mean()),
        }
        if "kl" in parts[0]:
            kl = torch.cat([part["kl"] for part in parts])
            self.measured |= {"kl/chosen": float(kl[0::2].mean()), "kl/rejected": float(kl[1::2].mean())}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's measurements to the Trainer's own; a loss that is not finite ends the training."""
        if "loss" in logs:
            logs = {**logs, **self.measured}
            if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
                raise StudyError(
                    f"step {self.state.global_step}: loss {logs['loss']}, gradient {logs.get('grad_norm')}; not finite"
                )
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with naming(self.args.output_dir, Exception):
            super()._save_checkpoint(model, trial)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the Trainer's estimate is made for a dictionary of padded inputs


def rewards(name: str, moved: Tensor, beta: float) -> dict[str, float]:
    """Means over pairs of beta M, nats, from M of chosen and rejected in turn (2 B,); share of positive margins."""
    margin = moved[0::2] - moved[1::2]
    return {
        f"{name}/chosen": beta * float(moved[0::2].mean()),
        f"{name}/rejected": beta * float(moved[1::2].mean()),
        f"{name}/margin": beta * float(margin.mean()),
        f"{name}/accuracy": float((margin > 0).float().mean()),
    }


def sft_scale(step: Sequence[Batch], settings: Train) -> float:
    """Factor of a summed negative log-likelihood within its step: per response token, or per row.

    Either way a last step with fewer rows weighs less, so that every row of an epoch counts the same.
    """
    rows, tokens = sum(len(batch.counts) for batch in step), sum(sum(batch.counts) for batch in step)
    per_row = 1.0 / settings.global_batch
    return per_row if settings.reduction == "sum" else per_row * rows / tokens


def check_first_margin(largest: float, settings: Train, precision: str) -> None:
    """Before the first update the policy is the reference: a margin that is not near zero has another cause.

    Raises `StudyError` above `train.margin_bound`: a stale reference, other weights, another precision or layout.
    """
    bound = getattr(settings.margin_bound, precision)
    if not largest <= bound:
        raise StudyError(
            f"train: first step: expected |margin| against the stored reference <= {bound} nat "
            f"(margin_bound.{precision}), found {largest:.3g}; score the pairs again with this model"
        )


class Journal(TrainerCallback):
    """Keeps the curve and the time spent in the state folder, marks saved states, and tells the user how far it is."""

    def __init__(self, state: Path, every: int = 10):
        self.curve, self.spent, self.every = state / "metrics.jsonl", state / "spent.json", every
        self.began = time.time()
        self.earlier = json.loads(self.spent.read_text())["seconds"] if self.spent.exists() else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A resumed curve ends where the saved state does."""
        lines = self.curve.read_text().splitlines() if self.curve.exists() else []
        self.curve.write_text("".join(f"{line}\n" for line in lines[: state.global_step]))  # the last may be torn
        self.first = state.global_step
        print(
            f"train: step {state.global_step} of {state.max_steps}" + (", resumed" if state.global_step else ""),
            flush=True,
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        step = state.global_step
        entry = {"step": step, **{key: value for key, value in logs.items() if key != "epoch"}}
        with open(self.curve, "a") as file:
            file.write(json.dumps(entry) + "\n")
        if step % self.every == 0 or step == state.max_steps:
            self._keep_time()
            left = (time.time() - self.began) / (step - self.first) * (state.max_steps - step)
            margin = f"  margin {logs['rewards/margin']:+.4f}" if "rewards/margin" in logs else ""
            print(
                f"train: step {step} of {state.max_steps}  loss {logs['loss']:.4f}{margin}  {left:.0f} s left",
                flush=True,
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for file in (*saved.iterdir(), self.curve):
            sync(file)
        self._keep_time()
        (saved / COMPLETE).touch()

    def _keep_time(self) -> None:
        write_json(self.spent, {"seconds": self.seconds()})

    def seconds(self) -> float:
        """Time over all attempts."""
        return self.earlier + time.time() - self.began


def last_saved(state: Path) -> Path | None:
    """The latest saved state that is whole; a save that was interrupted does not count."""
    saved = [path.parent for path in state.glob(f"checkpoint-*/{COMPLETE}")]
    return max(saved, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def train(
    model: Any, items: Sequence[Item], settings: Train, precision: str, seed: Sequence[int], state: Path
) -> float:
    """Train `model` in place on all items; returns the seconds spent over all attempts.

    Saves its state in `state` every `save_every` steps and starts from the last one that is whole. The curve is
    `state/metrics.jsonl`, one line per step. Raises `StudyError` on a loss that is not finite, or if the first margin
    exceeds its bound.
    """
    check_head(model)
    steps = plan([item.lengths for item in items], seed, settings.global_batch, settings.token_budget, settings.epochs)
    journal = Journal(state)
    trainer = PlannedTrainer(
        settings,
        precision,
        model=model,
        args=arguments(settings, len(steps), seed[0], state, on_cpu=model.device.type == "cpu"),
        train_dataset=Steps(items, steps),
        callbacks=[journal],
    )
    trainer.remove_callback(PrinterCallback)  # the journal tells what the user wants to know
    saved = last_saved(state)
    trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    return journal.seconds()


def arguments(settings: Train, steps: int, seed: int, state: Path, on_cpu: bool) -> TrainingArguments:
    """Our settings in the Trainer's words; its own precision stays off, `logprobs.autocast` is the study's."""
    made = TrainingArguments(
        output_dir=str(state),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=settings.learning_rate,
        optim={"rmsprop": "rmsprop", "adamw": "adamw_torch"}[settings.optimizer],
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
        gradient_checkpointing=False,
    )
    made._n_gpu = min(made.n_gpu, 1)  # the Trainer would spread one process over all GPUs it sees (DataParallel)
    return made
