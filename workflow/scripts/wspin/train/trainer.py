"""The trainer: a thin `transformers.Trainer` whose batches come from a plan and whose losses come from `losses`.

One item of the data loader is one optimiser step: `gradient_accumulation_steps` stays 1, and `training_step` loops over
the micro-batches, each scaled by its share of `global_batch`. Several processes share the items of every step. So a
step is the same on any number of devices and with any amount of memory, and resuming means to continue the plan at an
index with the Trainer's own state.
"""

import copy
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer

from wspin.config.losses import LOSS_INPUTS, divergence_read
from wspin.config.stages import Train
from wspin.engine.batches import Step, rank_passes
from wspin.engine.flops import Cost
from wspin.engine.logprobs import autocast, patched_forward
from wspin.engine.packing import Batch, Item, Lengths, pack
from wspin.errors import StudyError
from wspin.storage.files import writing

from . import losses
from .distributed import gather, rank, world_size

# With torch's defaults, in their fused or multi-tensor implementation
OPTIMIZERS = {"rmsprop": (torch.optim.RMSprop, {"foreach": True}), "adamw": (torch.optim.AdamW, {"fused": True})}


@dataclass(frozen=True)
class StepTotals:
    """What the passes of a step add up to, in one process or in all."""

    loss: Tensor  # scaled, on the CPU: ()
    answer_sums: dict[str, Tensor]  # see `PlannedTrainer._preference_loss`; empty for sft
    computed: int  # FLOPs
    stop_requested: bool

    @classmethod
    def over_ranks(cls, ranks: Sequence[Self]) -> Self:
        return cls(
            loss=torch.stack([totals.loss for totals in ranks]).sum(),
            answer_sums=concatenated([totals.answer_sums for totals in ranks if totals.answer_sums]),
            computed=sum(totals.computed for totals in ranks),
            stop_requested=any(totals.stop_requested for totals in ranks),
        )


