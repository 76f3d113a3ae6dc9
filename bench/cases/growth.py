"""Growth of a training step's cost with its pairs, their length and the vocabulary, references included."""

from collections.abc import Iterator
from dataclasses import replace

from ..measure import Row, interleaved
from . import shapes, training
from .training import Task, TrainingCase

BASE = TrainingCase("", shapes.TINY, pairs=8, per_step=4, rounds=3, micro_batches=((1, 4),))
AXES = {"pairs": (2, 4, 8), "length": (0.5, 1.0, 2.0), "vocabulary": (2048, 8192, 32_768)}
CONTENDERS = ("ours", "TRL, precomputed, 1 x {}", "padded")


def run(quick: bool, device: str) -> Iterator[Row]:
    for axis, values in AXES.items():
        for value in values[:1] if quick else values:
            yield from point(axis, value, training.QUICK[0] if quick else BASE)


def point(axis: str, value: float, base: TrainingCase) -> Iterator[Row]:
    case = replace(base, name=f"{axis} {value}")
    if axis == "pairs":
        case = replace(case, per_step=int(value), pairs=2 * int(value))
    elif axis == "length":
        case = replace(case, scale=value * base.scale)
    else:
        case = replace(case, shape=base.shape.model_copy(update={"vocabulary": int(value)}))
    task = Task.of(replace(case, micro_batches=((1, case.per_step),)), "cpu")
    contenders = task.contenders()
    names = [name.format(case.per_step) for name in CONTENDERS]
    yield from task.sizes("growth")
    for row in interleaved("growth", case.name, {name: contenders[name] for name in names}, case.rounds):
        yield row._replace(contender=row.contender.split(",")[0])
