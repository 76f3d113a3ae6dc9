"""Progress of a long loop: now and then a line with the time left."""

import time
from collections.abc import Callable


def progress_printer(label: str, total: int, every: float = 30.0) -> Callable[[int], None]:
    """A function of the number done that prints at most one line in `every` seconds, and one at the end."""
    started = printed = time.time()

    def print_progress(done: int) -> None:
        nonlocal printed
        if time.time() - printed > every or done == total:
            printed = time.time()
            left = (printed - started) / done * (total - done)
            print(f"{label}: {done} of {total}  {left:.0f} s left", flush=True)

    return print_progress
