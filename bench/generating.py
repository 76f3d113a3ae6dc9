"""Generation: answers per second, and the share of the decoding slots that gave a token, against `generate`.

Random models do not end their answers. The uniform numbers do it: a zero draws the first id, which is EOS, and no other
number is small enough for that; so the answers' lengths are those that the benchmark asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wspin.config.stages import Generate
from wspin.generate import transformers_engine

from . import shapes
from .measure import Clock, Row, interleaved
from .peers import arrival_order
from .shapes import EOS, Lengths, Shape

ANSWERS = Lengths(128, 0.8, 256)
ABOVE_EOS = 0.1  # uniform numbers from here on do not draw EOS
SAME = 0.9  # of the answers; in others a number falls on the border of two tokens, which rounding moves


@dataclass(frozen=True)
class Case:
    name: str
    shape: Shape
    prompts: int
    rounds: int
    batch_size: int
    theirs: int = 8
    scale: float = 1.0


# Rows decoded together as this processor's caches like it; `theirs` is what the published scripts do.
FULL = (Case("tiny", shapes.TINY, 96, 3, batch_size=32), Case("small", shapes.SMALL, 48, 3, batch_size=16))
QUICK = (Case("minute", shapes.MINUTE, 8, 1, batch_size=8, theirs=2, scale=1 / 16),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        task = Task(case)
        contenders = {
            "ours": task.ours,
            f"generate, batch {case.theirs}": partial(task.theirs, case.theirs),
            f"generate, batch {case.batch_size}": partial(task.theirs, case.batch_size),
        }
        yield from interleaved("generating", case.name, contenders, case.rounds)


class Task:
    def __init__(self, case: Case):
        self.case, self.model = case, shapes.model(case.shape).eval()
        items = shapes.conversations(case.prompts, case.shape.vocabulary, scale=case.scale)
        self.prompts = [item.prompt.tolist() for item in items]
        lengths = ANSWERS.scaled(case.scale)
        self.lengths = lengths.draw(case.prompts, np.random.default_rng(1))
        self.numbers = np.random.default_rng(2).uniform(ABOVE_EOS, 1.0, (case.prompts, lengths.most))
        for row, length in zip(self.numbers, self.lengths, strict=True):
            row[length - 1] = 0.0
        self.settings = Generate(
            engine="transformers",
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=lengths.most,
            batch_size=case.batch_size,
        )
        self.made: list[list[int]] | None = None  # by the first contender

    def ours(self) -> dict[str, Any]:
        clock = Clock()
        with clock:
            answers, work = transformers_engine.generate(self.model, self.prompts, self._uniforms, self.settings, EOS)
        return self._told(clock, [answer.ids for answer in answers], work.slot_steps)

    def theirs(self, batch_size: int) -> dict[str, Any]:
        clock = Clock()
        with clock:
            made = arrival_order.generate(self.model, self.prompts, self._uniforms, self.settings, EOS, batch_size)
        return self._told(clock, *made)

    def _uniforms(self, prompt: int) -> np.ndarray:
        return self.numbers[prompt]

    def _told(self, clock: Clock, answers: list[list[int]], slot_steps: int) -> dict[str, Any]:
        """Raises `AssertionError` if the answers are not those of the first contender."""
        assert [len(answer) for answer in answers] == self.lengths.tolist(), "answers of other lengths than asked for"
        self.made = self.made or answers
        same = sum(a == b for a, b in zip(answers, self.made, strict=True)) / len(answers)
        assert same >= SAME, f"{same:.0%} of the answers are the same"
        tokens = int(self.lengths.sum())
        told = {
            "tokens": tokens,
            "slot_steps": slot_steps,
            "useful": (tokens - len(answers)) / slot_steps,
            "same": same,
        }
        return {**clock.told(), **told}
