"""Peak memory of one forward and backward pass over four pairs at a large vocabulary, above the loaded model.

Every contender runs in its own process, since the memory of a process never shrinks.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..measure import Row, in_new_process, interleaved
from . import shapes
from .shapes import EOS, Case

BETA = 0.1


FULL = (Case("wide", shapes.WIDE, 4, 3, scale=0.5),)
QUICK = (Case("minute", shapes.MINUTE, 4, 1, scale=1 / 16),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        contenders = {name: partial(in_new_process, peak, name, case) for name in PASSES}
        yield from interleaved("memory", case.name, contenders, case.rounds)


def peak(name: str, case: Case) -> dict[str, int]:
    """Peak bytes of a pass above those of the process with the model loaded."""
    run_pass = PASSES[name](shapes.model(case.shape), case.conversations())
    before = resident("VmRSS")
    run_pass()
    return {"bytes": max(0, resident("VmHWM") - before), "model_bytes": before}


def resident(field: str) -> int:
    """Resident bytes: VmRSS, now, or VmHWM, the peak since the process started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _ours(model: Any, items: list[Any]) -> Callable[[], None]:
    import numpy as np

    from wspin.engine.logprobs import token_logprobs
    from wspin.engine.packing import pack
    from wspin.train import losses

    scored = [replace(item, reference=tuple(np.zeros(len(ids)) for ids in item.responses)) for item in items]

    def run_pass() -> None:
        batch = pack(scored)
        logratios = losses.answer_sums(token_logprobs(model, batch) - batch.reference, batch.counts)
        losses.spin(logratios[0::2] - logratios[1::2], BETA).mean().backward()

    return run_pass


def _padded(model: Any, items: list[Any], answers_only: bool = False) -> Callable[[], None]:
    from torch.nn.functional import logsigmoid

    from ..peers import padded

    def run_pass() -> None:
        chosen, rejected = padded.answer_sums(model, padded.collate(items, EOS), answers_only).chunk(2)
        (-logsigmoid(BETA * (chosen - rejected))).mean().backward()

    return run_pass


def _trl(model: Any, items: list[Any]) -> Callable[[], None]:
    from ..peers import trl
    from . import training

    case = training.TrainingCase("memory", shapes.MINUTE, len(items), 1)
    arguments = replace(training.Task.of(case, "cpu").arguments(), output_dir=tempfile.mkdtemp())
    trainer = trl.trainer(model, copy.deepcopy(model), items, arguments, len(items), 1, BETA, None, [])
    trainer.ref_model, trainer.precompute_ref_logps = None, True  # set below
    batch = next(iter(trainer.get_train_dataloader()))
    zeros = batch["input_ids"].new_zeros(len(items)).float()
    batch |= {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}

    def run_pass() -> None:
        trainer.compute_loss(model, batch).backward()

    return run_pass


PASSES: dict[str, Callable[..., Callable[[], None]]] = {
    "ours": _ours,
    "padded": _padded,
    "padded, answers only": partial(_padded, answers_only=True),
    "TRL": _trl,
}
