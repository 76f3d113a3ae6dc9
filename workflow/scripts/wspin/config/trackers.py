"""Experiment trackers that can show a training's curve beside its own record."""

from importlib.util import find_spec
from typing import Literal

Tracker = Literal["none", "tensorboard", "wandb", "trackio"]


def missing_tracker(tracker: str) -> str | None:
    """What to do where the package of a tracker, which has its name, is not installed; None if nothing is missing."""
    if tracker == "none" or find_spec(tracker):
        return None
    remedy = f"run `pip install {tracker}`, or set none"
    return f"train.report_to: expected the package {tracker} in this environment, found none; {remedy}"
