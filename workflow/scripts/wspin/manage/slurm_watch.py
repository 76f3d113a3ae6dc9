"""While a run on SLURM goes on: jobs in the queue that will not start by themselves are told, each once."""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .job_state import markers
from .slurm_queue import PATIENCE, in_words, lasts, queued_jobs

PAUSE = 120.0  # seconds between two looks at the queue
LIMITED = ("QOS", "Assoc", "Max")  # reasons that pass when other jobs end, unless the job alone exceeds the limit
HELD = ("JobHeld", "launch")  # those that SLURM lets go on
AGAIN = "correct that, then Ctrl-C and the same command again: what is finished and saved is kept"


class QueueWatch:
    """Looks at the queue in the folder in which Snakemake runs; `tell`: gets the lines."""

    def __init__(self, tell: Callable[[str], None]):
        self.tell = tell
        self.told: set[str] = set()

    def look(self) -> None:
        """Tell of each job whose reason to wait does not pass by itself, or of which nothing is left to pass."""
        marked = sorted(markers(Path(".snakemake/incomplete")), reverse=True)
        outputs = {marker.slurm_id: path for path, marker in marked if marker.slurm_id}  # the first of each job
        waiting = {number: reason for number, reason in (queued_jobs(outputs) or {}).items() if reason}
        for number in sorted(waiting.keys() - self.told):
            reason = waiting[number]
            if lasts(reason) or (reason.startswith(LIMITED) and not _any_running()):
                self.told.add(number)
                again = "" if reason.startswith(HELD) else f"; {AGAIN}"
                self.tell(f"SLURM job {number} ({outputs[number]}) waits: {in_words(reason)}{again}")

    def go_on(self) -> None:
        while True:
            time.sleep(PAUSE)
            self.look()


def watch_queue(tell: Callable[[str], None]) -> None:
    """Watch the queue in a thread that ends with the process."""
    threading.Thread(target=QueueWatch(tell).go_on, daemon=True).start()


def _any_running() -> bool:
    """Whether a job of this user runs, whose end may let another start; so it is taken if squeue gives no answer."""
    command = ["squeue", "--me", "--noheader", "--states=running,completing", "--format=%i"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return bool(done.returncode or done.stdout.strip())
