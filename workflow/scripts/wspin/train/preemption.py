"""Stop requests ahead of a time limit: SLURM can send a signal before it (slurm/config.yaml), so that no step is lost.

The signal is SIGURG, because it reaches every process of the job and by default no process reacts to it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within, SIGURG is a request to save and stop; yields a function that returns whether one has been received."""
    received: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGURG, before)
