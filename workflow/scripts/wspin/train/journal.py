"""What a training keeps beside its model: the curve, the time spent, and marks of complete saves.

The curve holds only what is the same in every run of a training. Its speed goes to the log and the model's record.
"""

import contextlib
import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import TrainerCallback, TrainerState
from transformers.trainer_pt_utils import safe_globals

from wspin.errors import StudyError
from wspin.progress import EVERY, progress_line
from wspin.storage.files import file_hashes, read_json, sha256, sync, whole_file, write_checked_json, writing
from wspin.storage.names import path_below
from wspin.storage.opening import regular
from wspin.storage.permissions import take_modes

from .distributed import gather, rank

PROGRESS_STEPS = 10  # between two lines of progress, if they take less than `EVERY`
CURVE = "metrics.jsonl"
COMPLETE = "complete"  # a file in a saved state all of whose files are on the disk, with their hashes
PICKLED = {"optimizer.pt": {"state", "param_groups"}, "scheduler.pt": {"last_epoch"}}  # what their dicts hold
FOREIGN = ("scaler.pt", "pytorch_model*", "adapter*")  # files that the Trainer would load, and never saves here


class Journal(TrainerCallback):
    """Keeps the curve and the time spent, marks complete saves, prints the progress; `rate`: FLOPs/s of all devices."""

    def __init__(self, state: Path, rate: float):
        self.curve, self.time_spent, self.rate = state / CURVE, state / "spent.json", rate
        self.started = time.time()
        self.earlier = seconds_spent(self.time_spent)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin with the curve of the saved state."""
        saved = saved_folder(args, state) / self.curve.name
        with writing(self.curve), open(self.curve, "wb", opener=regular) as file:
            file.write(saved.read_bytes() if state.global_step else b"")
        self.first_step, self.lap_started, self.lap_steps = state.global_step, time.time(), []
        begin = progress_line("train", state.global_step, state.max_steps, "steps", 0, 0.0)
        print(begin + ", resumed" * (state.global_step > 0), flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        step = state.global_step
        entry = {"step": step, **{key: value for key, value in logs.items() if key != "epoch"}}
        with writing(self.curve), open(self.curve, "a", opener=regular) as file:
            file.write(json.dumps(entry) + "\n")
        self.lap_steps.append(logs)
        if step % PROGRESS_STEPS == 0 or step == state.max_steps or time.time() - self.lap_started > EVERY:
            write_checked_json(self.time_spent, {"seconds": self.seconds()})
            lap = speed(self.lap_steps, time.time() - self.lap_started, self.rate)
            self.lap_started, self.lap_steps = time.time(), []
            margin = f"  margin {logs['rewards/margin']:+.4f}" if "rewards/margin" in logs else ""
            rates = f"{lap['tokens_per_second']:.0f} tokens/s  utilisation {lap['utilisation']:.2f}"
            details = f"loss {logs['loss']:.4f}{margin}  {rates}"
            steps = (step, state.max_steps, "steps", step - self.first_step)
            print(progress_line("train", *steps, time.time() - self.started, details), flush=True)

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


def publish_curve(state: Path, path: str | Path) -> str:
    """Write the curve of a complete training, whose state is in `state`, to its place among the results.

    Returns its sha256: lines of numbers hold no checksum, so the model's record does.
    """
    with whole_file(path) as temporary:
        shutil.copyfile(state / CURVE, temporary)
    return sha256(path)


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
    names = sorted(file.name for file in saved.iterdir() if file.name != COMPLETE and not file.name.startswith("."))
    write_checked_json(saved / COMPLETE, {"files": file_hashes(saved, names)})


def last_saved(state: Path) -> Path | None:
    """The latest complete save that can be resumed; a collective, in which rank 0 decides for all.

    A line for each damaged one, which stays, and for each that cannot be read, which is set aside under another name.
    Raises, in all processes, what keeps rank 0 from reading or renaming them: the others would wait for it.
    """
    saved, refusal = None, None
    try:
        saved = _last_saved(state) if rank() == 0 else None
    except (OSError, MemoryError, StudyError) as error:
        refusal = error
    saved, refusal = gather((saved, refusal))[0]
    if refusal:
        raise refusal
    return saved


def _last_saved(state: Path) -> Path | None:
    steps = {
        path.parent: path.parent.name.removeprefix("checkpoint-") for path in state.glob(f"checkpoint-*/{COMPLETE}")
    }
    saved = {folder: int(step) for folder, step in steps.items() if step.isascii() and step.isdecimal()}
    for folder in sorted(saved, key=saved.get, reverse=True):
        if not is_whole(folder):
            print(f"train: {folder}: damaged; its steps are repeated", flush=True)
        elif reason := unreadable(folder, saved[folder]):
            aside = _set_aside(folder)
            print(f"train: {folder}: {reason}; kept as {aside.name}, its steps are repeated", flush=True)
        else:
            return folder
    return None


def is_whole(saved: Path) -> bool:
    """Whether a saved state holds the files of its mark, no others, with their hashes.

    Raises PermissionError if one may not be read.
    """
    for file in saved.iterdir():
        if not os.access(file, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    with contextlib.suppress(StudyError, OSError):
        files = read_json(saved / COMPLETE, "hashes of the files", "").get("files")
        present = {file.name for file in saved.iterdir() if not file.name.startswith(".")}
        if isinstance(files, dict) and present == {*files, COMPLETE}:
            names = [path_below(saved, name).name for name in files]
            return file_hashes(saved, names) == files
    return False


def unreadable(saved: Path, step: int) -> str | None:
    """Why the Trainer could not resume a saved state of this step, without running what its files hold; None if it can.

    The files of another version of torch, or of another program, can be whole and yet not be read.
    """
    if names := sorted(file.name for pattern in FOREIGN for file in saved.glob(pattern)):
        return f"found {names[0]}, which is no part of a saved state"
    weights = sorted(saved.glob("*.safetensors")) or [saved / "model.safetensors"]
    names = (*PICKLED, "trainer_state.json", "metrics.jsonl")
    for path in (*(saved / name for name in names), *sorted(saved.glob("rng_state*.pth")), *weights):
        if not path.is_file():
            return f"found no {path.name}"
        try:
            _read(path, step)
        except (OSError, MemoryError):  # of the machine, not of the file
            raise
        except Exception as error:  # of torch, pickle, json, safetensors, or of a class of transformers
            return f"{path.name} cannot be read ({type(error).__name__})"
    return None


def _read(path: Path, step: int) -> None:
    """Read a file of a saved state as the Trainer will, tensors aside; raises what it would raise."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt"):
            return
    if path.suffix == ".jsonl":
        speed(list(map(json.loads, path.read_text().splitlines())), 1.0, 1.0)
    elif path.suffix == ".json":
        if (found := TrainerState.load_from_json(str(path)).global_step) != step:
            raise ValueError(found)
    else:
        with safe_globals():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if missing := PICKLED.get(path.name, {"cpu"}) - content.keys():
            raise KeyError(*missing)


def _set_aside(saved: Path) -> Path:
    """Rename a saved state, so that neither `last_saved` nor the Trainer takes it for one; returns its new path."""
    paths = (saved.with_name(f"unreadable-{saved.name}" + f"-{i}" * (i > 1)) for i in itertools.count(1))
    return saved.rename(next(path for path in paths if not path.exists()))
