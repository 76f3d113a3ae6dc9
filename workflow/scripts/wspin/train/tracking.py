"""Shows the curve of a training in an experiment tracker. The record is `metrics.jsonl`, whatever a tracker keeps.

Nothing leaves the machine unless the user's environment says so: TensorBoard and Trackio write files, and so does
Weights & Biases without WANDB_MODE=online. None of them gets a token from the study.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspin.config.trackers import missing_tracker
from wspin.errors import StudyError

from .distributed import rank

PROJECT = "wspin"


@dataclass(frozen=True)
class TrackedRun:
    """A training in a tracker: what it is called there, and the folder for its files."""

    tracker: str
    name: str
    folder: Path

    def arguments(self) -> dict[str, Any]:
        """The Trainer's arguments, in rank 0, which alone reports; sets what trackers read from the environment."""
        if rank() > 0:
            return {}
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.folder)
        defaults = {"WANDB_MODE": "offline", "WANDB_PROJECT": PROJECT, "WANDB_DIR": str(self.folder)}
        for variable, value in defaults.items():
            os.environ.setdefault(variable, value)
        return {"report_to": [self.tracker], "run_name": self.name, "project": PROJECT}


def tracked_run(tracker: str, metrics: str, state: Path) -> TrackedRun | None:
    """The run of a training that writes its curve to `metrics` and keeps its state in `state`; None without a tracker.

    Trainings of a model with other settings or inputs have other states, and are runs of their own. Raises `StudyError`
    if the tracker's package is not installed.
    """
    if message := missing_tracker(tracker):
        raise StudyError(message)
    model, fingerprint = Path(metrics).parent, state.name[:8]
    return (
        None if tracker == "none" else TrackedRun(tracker, f"{model}/{fingerprint}", model / "tracking" / fingerprint)
    )
