"""Progress of a long loop: now and then a line with the time left."""

import time
from collections.abc import Callable


def progress_printer(label: str, total: int, every: float = 30.0) -> Callable[..., None]:
    """A function `(done, kept=0)` that prints at most one line in `every` seconds, and one at the end.

    `kept`: how many of those done an earlier attempt had done, which say nothing about the speed of this one.
    """
    started = printed = time.time()

    def print_progress(done: int, kept: int = 0) -> None:
        nonlocal printed
        if done == total or (time.time() - printed > every and done > kept):
            printed = time.time()
            left = (printed - started) / (done - kept) * (total - done) if done > kept else 0.0
            print(f"{label}: {done} of {total}  {span(left)} left", flush=True)

    return print_progress


def span(seconds: float) -> str:
    """Seconds for a reader: `40 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
