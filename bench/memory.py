"""Peak memory of one forward and backward pass over four pairs at a large vocabulary, above the loaded model.

Every contender runs in a process of its own, which grows once and never shrinks.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import shapes
from .measure import Row, apart, interleaved
from .shapes import EOS, Shape

BETA = 0.1


@dataclass(frozen=True)
class Case:
    name: str
    shape: Shape
    pairs: int
    rounds: int
    scale: float = 1.0


FULL = (Case("wide", shapes.WIDE, 4, 3, scale=0.5),)
QUICK = (Case("minute", shapes.MINUTE, 4, 1, scale=1 / 16),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        contenders = {name: partial(apart, peak, name, case) for name in PASSES}
        yield from interleaved("memory", case.name, contenders, case.rounds)


def peak(name: str, case: Case) -> dict[str, int]:
    """Bytes that a pass takes at most, above what the process had before it with the model loaded."""
    ready = PASSES[name](
        shapes.model(case.shape), shapes.conversations(case.pairs, case.shape.vocabulary, scale=case.scale)
    )
    before = _resident("VmRSS")
    ready()
    return {"bytes": max(0, _resident("VmHWM") - before), "model_bytes": before}


def _resident(field: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most since the process began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _ours(model: Any, items: list[Any]) -> Callable[[], None]:
    import numpy as np

    from wspin.engine.logprobs import token_logprobs
    from wspin.engine.packing import pack
    from wspin.train import losses

    known = [replace(item, reference=tuple(np.zeros(len(one)) for one in item.responses)) for item in items]

    def ready() -> None:
        batch = pack(known)
        moved = losses.answer_sums(token_logprobs(model, batch) - batch.reference, batch.counts)
        losses.spin(moved[0::2] - moved[1::2], BETA).mean().backward()

    return ready


def _padded(model: Any, items: list[Any], answers_only: bool = False) -> Callable[[], None]:
    from torch.nn.functional import logsigmoid

    from .peers import padded

    def ready() -> None:
        chosen, rejected = padded.answer_sums(model, padded.collate(items, EOS), answers_only).chunk(2)
        (-logsigmoid(BETA * (chosen - rejected))).mean().backward()

    return ready


def _trl(model: Any, items: list[Any]) -> Callable[[], None]:
    from . import training
    from .peers import trl

    case = training.Case("memory", shapes.MINUTE, len(items), 1)
    arguments = replace(training.Task.of(case, "cpu").arguments(), output_dir=tempfile.mkdtemp())
    made = trl.trainer(model, copy.deepcopy(model), items, arguments, len(items), 1, BETA, None, [])
    made.ref_model, made.precompute_ref_logps = None, True  # given below
    batch = next(iter(made.get_train_dataloader()))
    zeros = batch["input_ids"].new_zeros(len(items)).float()
    batch |= {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}

    def ready() -> None:
        made.compute_loss(model, batch).backward()

    return ready


PASSES: dict[str, Callable[..., Callable[[], None]]] = {
    "ours": _ours,
    "padded": _padded,
    "padded, answers only": partial(_padded, answers_only=True),
    "TRL": _trl,
}
