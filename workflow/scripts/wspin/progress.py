"""Progress of a long loop: a line with the time left, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable


def progress_printer(what: str, total: int, every: float = 30.0) -> Callable[[int], None]:
    """A line with the time left every so many seconds; call it with the number done."""
    began = told = time.time()

    def tell(done: int) -> None:
        nonlocal told
        if time.time() - told > every or done == total:
            told = time.time()
            left = (told - began) / done * (total - done)
            print(f"{what}: {done} of {total}  {left:.0f} s left", flush=True)

    return tell
