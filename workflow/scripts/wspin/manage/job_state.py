"""The states of a study's jobs, seen from outside: from the names of files, the ends of logs, records and locks.

A job is the first of these that holds:

* *done* if all its files exist and no marker of Snakemake's calls them incomplete; *stale* if other code than the
  present made them, or if their record cannot be read;
* *running* if a process holds the lock of its state, or if a live run has marked its files and its log has
  been written to since;
* *queued* if a live run has marked its files: Snakemake marked them during a run that has not ended, and a Snakemake
  process of this folder lives;
* *failed* if its files are not marked and its log ends in an error;
* *interrupted* if a marker or a saved state is left, of a training, a generation or an evaluation;
* *missing* otherwise.

Locks may not be visible from another node. Then a job that a run has marked is running as long as its log grows.
Nothing is written. A lock is tested by taking it for a moment; a file that vanishes meanwhile counts as absent.
"""

import base64
import contextlib
import fcntl
import glob
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wspin.errors import StudyError
from wspin.storage import provenance
from wspin.storage.opening import lock_file, regular
from wspin.study.jobs import Job

from . import stale

SILENCE = 120.0  # seconds after which a log no longer counts as growing: programs report progress every 30 or so
TAIL = 4096  # bytes that are read of a log
SAVED = "checkpoint-*/complete"  # mark of a whole saved state, below a state's folder
KEPT = ("answers.jsonl", "[0-9a-f]" * 32 + ".json")  # there: of a generation, of an evaluation
LEFT = r"(?:(\d{1,15}) h )?(\d{1,15}) (s|min) left"  # as `progress.span` writes it
PROGRESS = re.compile(rf"^\w+: (?:step )?(\d{{1,15}}) of (\d{{1,15}})\b(?:.*  {LEFT})?", re.MULTILINE)
FAILED = re.compile(r"^(?:\w+\.py: error: |Traceback )", re.MULTILINE)


class JobState(NamedTuple):
    """The state of a job in a word; of a running one also the share done, the seconds left and since its last line."""

    word: str
    share: float | None = None
    left: float | None = None
    age: float | None = None


class Snapshot:
    """The folder in which Snakemake runs, the current one, at one time."""

    def __init__(self) -> None:
        self.now = time.time()
        self.markers = dict(markers(Path(".snakemake/incomplete")))
        began = [changed(path) for path in glob.glob(".snakemake/locks/*.lock")]
        self.runs = [when for when in began if when is not None]  # a run's locks exist until it ends or is killed
        self.alive = held(".snakemake/alive")  # whether Snakemake runs here (`locks.show_alive`); None if unknown

    def state(self, job: Job) -> JobState:
        marked = max((self.markers[path] for path in job.outputs if path in self.markers), default=None)
        if marked is None and all(map(os.path.exists, job.outputs)):
            try:
                record = stale.stale_record(provenance.record_path(job.outputs[0]))
            except StudyError:  # `stale` shows the reason
                return JobState("stale")
            return JobState("stale" if record else "done")
        word = self._unfinished(job, marked)
        return self._progress(job) if word == "running" else JobState(word)

    def _unfinished(self, job: Job, marked: float | None) -> str:
        """The word for a job that is not done, whose files Snakemake marked as incomplete at that time, if at all."""
        logged, locked = changed(job.log), self._locked(job)
        in_run = marked is not None and marked >= min(self.runs, default=0.0)
        submitted = in_run and self.alive
        begun = marked is not None and logged is not None and logged >= marked
        grows = self.runs and begun and self.now - logged < SILENCE
        rules = {
            "running": locked or (submitted and begun) or (locked is None and in_run and grows),
            "queued": submitted,
            "failed": marked is None and FAILED.search(tail(job.log)),
            "interrupted": marked is not None or saved(job.states),
        }
        return next((word for word, holds in rules.items() if holds), "missing")

    def _progress(self, job: Job) -> JobState:
        """A running job; the time left is that of its log, less what has passed since."""
        logged = changed(job.log)
        age = None if logged is None else max(0.0, self.now - logged)
        share, left = progress_of(tail(job.log))
        return JobState("running", share, None if left is None else max(0.0, left - (age or 0.0)), age)

    def _locked(self, job: Job) -> bool | None:
        """Whether a process holds a state of the job; None if that is unknown: one on another node may."""
        locks = glob.glob(f"{glob.escape(job.states)}/*.lock") if job.states else []
        if any(map(held, locks)):
            return True
        here = bool(locks) and all(tail(path).endswith(f" on {os.uname().nodename}") for path in locks)
        return False if here else None


# Files


def markers(folder: Path) -> Iterator[tuple[str, float]]:
    """(output, time) of Snakemake's markers of incomplete files; their names are the outputs' in base64.

    Long names are split into folders whose names begin with @.
    """
    for place, _, names in os.walk(folder):
        prefix = "".join(Path(place).relative_to(folder).parts).replace("@", "")
        for name in names:
            when = changed(f"{place}/{name}")
            with contextlib.suppress(ValueError):  # a file of another kind
                output = base64.urlsafe_b64decode(prefix + name).decode()
                if when is not None:
                    yield output, when


def held(path: str) -> bool | None:
    """Whether a process holds the lock (flock) of a file; None if that is unknown. Creates and changes no file."""
    try:
        with open(path, "r+b", opener=lock_file) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except (OSError, StudyError):
        return None
    return False


def changed(path: str) -> float | None:
    """When a file was last written; None if there is none."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return None


def tail(path: str) -> str:
    """The end of a file, the empty string if there is none."""
    with contextlib.suppress(OSError, StudyError), open(path, "rb", opener=regular) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        return file.read(TAIL).decode(errors="replace")
    return ""


def progress_of(log: str) -> tuple[float | None, float | None]:
    """(share done, seconds left) of the last line of progress in a log; None for what it lacks."""
    lines = PROGRESS.findall(log)
    if not lines or not int(lines[-1][1]):
        return None, None
    done, total, hours, number, unit = lines[-1]
    seconds = 3600.0 * int(hours or 0) + int(number) * {"s": 1, "min": 60}[unit] if unit else None
    return int(done) / int(total), seconds


def saved(states: str | None) -> str | None:
    """What the next attempt of a job resumes from, in words; None for nothing."""
    if states is None:
        return None
    place = glob.escape(states)
    steps = re.findall(r"checkpoint-(\d+)/", "\n".join(glob.glob(f"{place}/*/{SAVED}")))
    if steps:
        return f"saved at step {max(map(int, steps))}"
    kept = [path for name in KEPT for path in glob.glob(f"{place}/*/{name}")]
    return "what it has finished is kept" if any(map(tail, kept)) else None
