"""Training, Trainer against Trainer: ours with its reference pass, TRL's DPOTrainer, and the padded forward pass.

All contenders take the same steps: same pairs in the same order, optimiser, clipping, schedule and precision, one log
line per step and no checkpoints. Loss and gradient norm of every step are asserted to agree.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from wspin.config.stages import Train
from wspin.engine.attention import shared_prefix
from wspin.engine.batches import plan_steps
from wspin.engine.flops import BACKWARD, Cost, matmul_rate, scoring_flops
from wspin.engine.packing import Item
from wspin.logprobs.score import score_items
from wspin.train.run import training_arguments
from wspin.train.trainer import PlannedTrainer, optimizer

from ..measure import Clock, Row, interleaved
from ..peers import padded
from . import shapes
from .shapes import Case

TOKEN_BUDGET = 2048  # of scoring and training; chosen for a processor's cache, as the peers' best micro-batch is
SETTINGS = Train.model_validate(
    {
        "loss": "spin",
        "beta": 0.1,
        "learning_rate": 1e-5,
        "epochs": 1,
        "global_batch": 8,
        "token_budget": TOKEN_BUDGET,
        "triplets": False,
        "gradient_checkpointing": False,
        "parallel": "ddp",
        "optimizer": "rmsprop",
        "schedule": {"warmup": 0.0, "decay": "linear"},
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "label_smoothing": 0.0,
        "margin_bound": {"float32": 1e-2, "bfloat16": 1.0},
        "save_every": 1_000_000,
        "report_to": "none",
    }
)
MICRO_BATCHES = ((8, 1), (4, 2), (2, 4), (1, 8))  # pairs of a micro-batch, micro-batches of a step
AGREE = {"cpu": 1e-4, "cuda": 5e-2}  # relative difference of loss and gradient norm; bfloat16 on a GPU


@dataclass(frozen=True, kw_only=True)
class TrainingCase(Case):
    micro_batches: tuple[tuple[int, int], ...] = MICRO_BATCHES
    per_step: int = 8
    token_budget: int = TOKEN_BUDGET
    answers_only: bool = True  # whether that variant of the padded forward pass is measured too


FULL = (
    TrainingCase("tiny", shapes.TINY, pairs=16, rounds=3),
    TrainingCase("small", shapes.SMALL, pairs=16, rounds=3, micro_batches=((1, 8),), answers_only=False),
)
GPU = (
    TrainingCase(
        "large", shapes.LARGE, pairs=128, rounds=2, micro_batches=((8, 8), (16, 4)), per_step=64, token_budget=8192
    ),
)
PEERS = ("trl", "padded")
QUICK = (
    TrainingCase("minute", shapes.MINUTE, pairs=8, rounds=1, micro_batches=((4, 1), (2, 2)), per_step=4, scale=1 / 16),
)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else {"cpu": FULL, "cuda": GPU}[device]:
        yield from measure("training", case, device, PEERS if device == "cpu" else installed_peers())


def installed_peers() -> list[str]:
    """TRL, and TRL with Liger's kernels, as far as an environment has them that was not made by `make setup`."""
    packages = {"trl": ("trl",), "liger": ("trl", "liger_kernel")}
    return [peer for peer, needed in packages.items() if all(map(find_spec, needed))]


def measure(benchmark: str, case: TrainingCase, device: str = "cpu", peers: Sequence[str] = PEERS) -> Iterator[Row]:
    """All contenders of a case in turn; on a GPU after a round that compiles."""
    task, warm_up = Task.of(case, device), int(device == "cuda")
    yield from task.sizes(benchmark)
    yield from interleaved(benchmark, case.name, task.contenders(peers), case.rounds, warm_up)
    if "liger" in peers:  # after all others, since it replaces parts of transformers for them too
        yield from interleaved(benchmark, case.name, task.liger_contenders(), case.rounds, warm_up)


