"""Signals that end a program: Ctrl-C at once, SIGURG when its work is saved.

Ctrl-C ends a program, or Snakemake while it plans, with one line, wherever it comes: also in the midst of imports. The
process then ends by the signal, as shells and make expect. Python sees to that, but forgets it where anything is
executed at its exit, as after an import of transformers.

SLURM can send a signal ahead of a job's time limit (slurm/config.yaml), so that no step is lost. It is SIGURG, because
that reaches every process of the job and by default no process reacts to it.
"""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

KEPT = "interrupted: what is finished and saved is kept; give the same command again to continue"

_uncaught: list[BaseException] = []  # interruptions that have ended this process
_requests: list[int] = []  # signals that ask to save and stop


def shorten_interruptions() -> None:
    """From now on an uncaught KeyboardInterrupt prints one line in place of its traceback."""
    sys.excepthook = _print_uncaught
    atexit.register(_end_by_signal)  # the first to be registered is the last to be called


def _end_by_signal() -> None:
    if _uncaught:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _print_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        program = Path(getattr(sys.modules["__main__"], "__file__", "python")).name
        sys.stderr.write(f"{program}: {KEPT}\n")  # whole, beside the lines of other jobs
        _uncaught.append(error)
    else:
        sys.__excepthook__(kind, error, traceback)


def receive_stop_requests() -> Any:
    """From now on SIGURG is a request to save and stop; returns what it was before.

    A program begins with this: it may have to stop before a model is loaded, which takes minutes.
    """
    return signal.signal(signal.SIGURG, lambda number, frame: _requests.append(number))


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether a request to save and stop has been received, within or before."""
    previous_handler = receive_stop_requests()
    try:
        yield lambda: bool(_requests)
    finally:
        signal.signal(signal.SIGURG, previous_handler)
        _requests.clear()
