"""What a training keeps beside its model: the curve, the time spent, the states to go on from; and what it tells.

The curve holds what is the same whenever the training is run. How fast it was goes to the log and to the model's
record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from wspin.storage.files import sync, write_json

COMPLETE = "complete"  # marks a saved state whose files are all on the disk


class Journal(TrainerCallback):
    """Keeps the curve and the time spent in the state folder, marks saved states, and tells the user how far it is.

    `rate`: FLOPs per second of a large matrix product on this device, of which utilisation is a share.
    """

    def __init__(self, state: Path, rate: float, every: int = 10):
        self.curve, self.spent, self.every, self.rate = state / "metrics.jsonl", state / "spent.json", every, rate
        self.began = time.time()
        self.earlier = json.loads(self.spent.read_text())["seconds"] if self.spent.exists() else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A resumed curve ends where the saved state does."""
        lines = self.curve.read_text().splitlines() if self.curve.exists() else []
        self.curve.write_text("".join(f"{line}\n" for line in lines[: state.global_step]))  # the last may be torn
        self.first, self.lap, self.work = state.global_step, time.time(), []
        print(
            f"train: step {state.global_step} of {state.max_steps}" + (", resumed" if state.global_step else ""),
            flush=True,
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        step = state.global_step
        entry = {"step": step, **{key: value for key, value in logs.items() if key != "epoch"}}
        with open(self.curve, "a") as file:
            file.write(json.dumps(entry) + "\n")
        self.work.append(logs)
        if step % self.every == 0 or step == state.max_steps:
            self._keep_time()
            left = (time.time() - self.began) / (step - self.first) * (state.max_steps - step)
            margin = f"  margin {logs['rewards/margin']:+.4f}" if "rewards/margin" in logs else ""
            speed = "{tokens_per_second:.0f} tokens/s  utilisation {utilisation:.2f}".format(**self._lap())
            print(
                f"train: step {step} of {state.max_steps}  loss {logs['loss']:.4f}{margin}  {speed}  {left:.0f} s left",
                flush=True,
            )

    def _lap(self) -> dict[str, float]:
        """Speed since the last line."""
        work, lap = self.work, self.lap
        self.work, self.lap = [], time.time()
        return speed(work, self.lap - lap, self.rate)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for file in (*saved.iterdir(), self.curve):
            sync(file)
        self._keep_time()
        (saved / COMPLETE).touch()

    def _keep_time(self) -> None:
        write_json(self.spent, {"seconds": self.seconds()})

    def seconds(self) -> float:
        """Time over all attempts."""
        return self.earlier + time.time() - self.began

    def speed(self) -> dict[str, float]:
        """Time over all attempts, and what came of it: steps that were lost and taken again count once."""
        curve = [json.loads(line) for line in self.curve.read_text().splitlines()]
        return {"seconds": round(self.seconds(), 1), **speed(curve, self.seconds(), self.rate)}


def speed(steps: Sequence[dict[str, float]], seconds: float, rate: float) -> dict[str, float]:
    """Tokens read per second, and the FLOPs that the task needs as a share of the device's own `rate`."""
    tokens, needed = (sum(step[f"work/{part}"] for step in steps) for part in ("tokens", "needed"))
    return {"tokens_per_second": round(tokens / seconds, 1), "utilisation": round(needed / seconds / rate, 4)}


def last_saved(state: Path) -> Path | None:
    """The latest saved state that is whole; a save that was interrupted does not count."""
    saved = [path.parent for path in state.glob(f"checkpoint-*/{COMPLETE}")]
    return max(saved, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
