"""What a training keeps beside its model: the curve, the time spent, and marks of complete saves.

The curve holds only what is the same in every run of a training. Its speed goes to the log and the model's record.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from wspin.errors import StudyError
from wspin.storage.files import file_hashes, read_json, sync, write_checked_json, writing
from wspin.storage.opening import regular
from wspin.storage.permissions import take_modes

from .distributed import rank

PROGRESS_STEPS = 10  # between two lines of progress
COMPLETE = "complete"  # a file in a saved state all of whose files are on the disk, with their hashes


class Journal(TrainerCallback):
    """Keeps the curve and the time spent, marks complete saves, prints the progress; `rate`: FLOPs/s of all devices."""

    def __init__(self, state: Path, rate: float):
        self.curve, self.time_spent, self.rate = state / "metrics.jsonl", state / "spent.json", rate
        self.started = time.time()
        self.earlier = seconds_spent(self.time_spent)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin with the curve of the saved state."""
        saved = saved_folder(args, state) / self.curve.name
        with writing(self.curve), open(self.curve, "wb", opener=regular) as file:
            file.write(saved.read_bytes() if state.global_step else b"")
        self.first_step, self.lap_started, self.lap_steps = state.global_step, time.time(), []
        resumed = ", resumed" if state.global_step else ""
        print(f"train: step {state.global_step} of {state.max_steps}{resumed}", flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        step = state.global_step
        entry = {"step": step, **{key: value for key, value in logs.items() if key != "epoch"}}
        with writing(self.curve), open(self.curve, "a", opener=regular) as file:
            file.write(json.dumps(entry) + "\n")
        self.lap_steps.append(logs)
        if step % PROGRESS_STEPS == 0 or step == state.max_steps:
            write_checked_json(self.time_spent, {"seconds": self.seconds()})
            lap = speed(self.lap_steps, time.time() - self.lap_started, self.rate)
            self.lap_started, self.lap_steps = time.time(), []
            left = (time.time() - self.started) / (step - self.first_step) * (state.max_steps - step)
            margin = f"  margin {logs['rewards/margin']:+.4f}" if "rewards/margin" in logs else ""
            rates = f"{lap['tokens_per_second']:.0f} tokens/s  utilisation {lap['utilisation']:.2f}"
            progress = f"step {step} of {state.max_steps}  loss {logs['loss']:.4f}{margin}  {rates}"
            print(f"train: {progress}  {left:.0f} s left", flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = saved_folder(args, state)
        with writing(saved):
            shutil.copyfile(self.curve, saved / self.curve.name)
            for file in saved.iterdir():
                sync(file)
        write_checked_json(self.time_spent, {"seconds": self.seconds()})
        mark_complete(saved)

    def seconds(self) -> float:
        """Time over all attempts."""
        return self.earlier + time.time() - self.started

    def speed(self) -> dict[str, float]:
        """Time over all attempts, and the resulting speed: steps that were lost and repeated count once."""
        curve = [json.loads(line) for line in self.curve.read_text().splitlines()]
        return {"seconds": round(self.seconds(), 1), **speed(curve, self.seconds(), self.rate)}


def speed(steps: Sequence[dict[str, float]], seconds: float, rate: float) -> dict[str, float]:
    """Input tokens per second, and utilisation: the FLOPs that the steps need per second, as a share of `rate`."""
    tokens, needed = (sum(step[f"work/{part}"] for step in steps) for part in ("tokens", "needed"))
    return {"tokens_per_second": round(tokens / seconds, 1), "utilisation": round(needed / seconds / rate, 4)}


def seconds_spent(path: Path) -> float:
    """The time of earlier attempts; zero, with a line, where the file is damaged."""
    try:
        spent = read_json(path, "the time spent", "counting from now").get("seconds")
        if isinstance(spent, (int, float)):
            return spent
        raise StudyError(f"{path}: seconds: expected a number, found {spent!r}; counting from now")
    except FileNotFoundError:
        return 0.0
    except StudyError as error:
        print(f"train: {error}", flush=True)
        return 0.0


def saved_folder(args: Any, state: Any) -> Path:
    """Where the Trainer saves its state."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def mark_complete(saved: Path) -> None:
    """Mark a saved state as complete, with the hashes of its files, after giving these the modes of new ones."""
    take_modes(saved)
    names = sorted(file.name for file in saved.iterdir() if file.name != COMPLETE)
    write_checked_json(saved / COMPLETE, {"files": file_hashes(saved, names)})


def last_saved(state: Path) -> Path | None:
    """The latest complete save whose files are those that were saved; a line for each damaged one."""
    saved = [path.parent for path in state.glob(f"checkpoint-*/{COMPLETE}")]
    for folder in sorted(saved, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if is_whole(folder):
            return folder
        if rank() == 0:
            print(f"train: {folder}: damaged; its steps are repeated", flush=True)
    return None


def is_whole(saved: Path) -> bool:
    """Whether the files of a saved state have the hashes in its mark. Raises PermissionError if one may not be read."""
    for file in saved.iterdir():
        if not os.access(file, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    with contextlib.suppress(StudyError, OSError):
        files = read_json(saved / COMPLETE, "hashes of the files", "").get("files")
        return isinstance(files, dict) and file_hashes(saved, files) == files
    return False
