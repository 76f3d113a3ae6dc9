"""Generation against `generate` of transformers: tokens per second, and the share of slot-steps that give a token.

Random models do not generate EOS. The uniform numbers force it: zero draws the first id, which is EOS, and no other
number is small enough for that. So the answers have the lengths that the benchmark sets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wspin.config.stages import Generate
from wspin.generate import transformers_engine

from ..measure import Clock, Row, interleaved
from ..peers import arrival_order
from . import shapes
from .shapes import EOS, Case, Lengths

ANSWERS = Lengths(128, 0.8, 256)
ABOVE_EOS = 0.1  # larger uniform numbers do not draw EOS
MIN_SAME = 0.9  # share of equal answers; in others rounding moves a uniform number over the border of two tokens


@dataclass(frozen=True, kw_only=True)
class GenerationCase(Case):
    batch_size: int  # rows decoded together, chosen for this processor's caches
    published_batch_size: int = 8


FULL = (
    GenerationCase("tiny", shapes.TINY, 96, 3, batch_size=32),
    GenerationCase("small", shapes.SMALL, 48, 3, batch_size=16),
)
QUICK = (GenerationCase("minute", shapes.MINUTE, 8, 1, batch_size=8, published_batch_size=2, scale=1 / 16),)


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in QUICK if quick else FULL:
        task = Task(case)
        contenders = {"ours": task.ours}
        for size in (case.published_batch_size, case.batch_size):
            contenders[f"generate, batch {size}"] = partial(task.transformers_generate, size)
        yield from interleaved("generating", case.name, contenders, case.rounds)


class Task:
    """One model, its prompts and the uniform numbers that draw the answers."""

    def __init__(self, case: GenerationCase):
        self.model = shapes.model(case.shape).eval()
        self.prompts = [item.prompt.tolist() for item in case.conversations()]
        lengths = ANSWERS.scaled(case.scale)
        self.lengths = lengths.draw(case.pairs, np.random.default_rng(1))
        self.numbers = np.random.default_rng(2).uniform(ABOVE_EOS, 1.0, (case.pairs, lengths.most))
        for row, length in zip(self.numbers, self.lengths, strict=True):
            row[length - 1] = 0.0
        self.settings = Generate(
            engine="transformers",
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=lengths.most,
            batch_size=case.batch_size,
        )
        self.first_answers: list[list[int]] | None = None  # of the first contender

    def ours(self) -> dict[str, Any]:
        clock = Clock()
        with clock:
            answers, work = transformers_engine.generate(self.model, self.prompts, self._uniforms, self.settings, EOS)
        return self._quantities(clock, [answer.ids for answer in answers], work.slot_steps)

    def transformers_generate(self, batch_size: int) -> dict[str, Any]:
        clock = Clock()
        with clock:
            answers, slot_steps = arrival_order.generate(
                self.model, self.prompts, self._uniforms, self.settings, EOS, batch_size
            )
        return self._quantities(clock, answers, slot_steps)

    def _uniforms(self, prompt: int) -> np.ndarray:
        return self.numbers[prompt]

    def _quantities(self, clock: Clock, answers: list[list[int]], slot_steps: int) -> dict[str, Any]:
        """What was measured. Raises `AssertionError` if the answers differ from those of the first contender."""
        assert [len(answer) for answer in answers] == self.lengths.tolist(), "answers of other lengths than set"
        self.first_answers = self.first_answers or answers
        same = sum(a == b for a, b in zip(answers, self.first_answers, strict=True)) / len(answers)
        assert same >= MIN_SAME, f"{same:.0%} of the answers are the same"
        tokens = int(self.lengths.sum())
        useful = (tokens - len(answers)) / slot_steps
        return {**clock.quantities(), "tokens": tokens, "slot_steps": slot_steps, "useful": useful, "same": same}
