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
HELD = ("JobHeld", "launch")  # these jobs go on when they are released
AGAIN = "; correct that, then Ctrl-C and the same command again: what is finished and saved is kept"


class QueueWatch:
    """Looks at the queue in the folder in which Snakemake runs; `tell`: gets the lines."""

    def __init__(self, tell: Callable[[str], None]):
        self.tell = tell
        self.told: set[str] = set()

    def look(self) -> None:
        """A line for each reason to wait that will not pass, with the jobs that have it and are not told yet."""
        marked = sorted(markers(Path(".snakemake/incomplete")), reverse=True)
        outputs = {marker.slurm_id: path for path, marker in marked if marker.slurm_id}  # the first of each job
        reasons: dict[str, list[str]] = {}
        for number, reason in sorted((queued_jobs(outputs) or {}).items()):
            if number not in self.told and reason:
                reasons.setdefault(reason, []).append(number)
        for reason, (number, *others) in reasons.items():
            if lasts(reason) or (reason.startswith(LIMITED) and not _may_pass(number, reason)):
                self.told |= {number, *others}
                jobs = f"SLURM job {number} ({outputs[number]})" + (
                    f" and {len(others)} more wait" if others else " waits"
                )
                again = AGAIN if lasts(reason) and not reason.startswith(HELD) else ""
                self.tell(f"{jobs}: {in_words(reason)}{again}")

    def go_on(self) -> None:
        while True:
            time.sleep(PAUSE)
            self.look()


def watch_queue(tell: Callable[[str], None]) -> None:
    """Watch the queue in a thread that ends with the process."""
    threading.Thread(target=QueueWatch(tell).go_on, daemon=True).start()


def _may_pass(number: str, reason: str) -> bool:
    """Whether jobs run that share the limit, so that their end may let this one start; also if that is unknown."""
    sharing: str | None = "--me"
    if "Grp" in reason:  # of all who use the account or the QOS
        option, column = ("--qos", "%q") if reason.startswith("QOS") else ("--account", "%a")
        name = _squeue(f"--jobs={number}", f"--format={column}")
        sharing = f"{option}={name.split()[0]}" if name and name.strip() else None
    return sharing is None or _squeue(sharing, "--states=running,completing", "--format=%i") != ""


def _squeue(*words: str) -> str | None:
    """What squeue prints; None if it gives no answer."""
    try:
        done = subprocess.run(["squeue", "--noheader", *words], text=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()
