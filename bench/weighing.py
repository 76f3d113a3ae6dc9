"""Token weights: two models read human and generated answers, and every token gets its weight.

What our side reads is told in parts, from which the page puts iterations together: a teacher reads human answers once
for all iterations, and the student's reading is the reference that training needs anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wspin.config.stages import Weigh
from wspin.engine.packing import Item
from wspin.logprobs.score import score_items
from wspin.weigh import weights
from wspin.weigh.alignment import align_ids
from wspin.weigh.inputs import AlignedAnswer

from . import shapes
from .measure import Clock, Row, interleaved
from .peers import published_weights
from .shapes import EOS, Shape
from .training import TOKEN_BUDGET

SETTINGS = Weigh(
    source="teacher",
    form="exp_clamp",
    k=1.0,
    mu_chosen=1.0,
    mu_rejected=-1.0,
    lower=-0.5,
    upper=1.5,
    segment_agg="paper_mean",
    control="none",
    normalise="none",
    eos_weight=1.0,
)
AGREE = 1e-3  # difference of weights


@dataclass(frozen=True)
class Case:
    name: str
    student: Shape
    teacher: Shape
    pairs: int
    rounds: int
    scale: float = 1.0


FULL = (
    Case("tiny", shapes.TINY, shapes.TINY, 48, 3),
    Case("tiny, larger teacher", shapes.TINY, shapes.TEACHER, 24, 3),
    Case("small", shapes.SMALL, shapes.SMALL, 8, 3),
)
QUICK = (Case("minute", shapes.MINUTE, shapes.MINUTE, 8, 1, scale=1 / 16),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        task = Task(case)
        contenders = {"ours": task.ours, "published": task.published}
        yield from interleaved("weighing", case.name, contenders, case.rounds)


class Task:
    def __init__(self, case: Case):
        self.student, self.teacher = (
            shapes.model(case.student, seed=0).eval(),
            shapes.model(case.teacher, seed=1).eval(),
        )
        self.items = shapes.conversations(case.pairs, case.student.vocabulary, scale=case.scale)
        # A teacher reads the text, and the text has no EOS.
        self.texts = [replace(item, responses=tuple(answer[:-1] for answer in item.responses)) for item in self.items]
        self.made: list[np.ndarray] | None = None  # by the first contender

    def ours(self) -> dict[str, Any]:
        clocks = {part: Clock() for part in ("student", "teacher", "teacher_again", "weights")}
        generated = [replace(item, responses=item.responses[1:]) for item in self.texts]
        with clocks["student"]:
            student = self._score(self.student, self.items)
        with clocks["teacher"]:
            teacher = self._score(self.teacher, self.texts)
        with clocks["teacher_again"]:
            self._score(self.teacher, generated)
        with clocks["weights"]:
            made = [_weighed(place, student, teacher) for place in (0, 1)]
        self._check([weights[:-1] for side in made for weights in side])
        return {name: value for part, clock in clocks.items() for name, value in clock.told(f"{part}_").items()}

    def published(self) -> dict[str, Any]:
        clock = Clock()
        with clock:
            made = published_weights.weights(self.teacher, self.student, self.items, EOS, SETTINGS)
        self._check([np.array(weights) for side in made for weights in side])
        return clock.told()

    def _score(self, model: Any, items: Sequence[Item]) -> list[list[np.ndarray]]:
        return score_items(model, items, TOKEN_BUDGET, "float32")

    def _check(self, made: list[np.ndarray]) -> None:
        """Raises `AssertionError` if the weights are not those of the first contender."""
        self.made = self.made or made
        for ours, theirs in zip(self.made, made, strict=True):
            assert ours.shape == theirs.shape, f"expected {len(ours)} weights, found {len(theirs)}"
            assert np.abs(ours - theirs).max() <= AGREE, f"weights differ by {np.abs(ours - theirs).max():.2g}"


def _weighed(place: int, student: list[list[np.ndarray]], teacher: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Weights of one side's answers, EOS included."""
    answers = []
    for row, (own, their) in enumerate(zip(student, teacher, strict=True)):
        ours, theirs = own[place][:-1].astype(np.float64), their[place].astype(np.float64)
        answers.append(AlignedAnswer(str(row), True, ours, theirs, align_ids(len(ours), len(theirs))))
    return weights.weight_side(("chosen", "rejected")[place], answers, SETTINGS, (0,))[0]
