"""The grace before a time limit: SLURM can send a signal ahead of it (slurm/config.yaml), so that nothing is lost.

The signal is SIGURG, because it goes to every process of the job and nobody else minds it: by default it is ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within, SIGURG is a request to save and end; yields a function that tells whether it has come."""
    received: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGURG, before)
