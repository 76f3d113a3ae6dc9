"""The name of an iteration, `{arm}/ite{k}`: written and parsed here, and nowhere else."""

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
