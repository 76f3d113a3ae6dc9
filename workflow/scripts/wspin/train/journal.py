"""What a training keeps beside its model: the curve, the time spent, and marks of complete saves.

The curve holds only what is the same in every run of a training. Its speed goes to the log and the model's record.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from wspin.storage.files import sync, write_json

PROGRESS_STEPS = 10  # between two lines of progress
COMPLETE = "complete"  # a file in a saved state all of whose files are on the disk


class Journal(TrainerCallback):
    """Keeps the curve and the time spent, marks complete saves, prints the progress; `rate`: FLOPs/s of all devices."""

    def __init__(self, state: Path, rate: float):
        self.curve, self.time_spent, self.rate = state / "metrics.jsonl", state / "spent.json", rate
        self.started = time.time()
        self.earlier = json.loads(self.time_spent.read_text())["seconds"] if self.time_spent.exists() else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Cut the curve back to the saved state."""
        lines = self.curve.read_text().splitlines() if self.curve.exists() else []
        self.curve.write_text("".join(f"{line}\n" for line in lines[: state.global_step]))  # the last may be torn
        self.first_step, self.lap_started, self.lap_steps = state.global_step, time.time(), []
        resumed = ", resumed" if state.global_step else ""
        print(f"train: step {state.global_step} of {state.max_steps}{resumed}", flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        step = state.global_step
        entry = {"step": step, **{key: value for key, value in logs.items() if key != "epoch"}}
        with open(self.curve, "a") as file:
            file.write(json.dumps(entry) + "\n")
        self.lap_steps.append(logs)
        if step % PROGRESS_STEPS == 0 or step == state.max_steps:
            write_json(self.time_spent, {"seconds": self.seconds()})
            lap = speed(self.lap_steps, time.time() - self.lap_started, self.rate)
            self.lap_started, self.lap_steps = time.time(), []
            left = (time.time() - self.started) / (step - self.first_step) * (state.max_steps - step)
            margin = f"  margin {logs['rewards/margin']:+.4f}" if "rewards/margin" in logs else ""
            rates = f"{lap['tokens_per_second']:.0f} tokens/s  utilisation {lap['utilisation']:.2f}"
            progress = f"step {step} of {state.max_steps}  loss {logs['loss']:.4f}{margin}  {rates}"
            print(f"train: {progress}  {left:.0f} s left", flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for file in (*saved.iterdir(), self.curve):
            sync(file)
        write_json(self.time_spent, {"seconds": self.seconds()})
        (saved / COMPLETE).touch()

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


def last_saved(state: Path) -> Path | None:
    """The latest complete save; an interrupted one does not count."""
    saved = [path.parent for path in state.glob(f"checkpoint-*/{COMPLETE}")]
    return max(saved, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
