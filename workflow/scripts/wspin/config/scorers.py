"""The names of scorers, the models whose log-probabilities of the answers become token weights."""

from typing import NamedTuple, Self

STUDENT = "student"  # the model that gave the answers, or that a training on preference pairs starts from
NONE = "none"  # log-probability 0; YAML's null deletes an inherited key
NO_MODEL = (STUDENT, NONE)
SHIFTED = "shifted"  # the view that reads as the method's released code does, each token one position early
TEACHER_SOURCES = ("teacher", "swift_as_released")  # of weights, whose scorer is the arm's or the study's teacher


class Scorer(NamedTuple):
    """A model of the registry or an iteration's, seen through one of its `views` or in its own template."""

    model: str
    view: str | None = None

    @property
    def name(self) -> str:
        """`model` or `model@view`: its folder below the log-probabilities."""
        return f"{self.model}@{self.view}" if self.view else self.model

    @classmethod
    def parse(cls, name: str) -> Self:
        model, _, view = name.partition("@")
        return cls(model, view or None)
