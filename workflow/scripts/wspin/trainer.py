"""Training: a thin `transformers.Trainer` whose batches come from the plan and whose losses come from `losses`.

One item of the data loader is one optimiser step; `gradient_accumulation_steps` stays 1 and the loop over micro-batches
runs inside `training_step`, each scaled by its share of `global_batch`. Several processes share the items of every
step. So a step means the same on any number of devices and in any memory, and to resume is to continue the plan at an
index with the Trainer's own state.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from wspin import losses
from wspin.config.stages import Train
from wspin.engine.attention import shared_prefix
from wspin.engine.batches import Step, plan, rank_passes
from wspin.engine.flops import BACKWARD, Cost, matmul_rate
from wspin.engine.logprobs import autocast, patched_forward
from wspin.engine.packing import Batch, Item, Lengths, lay_out
from wspin.engine.support import check_model
from wspin.errors import StudyError
from wspin.grace import asked_to_stop
from wspin.journal import Journal, last_saved
from wspin.parallel import gather, processes, rank
from wspin.storage.files import naming


class PlannedTrainer(Trainer):
    """Runs the plan; see the module's description."""

    sharded = False  # whether every pass needs all processes, and not a step's last one only

    def __init__(
        self,
        settings: Train,
        precision: str,
        items: Sequence[Item],
        asked: Callable[[], bool] = lambda: False,
        **trainer: Any,
    ):
        super().__init__(optimizer_cls_and_kwargs=optimizer(settings), **trainer)
        self.settings, self.precision, self.items, self.asked = settings, precision, items, asked
        self.lengths = [item.lengths for item in items]
        self.token_budget = settings.token_budget
        self.cost = Cost.of(self.model)
        keeps = settings.loss == "wspin" and settings.alpha
        self.frozen = copy.deepcopy(self.model).requires_grad_(False).eval() if keeps else None
        self.measured: dict[str, float] = {}
        self.awaited = False  # in a pass that the other processes wait for

    def get_train_dataloader(self) -> DataLoader:
        """The plan in its own order: shuffling has happened there, and every process sees all of a step."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=operator.itemgetter(0))

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> Tensor:
        """Gradients of one optimiser step, scaled by pairs / global_batch; returns the mean over its pairs.

        (Loss sft: over its tokens or rows, see `reduction`.) A step for which memory is short is taken again in smaller
        micro-batches. Raises `StudyError` if a single item does not fit, or if other processes were waiting.
        """
        model.train()
        while True:
            try:
                return self._step(model, inputs)
            except torch.OutOfMemoryError:
                if self.awaited:
                    told = f"expected less than token_budget {self.token_budget}; lower train.token_budget"
                    raise StudyError(f"train: out of memory in a pass of all processes: {told}") from None
                self.token_budget = smaller(self.token_budget, [self.lengths[i] for i in inputs])
                print(f"train: out of memory; going on with token_budget {self.token_budget}", flush=True)
            model.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _step(self, model: Any, step: Step) -> Tensor:
        items = [self.items[i] for i in step]
        scale, computed, sums, measured = self._scale(items) * processes(), 0, [torch.zeros(())], []
        passes = rank_passes(self.lengths, step, processes(), rank(), self.token_budget, self.sharded)
        with patched_forward(self.accelerator.unwrap_model(model)):
            for number, (chosen, counts) in enumerate(passes, 1):
                batch = lay_out([self.items[i] for i in chosen])
                computed += self.cost.computed(batch)
                self.awaited = processes() > 1 and (self.sharded or number == len(passes))
                with nullcontext() if self.awaited else self.accelerator.no_sync(model):
                    loss, told = self._pass(model, batch.to(self.args.device), scale if counts else 0.0)
                if counts:
                    sums.append(loss.cpu())
                    measured.append(told)
        self.awaited = False
        told = gather((torch.stack(sums).sum(), joined(measured), computed, self.asked()))
        sums, measured, computed, asked = zip(*told, strict=True)
        self._measure(joined([own for own in measured if own]))
        self.measured |= {
            "work/tokens": sum(sum(item.lengths) for item in items),
            "work/needed": (1 + BACKWARD) * self.cost.needed(items),
            "work/computed": (1 + BACKWARD) * sum(computed),
        }
        if any(asked):
            self.control.should_save = self.control.should_training_stop = True
        pairs = sum(item.pairs for item in items)
        mean = torch.stack(sums).sum() / processes() * self.settings.global_batch / pairs
        return mean.to(self.args.device)

    def _scale(self, items: Sequence[Item]) -> float:
        if self.settings.loss != "sft":
            return 1.0 / self.settings.global_batch
        return sft_scale([len(item.responses[0]) for item in items], self.settings)

    def _pass(self, model: Any, batch: Batch, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds the gradient of one micro-batch; its scaled loss, and what its answers tell."""
        with autocast(self.args.device, self.precision):
            logprobs, divergence = model(batch, losses.token_kl, self.frozen)
        if self.settings.loss == "sft":
            loss, measured = losses.sft(logprobs) * scale, {}
        else:
            per_pair, measured = self._preference(logprobs, batch, divergence)
            loss = per_pair.sum() * scale
        self.accelerator.backward(loss)
        return loss.detach(), measured

    def _preference(
        self, logprobs: Tensor, batch: Batch, divergence: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every pair, and the sums over answers that the curve tells."""
        settings = self.settings
        if batch.sides is not None:
            logprobs = logprobs[batch.sides]
            divergence = divergence if divergence is None else divergence[batch.sides]
        delta = logprobs - batch.reference
        plain = losses.answer_sums(delta, batch.counts)  # M, chosen and rejected in turn
        moved = losses.answer_sums(delta * batch.weights, batch.counts) if settings.loss == "wspin" else plain
        measured = {"moved": moved.detach(), "plain": plain.detach()}
        measured["logprobs"] = losses.answer_sums(logprobs.detach(), batch.counts)
        more = {}
        if divergence is not None:
            weighed = losses.answer_sums(divergence * batch.weights, batch.counts)
            more = {"alpha": settings.alpha, "divergence": weighed[0::2] - weighed[1::2]}
            measured["kl"] = weighed.detach()
        margin = moved[0::2] - moved[1::2]
        return losses.PREFERENCE[settings.loss](margin, settings.beta, settings.label_smoothing, **more), measured

    def _measure(self, answers: dict[str, Tensor]) -> None:
        """Rewards as the loss sees them and unweighted, sequence log-probabilities; guards a step's first margin."""
        if self.settings.loss == "sft":
            self.measured = {}
            return
        moved, plain, logprobs = (answers[key] for key in ("moved", "plain", "logprobs"))
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
        if "kl" in answers:
            kl = answers["kl"]
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


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Each value's parts one behind the other, on the CPU."""
    return {key: torch.cat([part[key].cpu() for part in parts]) for key in (parts[0] if parts else ())}


def rewards(name: str, moved: Tensor, beta: float) -> dict[str, float]:
    """Means over pairs of beta M, nats, from M of chosen and rejected in turn (2 B,); share of positive margins."""
    margin = moved[0::2] - moved[1::2]
    return {
        f"{name}/chosen": beta * float(moved[0::2].mean()),
        f"{name}/rejected": beta * float(moved[1::2].mean()),
        f"{name}/margin": beta * float(margin.mean()),
        f"{name}/accuracy": float((margin > 0).float().mean()),
    }


def sft_scale(answers: Sequence[int], settings: Train) -> float:
    """Factor of a summed negative log-likelihood in a step with answers of so many tokens: per token, or per row.

    Either way a last step with fewer rows weighs less, so that every row of an epoch counts the same.
    """
    per_row = 1.0 / settings.global_batch
    return per_row if settings.reduction == "sum" else per_row * len(answers) / sum(answers)


def smaller(token_budget: int, lengths: Sequence[Lengths]) -> int:
    """Half the budget, of what the step's micro-batches had. Raises `StudyError` where they were single items."""
    largest = max(map(sum, lengths))
    if token_budget <= largest:
        raise StudyError(f"train: out of memory on a single item of {largest} tokens; use a GPU with more memory")
    return max(largest, min(token_budget, sum(map(sum, lengths))) // 2)


def optimizer(settings: Train) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The optimiser with torch's defaults, over all tensors at once where it can."""
    made, more = {
        "rmsprop": (torch.optim.RMSprop, {"foreach": True}),
        "adamw": (torch.optim.AdamW, {"fused": True}),
    }[settings.optimizer]
    return made, {"lr": settings.learning_rate, **more}


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


def train(
    model: Any, items: Sequence[Item], settings: Train, precision: str, seed: Sequence[int], state: Path
) -> dict[str, float]:
    """Train `model` in place on all items; returns the seconds spent over all attempts, and how fast it was.

    Saves its state in `state` every `save_every` steps and starts from the last one that is whole. The curve is
    `state/metrics.jsonl`, one line per step. Raises `StudyError` on a model that the layout cannot read, a loss that is
    not finite, if the first margin exceeds its bound, or after a training that was asked to stop (see `grace`).
    """
    check_model(model)
    steps = plan(len(items), seed, items_per_step(items, settings), settings.epochs)
    rate = matmul_rate(model.device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    journal, saved = Journal(state, rate * processes()), last_saved(state)
    with asked_to_stop() as asked, shared_prefix(model):
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
    from wspin.sharding import ShardedTrainer

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