class Curve(TrainerCallback):
    """Loss and gradient norm of every step, and the FLOPs that our trainer logs."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.flops = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.steps.append((float(logs["loss"]), float(logs["grad_norm"])))
            self.flops += int(logs.get("work/computed", 0))


@dataclass
class Task:
    """One model, its pairs, and the steps that every contender takes."""

    case: TrainingCase
    model: Any
    items: list[Item]
    steps: list[list[int]]  # indices of items
    settings: Train
    device: str
    state: str
    first_steps: list[tuple[float, float]] | None = None  # loss and gradient norm of the first contender

    @classmethod
    def of(cls, case: TrainingCase, device: str) -> Self:
        return cls(
            case=case,
            model=shapes.model(case.shape, device=device),
            items=case.conversations(),
            steps=plan_steps(case.pairs, (0,), case.per_step),
            settings=SETTINGS.model_copy(update={"global_batch": case.per_step, "token_budget": case.token_budget}),
            device=device,
            state=tempfile.mkdtemp(),
        )

    @property
    def precision(self) -> str:
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def ordered_items(self) -> list[Item]:
        """The items in the order of the steps."""
        return [self.items[i] for step in self.steps for i in step]

    def sizes(self, benchmark: str) -> Iterator[Row]:
        """Sizes of the model and the data, and the FLOPs that any forward pass over them needs."""
        lengths = np.array([[len(item.prompt), *map(len, item.responses)] for item in self.items])
        sizes = {"parameters": sum(weights.numel() for weights in self.model.parameters()), "pairs": len(self.items)}
        sizes |= {"steps": len(self.steps), "forward_flops": Cost.of(self.model).needed(self.items)}
        sizes |= dict(zip(("prompt", "chosen", "rejected"), lengths.mean(0).round(1).tolist(), strict=True))
        return (Row(benchmark, self.case.name, "", 0, name, value) for name, value in sizes.items())

    def arguments(self, micro_batch: int = 1, accumulation: int = 1) -> TrainingArguments:
        """The library's training arguments, without checkpoints, since no peer writes any here."""
        on_cpu = self.device == "cpu"
        return replace(
            training_arguments(self.settings, len(self.steps), 0, Path(self.state), on_cpu=on_cpu),
            save_strategy="no",
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
        )

    def contenders(self, peers: Sequence[str] = PEERS) -> dict[str, Callable[[], dict[str, Any]]]:
        contenders: dict[str, Callable[[], dict[str, Any]]] = {"ours": self.ours}
        for size, times in self.case.micro_batches if "trl" in peers else ():
            contenders[f"TRL, precomputed, {size} x {times}"] = partial(self.trl, size, times, in_loop=False)
            if self.device == "cpu":
                contenders[f"TRL, in the loop, {size} x {times}"] = partial(self.trl, size, times, in_loop=True)
        if "padded" in peers:
            contenders["padded"] = partial(self.padded, answers_only=False)
        if "padded" in peers and self.case.answers_only:
            contenders["padded, answers only"] = partial(self.padded, answers_only=True)
        return contenders

    def liger_contenders(self) -> dict[str, Callable[[], dict[str, Any]]]:
        sizes = self.case.micro_batches
        return {
            f"TRL, Liger, {n} x {times}": partial(self.trl, n, times, in_loop=True, liger=True) for n, times in sizes
        }

    def ours(self) -> dict[str, Any]:
        """Score the pairs with the start model, then train on them; the matmul rate is measured before and after."""
        rate = self._matmul_rate()
        model, scoring, training, curve = self._copy(), self._clock(), self._clock(), Curve()
        with scoring:
            reference = score_items(model, self.items, self.case.token_budget, self.precision)
        items = [replace(item, reference=tuple(scores)) for item, scores in zip(self.items, reference, strict=True)]
        trainer = PlannedTrainer(
            self.settings,
            self.precision,
            items,
            stop_requested=lambda: False,
            model=model,
            args=self.arguments(),
            train_dataset=self.steps,
            callbacks=[curve],
        )
        with shared_prefix(model):
            self._train(trainer, training)
        flops = scoring_flops(model, self.items, self.case.token_budget)["computed"] + curve.flops
        quantities = {"product_flops": max(rate, self._matmul_rate()), "flops": flops}
        return {**training.quantities(), **scoring.quantities("reference_"), **quantities, **self._compare(curve)}

    def padded(self, answers_only: bool) -> dict[str, Any]:
        model, training, curve = self._copy(), self._clock(), Curve()
        trainer = padded.PaddedTrainer(
            self.model.eval(),
            self.settings.beta,
            answers_only,
            optimizer(self.settings),
            model=model,
            args=self.arguments(self.case.per_step),
            train_dataset=self.ordered_items,
            data_collator=partial(padded.collate, pad=shapes.EOS),
            callbacks=[curve],
        )
        self._train(trainer, training)
        flops = self._padded_flops(self.case.per_step, answers_only)
        return {**training.quantities(), "flops": flops, **self._compare(curve)}

    def trl(self, micro_batch: int, accumulation: int, in_loop: bool, liger: bool = False) -> dict[str, Any]:
        from ..peers import trl  # slow to import, and not always installed

        model, training, curve = self._copy(), self._clock(), Curve()
        trainer = trl.trainer(
            model,
            self._copy() if in_loop else None,
            self.ordered_items,
            replace(self.arguments(), bf16=self.precision == "bfloat16"),
            micro_batch,
            accumulation,
            self.settings.beta,
            optimizer(self.settings),
            [curve],
            liger,
        )
        check_ids(trl.collated_ids(trainer), self.ordered_items, micro_batch)
        self._train(trainer, training)
        quantities = {} if in_loop else trainer.precomputing.quantities("reference_")
        quantities["flops"] = self._padded_flops(micro_batch)
        return {**training.quantities(), **quantities, **self._compare(curve)}

    def _padded_flops(self, micro_batch: int, answers_only: bool = False) -> int:
        """FLOPs of a peer's training: three forward passes for the policy, one for the reference."""
        return (1 + BACKWARD + 1) * padded.flops(Cost.of(self.model), self.ordered_items, micro_batch, answers_only)

    def _matmul_rate(self) -> float:
        return matmul_rate(self.model.device, getattr(torch, self.precision))

    def _copy(self) -> Any:
        return copy.deepcopy(self.model)

    def _clock(self) -> Clock:
        """A clock that counts the memory of a contender's copy, not that of the model copied."""
        size = sum(weights.numel() * weights.element_size() for weights in self.model.parameters())
        return Clock(self.device, size)

    def _train(self, trainer: Trainer, clock: Clock) -> None:
        trainer.remove_callback(PrinterCallback)
        with clock:
            trainer.train()

    def _compare(self, curve: Curve) -> dict[str, float]:
        """The largest relative difference to the steps of the first contender. Raises `AssertionError` if too large."""
        if self.first_steps is None:
            self.first_steps = curve.steps
        assert len(curve.steps) == len(self.steps), f"expected {len(self.steps)} steps, found {len(curve.steps)}"
        first, steps = np.array(self.first_steps), np.array(curve.steps)
        largest = float((np.abs(steps - first) / np.abs(first)).max())
        assert largest <= AGREE[self.device], f"steps differ by {largest:.2g}:\n{first}\n{steps}"
        return {"disagreement": largest}


def check_ids(conversations: Sequence[list[int]], items: Sequence[Item], micro_batch: int) -> None:
    """Assert that a peer's batches hold our tokens in our order: per micro-batch the chosen, then the rejected."""
    batches = [items[first : first + micro_batch] for first in range(0, len(items), micro_batch)]
    sides = [(item, side) for batch in batches for side in (0, 1) for item in batch]
    expected = [[*item.prompt.tolist(), *item.responses[side].tolist()] for item, side in sides]
    assert list(conversations) == expected, "the peer's batches hold other tokens"
