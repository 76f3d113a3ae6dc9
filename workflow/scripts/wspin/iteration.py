"""The names of iterations, of pairs trained in them, of a start model's answers: written and parsed here alone."""

import re
from typing import NamedTuple, Self


class Iteration(NamedTuple):
    """Round `k` of self-play of an arm."""

    arm: str
    k: int

    @property
    def name(self) -> str:
        """`{arm}/ite{k}`: its folder below the results, and the name of its model."""
        return f"{self.arm}/ite{self.k}"

    @staticmethod
    def pattern(arms: str) -> str:
        """A regular expression for the names of all iterations of the arms that the expression `arms` matches."""
        return rf"(?:{arms})/ite\d+"

    @classmethod
    def parse(cls, model: str) -> Self | None:
        """The iteration of this name; None for a model of the registry."""
        match = re.fullmatch(r"(.+)/ite(\d+)", model)
        return cls(match[1], int(match[2])) if match else None


class Contrast(NamedTuple):
    """One of the two models that an iteration trains to weigh its tokens (`weigh.retrain`)."""

    iteration: Iteration
    side: str  # plus: prefers the real answers; minus: the generated ones

    SIDES = ("plus", "minus")

    @property
    def name(self) -> str:
        """`{arm}/ite{k}/plus` or `/minus`: its folder below the results, and the name of the model."""
        return f"{self.iteration.name}/{self.side}"

    @classmethod
    def parse(cls, model: str) -> Self | None:
        """The model of this name; None for all others."""
        name, _, side = model.rpartition("/")
        iteration = Iteration.parse(name) if side in cls.SIDES else None
        return cls(iteration, side) if iteration else None


class StartAnswers(NamedTuple):
    """The answers of a start model that it gives with another seed than its own; iteration 0 of some arms."""

    start: str
    seed: int

    @property
    def name(self) -> str:
        """`{start}/s{seed}`: their folder below the results."""
        return f"{self.start}/s{self.seed}"

    @classmethod
    def parse(cls, responses: str) -> Self | None:
        """The answers of this name; None for other response sets."""
        match = re.fullmatch(r"([^/]+)/s(\d+)", responses)
        return cls(match[1], int(match[2])) if match else None
