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
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer

from wspin.config.stages import Train
from wspin.engine.batches import Step, rank_passes
from wspin.engine.flops import BACKWARD, Cost
from wspin.engine.logprobs import autocast, patched_forward
from wspin.engine.packing import Batch, Item, Lengths, pack
from wspin.errors import StudyError
from wspin.storage.files import writing

from . import losses
from .distributed import gather, processes, rank


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
                batch = pack([self.items[i] for i in chosen])
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
        if batch.side_tokens is not None:
            logprobs = logprobs[batch.side_tokens]
            divergence = divergence if divergence is None else divergence[batch.side_tokens]
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
        with writing(self.args.output_dir, Exception):
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
