"""The last lines of a run of Snakemake that was interrupted or failed: printed after all that Snakemake prints.

After Ctrl-C Snakemake prints the command of every job that it ends, as for jobs that failed. These records go to its
log file alone.
"""

import atexit
import logging
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from wspin.escaping import one_line
from wspin.interruption import KEPT
from wspin.storage.locks import show_driver

from .job_state import error_of, tail
from .model_card import refresh_cards

SILENT = "no error in it: killed, out of memory or out of time"
ABSENT = "there is none: the job did not start; the lines above may say why"  # sbatch refused it


class Ending:
    """Watches a run for Ctrl-C, and says what has become of it; `logger`: Snakemake's."""

    def __init__(self, logger: logging.Logger):
        self.logger, self.interrupted = logger, False
        self.driver: TextIO | None = None  # of `show_driver`, once jobs start: open until the process ends
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGALRM, self._interrupt)

    def unfinished(self, failed: Collection[Any]) -> None:
        """The run has ended before all jobs were done; `failed`: Snakemake's jobs that are not tried again."""
        jobs = sorted(set(failures(failed)))
        counted = "a job failed" if len(jobs) == 1 else f"{len(jobs)} jobs failed"
        remedy = "correct the cause and give the same command again: what is finished and saved is kept"
        if self.interrupted:
            lines = [*jobs, KEPT]
        elif jobs:
            lines = [f"{counted}; {remedy}", *jobs]
        else:
            lines = [KEPT.replace("interrupted", "ended before all jobs were done")]
        atexit.register(sys.stderr.write, "".join(f"{line}\n" for line in lines))

    def finished(self, results: str) -> None:
        """All jobs are done: the models' cards get the scores that there are. No job depends on a card."""
        print(f"results in {results}/")
        refresh_cards(results)

    def start(self, scheduler: Any) -> None:
        """Before the first job: show that this process starts jobs, and take SIGTERM; `scheduler`: Snakemake's.

        After SIGTERM no more jobs start, and the run ends with those that run. Snakemake's own handler waits for a lock
        that the main thread, in which it runs, may hold: the run would hang for ever.
        """
        self.driver = show_driver()
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=scheduler.exit_gracefully).start())

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.interrupted:
            self.interrupted = True
            for handler in self.logger.handlers:
                if not isinstance(handler, logging.FileHandler):
                    handler.addFilter(lambda record: record.levelno < logging.ERROR)
        if _is_writing(frame):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # once more
        else:
            raise KeyboardInterrupt


def _is_writing(frame: FrameType | None) -> bool:
    """Whether Snakemake is writing a line of its log: there it drops a KeyboardInterrupt, and the run would go on."""
    while frame and frame.f_code.co_name != "emit":
        frame = frame.f_back
    return frame is not None


def failures(failed: Collection[Any]) -> Iterator[str]:
    """A line for each job: its rule, its first file, its log, and the error at the end of the log."""
    for job in failed:
        for one in job.jobs if job.is_group() else [job]:
            log, files = next(map(str, one.log), ""), list(map(str, one.output))
            error = error_of(tail(log)) if log else ""
            if error or not job.is_group():  # of a group, the job that failed
                place = f"{one.rule.name}: {files[0]}" if files else one.rule.name
                silent = ABSENT if log and not Path(log).exists() else SILENT
                yield one_line(f"failed: {place} (log: {log or 'none'}): {error or silent}")
