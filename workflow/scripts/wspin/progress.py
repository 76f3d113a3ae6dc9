"""Progress of a long loop: now and then a line with its rate and the time left, in one form for every stage.

generate: 1200 of 10000 answers  4.2/s  35 min left
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 30.0  # seconds between two lines


def progress_printer(label: str, total: int, unit: str, brief: bool = False) -> Callable[..., None]:
    """A function `(done, kept=0)` that prints at most one line in `EVERY` seconds, and one at the end.

    `kept`: how many of those done an earlier attempt had done, which say nothing about the speed of this one. `brief`:
    no line at the end of a loop that has printed none before, one of many in a log.
    """
    started = printed = time.time()

    def print_progress(done: int, kept: int = 0) -> None:
        nonlocal printed
        now = time.time()
        due = now - printed > EVERY and done > kept
        if due or (done == total and (printed > started or not brief)):
            printed = now
            print(progress_line(label, done, total, unit, done - kept, now - started), flush=True)

    return print_progress


def with_progress(items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
    """The items, of which there are `total`, with lines on how many have been used, none for a short loop."""
    print_progress = progress_printer(label, total, unit, brief=True)
    for done, item in enumerate(items, 1):
        yield item
        print_progress(done)


def progress_line(label: str, done: int, total: int, unit: str, new: int, seconds: float, details: str = "") -> str:
    """One line of progress, of which `new` have been done in these seconds; `details` stand in place of their rate."""
    left = f"  {span(seconds / new * (total - done))} left" if new else ""
    speed = details or (rate(new, seconds) if new and seconds > 0 else "")
    return f"{label}: {done} of {total} {unit}" + f"  {speed}" * bool(speed) + left


def rate(count: float, seconds: float) -> str:
    """How many in a second, or where that is less than one, in a minute or an hour: `310/s`, `4.2/s`, `12/min`."""
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if (value := count / seconds * length) >= 1 or unit == "h":
            break
    return f"{value:.1f}/{unit}" if value < 10 else f"{value:.0f}/{unit}"


def span(seconds: float) -> str:
    """Seconds for a reader: `40 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
