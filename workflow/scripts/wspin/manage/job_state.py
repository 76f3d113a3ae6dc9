"""The states of a study's jobs, seen from outside: from the names of files, the ends of logs, records and locks.

A job is the first of these that holds:

* *done* if all its files exist and no marker of Snakemake's calls them incomplete; *stale* if other code than the
  present made them, or if their record cannot be read;
* *running* if a process holds the lock of its state, if it runs in SLURM, or if a live run has marked its files and its
  log has been written to since;
* *queued* if it waits in SLURM's queue, for the first time or again, or a live run has marked its files: Snakemake
  marked them during a run that has not ended, and its process lives;
* *failed* if its files are not marked and its log ends in an error;
* *interrupted* if a marker or a saved state is left, of a training, a generation or an evaluation;
* *missing* otherwise.

A job's number in SLURM is in Snakemake's mark until it starts there, and then at the beginning of its log.

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
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from wspin.errors import StudyError
from wspin.escaping import one_line
from wspin.storage import provenance, strict_json
from wspin.storage.opening import lock_file, regular
from wspin.study.jobs import Job

from . import stale
from .slurm_queue import JOB_ID, in_words, queued_jobs

DRIVER = ".snakemake/driver"
SILENCE = 120.0  # seconds after which a log no longer counts as growing: programs report progress every 30 or so
TAIL = 4096  # bytes that are read of a log
LONGEST_ERROR = 500  # characters of an error that is shown
SAVED = "checkpoint-*/complete"  # mark of a whole saved state, below a state's folder
KEPT = ("answers.jsonl", "[0-9a-f]" * 32 + ".json")  # there: of a generation, of an evaluation
LEFT = (
    r"(?:(\d{1,15}) h )?(\d{1,15}) (s|min) left"  # as `progress.span` writes it, at the end of `progress.progress_line`
)
PROGRESS = re.compile(
    rf"^\w+: (?:.*: )?(\d{{1,15}}) of (\d{{1,15}}) \w+(?:, resumed)?(?:  .*?)??(?:  {LEFT})?$", re.MULTILINE
)
LOGGED = re.compile(r"^\w+\.py: SLURM job (\S{1,30}) on ", re.MULTILINE)
FAILED = re.compile(r"^(?:\w+\.py: error: |Traceback )", re.MULTILINE)


class JobState(NamedTuple):
    """The state of a job in a word; of a running one also the share done, the seconds left and since its last line.

    `waits`: why a queued one waits, if SLURM has told, with its number there.
    """

    word: str
    share: float | None = None
    left: float | None = None
    age: float | None = None
    waits: str = ""


class Marker(NamedTuple):
    """Snakemake's mark of an incomplete file; the id is that of a job in SLURM that has not started yet."""

    when: float
    slurm_id: str | None


class Snapshot:
    """The folder in which Snakemake runs, the current one, at one time; `jobs`: those of its study."""

    def __init__(self, jobs: Collection[Job]) -> None:
        self.now = time.time()
        self.markers = dict(markers(Path(".snakemake/incomplete")))
        began = [changed(path) for path in glob.glob(".snakemake/locks/*.lock")]
        self.runs = [when for when in began if when is not None]  # a run's locks exist until it ends or is killed
        self.alive = held(DRIVER)  # whether Snakemake runs here (`locks.show_driver`); None if unknown
        self.driver = one_line(tail(DRIVER))  # its process and host
        self.ids = {job: number for job in jobs if (number := self._slurm_id(job))}
        self.queue = queued_jobs(self.ids.values()) or {}

    def _marker(self, job: Job) -> Marker | None:
        return max((self.markers[path] for path in job.outputs if path in self.markers), default=None)

    def _slurm_id(self, job: Job) -> str | None:
        """A job's number in SLURM; of one that is not done, as it may have been requeued, which removes the mark."""
        marker, logged = self._marker(job), changed(job.log)
        if marker and marker.slurm_id:
            return marker.slurm_id
        in_run = logged is not None and self.runs and logged >= min(self.runs)
        lives = marker or (in_run and not all(map(os.path.exists, job.outputs)))
        return logged_id(job.log) if lives else None

    def state(self, job: Job) -> JobState:
        marker = self._marker(job)
        if marker is None and all(map(os.path.exists, job.outputs)):
            try:
                record = stale.stale_record(provenance.record_path(job.outputs[0]))
            except StudyError:  # `stale` shows the reason
                return JobState("stale")
            return JobState("stale" if record else "done")
        reason = self.queue.get(self.ids.get(job, ""))  # empty if SLURM has started the job
        word = self._unfinished(job, marker.when if marker else None, reason)
        if word == "running":
            return self._progress(job)
        waits = f"{in_words(reason)}, SLURM job {self.ids[job]}" if word == "queued" and reason else ""
        return JobState(word, waits=waits)

    def _unfinished(self, job: Job, marked: float | None, reason: str | None) -> str:
        """The word for a job that is not done, whose files Snakemake marked as incomplete at that time, if at all.

        `reason`: why the job waits in SLURM's queue, empty if it has started, None if it is not there.
        """
        logged, locked = changed(job.log), self._locked(job)
        in_run = marked is not None and marked >= min(self.runs, default=0.0)
        submitted = in_run and self.alive
        begun = marked is not None and logged is not None and logged >= marked
        grows = self.runs and begun and self.now - logged < SILENCE
        works = (submitted and begun) or (locked is None and in_run and grows)
        rules = {
            "running": locked or reason == "" or (works and not reason),
            "queued": submitted or reason,
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


def markers(folder: Path) -> Iterator[tuple[str, Marker]]:
    """(output, marker) of Snakemake's markers of incomplete files; their names are the outputs' in base64.

    Long names are split into folders whose names begin with @.
    """
    for place, _, names in os.walk(folder):
        prefix = "".join(Path(place).relative_to(folder).parts).replace("@", "")
        for name in names:
            when = changed(f"{place}/{name}")
            with contextlib.suppress(ValueError):  # a file of another kind
                output = base64.urlsafe_b64decode(prefix + name).decode()
                if when is not None:
                    yield output, Marker(when, slurm_id(tail(f"{place}/{name}")))


def slurm_id(marker: str) -> str | None:
    """The id of a cluster's job in the content of a marker."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        number = strict_json.parse(marker)["external_jobid"]
        return number if isinstance(number, str) and JOB_ID.fullmatch(number) else None
    return None


def logged_id(log: str) -> str | None:
    """The id of a cluster's job at the beginning of its log (`cli.run`)."""
    with contextlib.suppress(OSError, StudyError), open(log, "rb", opener=regular) as file:
        found = LOGGED.search(file.read(TAIL).decode(errors="replace"))
        return found[1] if found and JOB_ID.fullmatch(found[1]) else None
    return None


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


def error_of(log: str) -> str:
    """The error in which a log ends, on one line: the last of a program, or of a traceback; empty if it has none."""
    errors = list(FAILED.finditer(log))
    if not errors:
        return ""
    ended = log[errors[-1].start() :].rstrip()
    line = ended.rpartition("\n")[2] if errors[-1][0] == "Traceback " else ended.partition("\n")[0]
    return one_line(line, LONGEST_ERROR)


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
