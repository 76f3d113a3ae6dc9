"""Looks at the jobs of a study from outside: at the names of files, the ends of logs, records and locks.

A job is

* *done* if all its files are there, and no marker of Snakemake's says that they are incomplete; *stale* if other code
  than the present made them;
* *running* if a process holds the lock of its training's state, or if Snakemake marked its files during a run that has
  not ended and a Snakemake process of this folder lives; *queued* if nothing has come into its log since then;
* *interrupted* if a marker or a saved state of its training is left and nobody runs it; *failed* if its log ends in an
  error instead; *missing* otherwise.

Locks may not be seen from another node. Then a job that a run has marked is running as long as its log grows.
Nothing is written. A lock is tested by taking it for a moment; whatever vanishes meanwhile counts as not there.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import os
import re
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from wspin.storage import provenance
from wspin.study.jobs import Job

from . import stale

GROWS = 120.0  # seconds: programs tell their progress every 30, or every few steps
TAIL = 4096  # bytes of a log that are looked at
SAVED = "checkpoint-*/complete"  # mark of a whole saved state, below a state's folder
PROGRESS = re.compile(r"^\w+: (?:step )?(\d+) of (\d+)\b(?:.*\b(\d+) s left)?", re.MULTILINE)
FAILED = re.compile(r"^(?:\w+\.py: error: |Traceback )", re.MULTILINE)


class Seen(NamedTuple):
    """What is seen of a job: a word for it; of a running one how far it is, the seconds left, its last word's age."""

    word: str
    share: float | None = None
    left: float | None = None
    age: float | None = None


class Watch:
    """One look at the folder in which Snakemake runs, the current one."""

    def __init__(self) -> None:
        self.now = time.time()
        self.codes: dict[str, str | None] = {}
        self.markers = dict(markers(Path(".snakemake/incomplete")))
        began = [changed(path) for path in glob.glob(".snakemake/locks/*.lock")]
        self.runs = [when for when in began if when is not None]  # a run's locks are there until it ends or is killed

    @cached_property
    def alive(self) -> bool | None:
        """Whether a Snakemake process of this folder lives (`files.show_alive`)."""
        return held(".snakemake/alive")

    def look(self, job: Job) -> Seen:
        marked = max((self.markers[path] for path in job.outputs if path in self.markers), default=None)
        if marked is None and all(map(os.path.exists, job.outputs)):
            record = provenance.record_path(job.outputs[0])
            return Seen("stale" if stale.other_code(record, self.codes) else "done")
        training = self._trains(job)
        current = marked is not None and marked >= min(self.runs, default=0.0)
        told = changed(job.log)
        if training or (current and self.alive):
            begun = training or (told is not None and told >= marked)
            return self._running(job, told) if begun else Seen("queued")
        grows = told is not None and self.now - told < GROWS
        if training is None and current and self.runs and grows and told >= marked:
            return self._running(job, told)
        if marked is None and FAILED.search(tail(job.log)):
            return Seen("failed")
        left = marked is not None or (job.states and saved_step(job.states) is not None)
        return Seen("interrupted" if left else "missing")

    def _running(self, job: Job, told: float | None) -> Seen:
        """The time left is the log's, less what has passed since."""
        age = None if told is None else max(0.0, self.now - told)
        lines = PROGRESS.findall(tail(job.log))
        if not lines or not int(lines[-1][1]):
            return Seen("running", age=age)
        done, total, left = lines[-1]
        return Seen("running", int(done) / int(total), max(0.0, float(left) - (age or 0.0)) if left else None, age)

    def _trains(self, job: Job) -> bool | None:
        """Whether a process holds a state of the training. None where that is not known: maybe one on another node."""
        answers = []
        for path in glob.glob(f"{glob.escape(job.states)}/*.lock") if job.states else ():
            holder = tail(path).rpartition(" on ")[2]
            answers.append(held(path) or (None if holder != os.uname().nodename else False))
        return True if True in answers else None if None in answers or not answers else False


# Single looks


def markers(folder: Path) -> Iterator[tuple[str, float]]:
    """(output, time) of Snakemake's markers of incomplete files; their names are the outputs' in base64.

    Long names are cut in pieces, folders that begin with @.
    """
    for place, _, names in os.walk(folder):
        before = "".join(Path(place).relative_to(folder).parts).replace("@", "")
        for name in names:
            when = changed(f"{place}/{name}")
            with contextlib.suppress(ValueError):  # a file of another kind
                output = base64.urlsafe_b64decode(before + name).decode()
                if when is not None:
                    yield output, when


def held(path: str) -> bool | None:
    """Whether a process holds the lock (flock) of a file; None if that cannot be told. Makes and changes no file."""
    try:
        with open(path, "r+") as file:  # on NFS an exclusive lock needs a file that is open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def changed(path: str) -> float | None:
    """When a file was last written; None if it is not there."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return None


def tail(path: str) -> str:
    """The end of a small file or a log; nothing if it is not there."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        return file.read(TAIL).decode(errors="replace")
    return ""


def saved_step(states: str) -> int | None:
    """The step of the latest whole saved state of a training."""
    steps = re.findall(r"checkpoint-(\d+)/", "\n".join(glob.glob(f"{glob.escape(states)}/*/{SAVED}")))
    return max(map(int, steps), default=None)
