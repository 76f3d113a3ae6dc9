"""Ctrl-C ends a program, or Snakemake while it plans, with one line, wherever it comes: also in the midst of imports.

Python then ends the process by the signal, as shells and make expect.
"""

import sys
from pathlib import Path
from types import TracebackType

KEPT = "interrupted: what is finished and saved is kept; give the same command again to continue"


def shorten_interruptions() -> None:
    """From now on an uncaught KeyboardInterrupt prints one line in place of its traceback."""
    sys.excepthook = _print_uncaught


def _print_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        program = Path(getattr(sys.modules["__main__"], "__file__", "python")).name
        sys.stderr.write(f"{program}: {KEPT}\n")  # whole, beside the lines of other jobs
    else:
        sys.__excepthook__(kind, error, traceback)
