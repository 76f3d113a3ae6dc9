"""Token weights: two models score human and generated answers, and every token gets its weight.

Our passes are measured in parts, which the page adds up to iterations: the teacher scores human answers once for all
iterations, and the student's scores are the reference that training needs anyway.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wspin.config.sources import Scratch
from wspin.config.weigh import Weigh
from wspin.engine.packing import Item
from wspin.logprobs.score import score_items
from wspin.weigh import weights
from wspin.weigh.alignment import align_ids
from wspin.weigh.inputs import AlignedAnswer

from ..measure import Clock, Row, interleaved
from ..peers import published_weights
from . import shapes
from .shapes import EOS, Case
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
AGREE = 1e-3  # largest difference of weights


@dataclass(frozen=True, kw_only=True)
class WeighCase(Case):
    """`shape` is the student's."""

    teacher: Scratch


FULL = (
    WeighCase("tiny", shapes.TINY, 48, 3, teacher=shapes.TINY),
    WeighCase("tiny, larger teacher", shapes.TINY, 24, 3, teacher=shapes.TEACHER),
    WeighCase("small", shapes.SMALL, 8, 3, teacher=shapes.SMALL),
)
QUICK = (WeighCase("minute", shapes.MINUTE, 8, 1, teacher=shapes.MINUTE, scale=1 / 16),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        task = Task(case)
        contenders = {"ours": task.ours, "published": task.published}
        yield from interleaved("weighing", case.name, contenders, case.rounds)


class Task:
    """Student, teacher, and the answers whose tokens get weights."""

    def __init__(self, case: WeighCase):
        self.student = shapes.model(case.shape, seed=0).eval()
        self.teacher = shapes.model(case.teacher, seed=1).eval()
        self.items = case.conversations()
        # The teacher scores the text, which has no EOS.
        self.texts = [replace(item, responses=tuple(answer[:-1] for answer in item.responses)) for item in self.items]
        self.first_weights: list[np.ndarray] | None = None  # of the first contender

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
            sides = [_side_weights(side, student, teacher) for side in (0, 1)]
        self._check([weights[:-1] for side in sides for weights in side])
        return {name: value for part, clock in clocks.items() for name, value in clock.quantities(f"{part}_").items()}

    def published(self) -> dict[str, Any]:
        clock = Clock()
        with clock:
            sides = published_weights.weights(self.teacher, self.student, self.items, EOS, SETTINGS)
        self._check([np.array(weights) for side in sides for weights in side])
        return clock.quantities()

    def _score(self, model: Any, items: Sequence[Item]) -> list[list[np.ndarray]]:
        return score_items(model, items, TOKEN_BUDGET, "float32")

    def _check(self, answers: list[np.ndarray]) -> None:
        """Raises `AssertionError` if the weights differ from those of the first contender."""
        self.first_weights = self.first_weights or answers
        for expected, found in zip(self.first_weights, answers, strict=True):
            assert expected.shape == found.shape, f"expected {len(expected)} weights, found {len(found)}"
            difference = np.abs(expected - found).max()
            assert difference <= AGREE, f"weights differ by {difference:.2g}"


def _side_weights(side: int, student: list[list[np.ndarray]], teacher: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Weights of one side's answers (0 chosen, 1 rejected), EOS included."""
    answers = []
    for row, (student_scores, teacher_scores) in enumerate(zip(student, teacher, strict=True)):
        ours = student_scores[side][:-1].astype(np.float64)  # without EOS, which the teacher does not score
        theirs = teacher_scores[side].astype(np.float64)
        answers.append(AlignedAnswer(str(row), True, -ours, theirs, align_ids(len(ours), len(theirs))))
    return weights.weight_side(("chosen", "rejected")[side], answers, SETTINGS, (0,))[0]
