"""The progress of a study: a table with a row for each model, and the jobs that run or were interrupted."""

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from wspin.config.load import read_study
from wspin.errors import StudyError
from wspin.progress import span
from wspin.storage.text_tables import text_table
from wspin.study.jobs import COLUMNS, Job, other_jobs, rows
from wspin.study.paths import StudyPaths

from .job_state import JobState, Snapshot, error_of, saved, tail

FINISHED = ("done", "stale")
CLEAR = "\x1b[H\x1b[2J\x1b[3J"  # the screen of a terminal, and what has scrolled off it
LONGEST_WATCH = 86400.0  # seconds
OPEN = ("running", "queued", "interrupted", "failed")


def show(configfiles: Sequence[str], seconds: float | None, print_lines: Callable[[Sequence[str]], None]) -> list[str]:
    """The lines on the study that config/config.yaml and these overlays describe.

    `seconds`: print them again and again instead, until Ctrl-C; on a terminal in place of those before. Raises
    `StudyError` for a time that is none.
    """
    if seconds is None:
        return _lines(configfiles)
    if not 0.0 < seconds <= LONGEST_WATCH:
        raise StudyError(f"--watch: expected seconds, more than 0 and at most {LONGEST_WATCH:g}, found {seconds:g}")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            lines = _lines(configfiles)
            if sys.stdout.isatty():
                sys.stdout.write(CLEAR)
            print_lines([*lines, "", time.strftime(f"%H:%M:%S, again every {seconds:g} s; Ctrl-C ends"), ""])
            sys.stdout.flush()
            time.sleep(seconds)
    return []


def _lines(configfiles: Sequence[str]) -> list[str]:
    return table(StudyPaths(read_study(["config/config.yaml", *configfiles]))).split("\n")


def table(paths: StudyPaths) -> str:
    """The study as it is now, seen from the folder in which Snakemake runs."""
    models, others = rows(paths), other_jobs(paths)
    groups = [group for row in (*models.values(), others) for group in row.values()]
    snapshot = Snapshot(jobs := dict.fromkeys(job for group in groups for job in group))
    states = {job: snapshot.state(job) for job in jobs}
    lines = [[model, *(cell([states[job] for job in row[name]]) for name in COLUMNS)] for model, row in models.items()]
    return "\n".join(
        [
            text_table(["model", *COLUMNS], lines, "l" * (1 + len(COLUMNS)), "simple"),
            "",
            *(f"{name}: {cell([states[job] for job in group])}" for name, group in others.items()),
            summary(list(states.values()), snapshot),
            *(details(job, state) for job, state in states.items() if state.word in OPEN),
        ]
    )


def cell(states: Sequence[JobState]) -> str:
    """Jobs of one kind in a few words; `-` for none."""
    counts = Counter(state.word for state in states)
    finished = sum(counts[word] for word in FINISHED)
    uniform = len(states) == 1 or len(states) in (finished, counts["missing"])
    words = [] if uniform else [f"{finished}/{len(states)}"]
    for word in OPEN:
        if counts[word]:
            words.append(word if counts[word] == 1 else f"{counts[word]} {word}")
        if word == "running" and (share := progress([state for state in states if state.word == word])):
            words[-1] += f" {share}" if counts[word] == 1 else f", {share}"
    if not words:
        words = ["-" if not states else "done" if finished else "missing"]
    return ", ".join([*words, *(["stale"] if counts["stale"] else [])])


def progress(running: Sequence[JobState]) -> str:
    """The progress of running jobs: the share that a single one has done, the longest time left of several."""
    left = [state.left for state in running if state.left is not None]
    share = f"{running[0].share:.0%}".replace("%", " %") if len(running) == 1 and running[0].share is not None else ""
    return ", ".join(part for part in (share, f"{span(max(left))} left" if left else "") if part)


def summary(states: Sequence[JobState], snapshot: Snapshot) -> str:
    counts = Counter(state.word for state in states)
    done = f"{sum(counts[word] for word in FINISHED)} of {len(states)} jobs done"
    others = [f"{counts[word]} {word}" for word in (*OPEN, "stale") if counts[word]]
    return f"{', '.join([done, *others])}; {driver(snapshot, counts['running'] + counts['queued'])}"


def driver(snapshot: Snapshot, live: int) -> str:
    """Whether the Snakemake that starts the jobs runs; `live`: jobs that run or wait, which may go on without it."""
    process, _, host = snapshot.driver.partition(" on ")
    elsewhere = host not in ("", os.uname().nodename)
    if snapshot.alive:
        return f"Snakemake is running on {host}" if elsewhere else "Snakemake is running here"
    if snapshot.runs and elsewhere:  # its lock may not be visible from here
        return f"whether Snakemake still runs on {host} (process {process}) cannot be seen from here"
    jobs = f", but {live} of its jobs run on: wait for them or cancel them before you start it again" if live else ""
    killed = ": it was killed" if snapshot.runs else ""
    return f"no Snakemake is running here{killed}{jobs}"


def details(job: Job, state: JobState) -> str:
    """One line on a job that is neither done nor missing: its progress, and its log."""
    more = ""
    if state.word == "interrupted":
        more = saved(job.states) or "starts anew"
    elif state.word == "queued":
        more = state.waits
    elif state.word == "failed":
        more = error_of(tail(job.log))
    elif state.word == "running":
        age = "" if state.age is None else f"last line {span(state.age)} ago"
        more = ", ".join(part for part in (progress([state]), age) if part)
    return f"{state.word}: {job.outputs[0]}{more and f': {more}'} ({job.log})"
