"""One step of the check, in a process of its own: python -m bench.gpu.step NAME DEVICE REPORT [quick].

The report has a line per row as soon as it is measured, and a last line with the outcome.
"""

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..measure import Row, label
from .steps import Ending, Skipped

MODULES = {
    "tests": "bench.gpu.tests",
    "attention": "bench.gpu.attention",
    "study": "bench.gpu.study",
    "training": "bench.gpu.training",
    "evaluation": "bench.gpu.evaluation",
}


def run_step(rows: Iterable[Row], write: Callable[[Any], None]) -> Ending:
    """Write the rows as they come; how the step ended."""
    from wspin.errors import first_line

    try:
        for row in rows:
            write(row)
    except Skipped as reason:
        return Ending("skipped", first_line(reason), ())
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("wspin", "bench"):
            raise
        return Ending("skipped", f"{error.name} is not installed", ())
    except Exception as error:
        traceback.print_exc()
        return Ending("failed", f"{type(error).__name__}: {first_line(error)}", ())
    return Ending("ok", "", ())


def rows_of(name: str, device: str, quick: bool) -> Iterator[Row]:
    """The step's rows, named as the benchmark of its device."""
    for row in importlib.import_module(MODULES[name]).run(quick, device):
        yield row._replace(benchmark=label(row.benchmark, device))


def main(name: str, device: str, report: str, size: str = "") -> None:
    with Path(report).open("a") as file:

        def write(entry: Any) -> None:
            file.write(json.dumps(entry) + "\n")
            file.flush()

        ending = run_step(rows_of(name, device, size == "quick"), write)
        write({"outcome": ending.outcome, "reason": ending.reason})


if __name__ == "__main__":
    main(*sys.argv[1:])