class PlannedTrainer(Trainer):
    """Takes the steps of a plan; see the module's docstring."""

    sharded = False  # whether every pass is a collective (FSDP), or only the last one of a step (DDP)

    def __init__(
        self, settings: Train, precision: str, items: Sequence[Item], stop_requested: Callable[[], bool], **more: Any
    ):
        super().__init__(optimizer_cls_and_kwargs=optimizer(settings), **more)
        self.settings, self.precision, self.items, self.stop_requested = settings, precision, items, stop_requested
        self.lengths = [item.lengths for item in items]
        self.token_budget = settings.token_budget
        self.cost = Cost.of(self.model)
        self.inputs = LOSS_INPUTS[settings.loss]
        self.divergence = losses.DIVERGENCES.get(divergence_read(settings.loss, settings.alpha))
        self.reference_model = copy.deepcopy(self.model).requires_grad_(False).eval() if self.divergence else None
        self.step_metrics: dict[str, float] = {}
        self.in_collective = False  # in a pass in which the other processes take part

    def get_train_dataloader(self) -> DataLoader:
        """The plan in its own order: it is shuffled already, and every process gets whole steps."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=operator.itemgetter(0))

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> Tensor:
        """Add the gradient of one optimiser step, scaled by pairs / global_batch; returns the mean loss of its pairs.

        (Loss sft: of its tokens or rows, see `reduction`.) If memory runs out, the step is repeated in smaller
        micro-batches. Raises `StudyError` if a single item does not fit, or if other processes took part in the pass.
        """
        model.train()
        while True:
            try:
                return self._step(model, inputs)
            except torch.OutOfMemoryError:
                if self.in_collective:
                    found = f"found too little for {self.token_budget} tokens in a pass of all processes; lower it"
                    raise StudyError(f"train.token_budget: expected memory for every pass, {found}") from None
                self.token_budget = halved_budget(self.token_budget, [self.lengths[i] for i in inputs])
                print(f"train: out of memory; continuing with token_budget {self.token_budget}", flush=True)
            model.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _step(self, model: Any, step: Step) -> Tensor:
        items = [self.items[i] for i in step]
        scale = loss_scale(items, self.settings) * world_size()
        totals = StepTotals.over_ranks(gather(self._run_passes(model, step, scale)))
        self.step_metrics = {
            **self._preference_metrics(totals.answer_sums),
            "work/tokens": sum(sum(item.lengths) for item in items),
            "work/needed": self.cost.training_needed(items, self.divergence is not None),
            "work/computed": totals.computed,
        }
        if totals.stop_requested:
            self.control.should_save = self.control.should_training_stop = True
        pairs = sum(item.pairs for item in items)
        mean = totals.loss / world_size() * self.settings.global_batch / pairs
        return mean.to(self.args.device)

    def _run_passes(self, model: Any, step: Step, scale: float) -> StepTotals:
        """Add the gradient of this process's share of a step; its totals."""
        loss, answer_sums, computed = [torch.zeros(())], [], 0
        passes = rank_passes(self.lengths, step, world_size(), rank(), self.token_budget, self.sharded)
        with patched_forward(self.accelerator.unwrap_model(model)):
            for number, (indices, counted) in enumerate(passes, 1):
                batch = pack([self.items[i] for i in indices])
                computed += self.cost.training_computed(batch, self.divergence is not None)
                self.in_collective = world_size() > 1 and (self.sharded or number == len(passes))
                with nullcontext() if self.in_collective else self.accelerator.no_sync(model):
                    pass_loss, sums = self._pass(model, batch.to(self.args.device), scale if counted else 0.0)
                if counted:
                    loss.append(pass_loss.cpu())
                    answer_sums.append(sums)
        self.in_collective = False
        return StepTotals(torch.stack(loss).sum(), concatenated(answer_sums), computed, self.stop_requested())

    def _pass(self, model: Any, batch: Batch, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of one micro-batch; its scaled loss (), and the sums of its answers."""
        with autocast(self.args.device, self.precision):
            logprobs, divergence = model(batch, self.divergence, self.reference_model)
        if not self.inputs.pairs:
            loss, answer_sums = losses.sft(logprobs) * scale, {}
        else:
            of_pairs, answer_sums = self._preference_loss(logprobs, batch, divergence)
            loss = of_pairs.sum() * scale
        self.accelerator.backward(loss)
        return loss.detach(), answer_sums

    def _preference_loss(
        self, logprobs: Tensor, batch: Batch, divergence: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every pair (B,), and sums over answers (2 B,), chosen and rejected in turn: M, M_W, ..."""
        settings = self.settings
        if batch.side_tokens is not None:
            logprobs = logprobs[batch.side_tokens]
            divergence = divergence if divergence is None else divergence[batch.side_tokens]
        delta = logprobs - batch.reference
        own = self._weighted(logprobs if settings.reference_free else delta, batch)
        weighted_logratios = losses.answer_sums(own, batch.counts)
        sums = {"weighted_logratios": weighted_logratios.detach()}
        sums["logratios"] = losses.answer_sums(delta.detach(), batch.counts)
        sums["logprobs"] = losses.answer_sums(logprobs.detach(), batch.counts)
        options = {key: getattr(settings, key) for key in self.inputs.keys}
        if divergence is not None:
            kl = losses.answer_sums(self._weighted(divergence, batch), batch.counts)
            options |= {"chosen_kl": kl[0::2], "rejected_kl": kl[1::2]}
            sums["kl"] = kl.detach()
        margin = weighted_logratios[0::2] - weighted_logratios[1::2]
        return losses.PREFERENCE[settings.loss](margin, **options), sums

    def _weighted(self, values: Tensor, batch: Batch) -> Tensor:
        """Values of the sides' tokens (S,), times their weights if the loss has any."""
        return values * batch.weights if self.inputs.weights else values

    def _preference_metrics(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Weighted and unweighted rewards and sequence log-probabilities; checks the first margin of a training."""
        settings = self.settings
        if not self.inputs.pairs:
            return {}
        logratios, rewards = sums["logratios"], sums["weighted_logratios"]
        if "kl" in sums:
            rewards = rewards + losses.kl_factor(settings.loss, settings.alpha) * sums["kl"]
        largest = float((logratios[0::2] - logratios[1::2]).abs().max())
        # A reference-free loss has a margin of its own from the start, and no reference that could spoil it.
        if self.state.global_step == 0 and not settings.reference_free:
            check_first_margin(largest, settings, self.precision)
        metrics = {
            **reward_metrics("rewards", rewards, settings.beta),
            **reward_metrics("unweighted", logratios, settings.beta),
            "margin/largest": largest,
            **side_means("logprobs", sums["logprobs"]),
        }
        return metrics | (side_means("kl", sums["kl"]) if "kl" in sums else {})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of the step to the Trainer's. Raises `StudyError` if the loss or gradient is not finite."""
        if "loss" in logs:
            logs = {**logs, **self.step_metrics}
            loss, norm = logs["loss"], logs.get("grad_norm", 0.0)
            if not math.isfinite(loss) or not math.isfinite(norm):
                found = f"expected a finite loss and gradient, found loss {loss}, gradient norm {norm}"
                raise StudyError(f"step {self.state.global_step}: {found}")
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with writing(self.args.output_dir, Exception):
            super()._save_checkpoint(model, trial)
        gather(None)  # rank 0 marks the state as complete: the files of all ranks are there

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the Trainer's estimate expects a dictionary of padded inputs


def optimizer(settings: Train) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The optimiser with torch's defaults, over all tensors at once where torch can, and its options."""
    kind, implementation = OPTIMIZERS[settings.optimizer]
    return kind, {"lr": settings.learning_rate, **implementation}


def concatenated(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of each key concatenated, on the CPU."""
    return {key: torch.cat([part[key].cpu() for part in parts]) for key in (parts[0] if parts else ())}


def reward_metrics(name: str, logratios: Tensor, beta: float) -> dict[str, float]:
    """Mean rewards beta M and margins in nats, from M (2 B,) of chosen and rejected in turn; share of margins > 0.

    For the rewards of the loss M holds its weights and its KL term, see `losses.kl_factor`.
    """
    margin = logratios[0::2] - logratios[1::2]
    return {
        **side_means(name, logratios, beta),
        f"{name}/margin": beta * float(margin.mean()),
        f"{name}/accuracy": float((margin > 0).float().mean()),
    }


def side_means(name: str, values: Tensor, factor: float = 1.0) -> dict[str, float]:
    """Means over the chosen and over the rejected answers, of values (2 B,) of both in turn."""
    sides = (("chosen", values[0::2]), ("rejected", values[1::2]))
    return {f"{name}/{side}": factor * float(of_side.mean()) for side, of_side in sides}


def loss_scale(items: Sequence[Item], settings: Train) -> float:
    """Factor of a step's summed loss: per pair or row, or per token for sft with `reduction: token_mean`.

    A last step with fewer items counts less, so that every item of an epoch counts the same.
    """
    per_row = 1.0 / settings.global_batch
    if settings.loss != "sft" or settings.reduction == "sum":
        return per_row
    return per_row * len(items) / sum(len(item.responses[0]) for item in items)


def halved_budget(token_budget: int, lengths: Sequence[Lengths]) -> int:
    """Half the tokens of the step's largest micro-batch. Raises `StudyError` if that was a single item."""
    largest = max(map(sum, lengths))
    if token_budget <= largest:
        raise StudyError(f"train: out of memory on a single item of {largest} tokens; use a GPU with more memory")
    return max(largest, min(token_budget, sum(map(sum, lengths))) // 2)


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
