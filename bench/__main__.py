"""Runs benchmarks and writes docs/benchmarks.csv, .md and .svg; see `make bench`.

python -m bench                    # all of them, about half an hour
python -m bench training memory    # some; the numbers of the others stay
python -m bench --quick            # a smoke test in a minute; writes nothing
python -m bench --device cuda      # our side of training and scoring on a GPU, in bfloat16
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import ROOT
from .goals import goals
from .measure import Row, apart, label, machine, run
from .numbers import Numbers, read
from .page import NAME, write

BENCHMARKS = ("training", "weighing", "generating", "memory", "growth", "work", "workflow", "cost")
ON_GPU = ("training",)  # what runs there: scoring is a part of it


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="minute models, one round, and nothing is written")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the three files")
    arguments = parser.parse_args()
    if unknown := set(arguments.benchmarks) - set(BENCHMARKS):
        parser.error(f"expected some of {', '.join(BENCHMARKS)}, found {', '.join(sorted(unknown))}")
    chosen = arguments.benchmarks or (BENCHMARKS if arguments.device == "cpu" else ON_GPU)
    here = apart(machine, arguments.device)
    rows = [] if arguments.quick else earlier(arguments.output / f"{NAME}.csv", here)
    for name in chosen:
        began = time.time()
        made = apart(run, name, arguments.quick, arguments.device)
        print(f"bench: {name}: {len(made)} numbers, {time.time() - began:.0f} s", flush=True)
        rows = [row for row in rows if row.benchmark != label(name, arguments.device)] + made
        if arguments.quick:
            sys.stdout.writelines(f"{' '.join(map(str, row))}\n" for row in made)
        else:
            write(rows + here, arguments.output)
    failed = [goal.metric for goal in goals(Numbers(rows)) if goal.gated and goal.verdict == "**missed**"]
    if failed and not arguments.quick:
        sys.exit(f"bench: missed: {'; '.join(failed)}")


def earlier(path: Path, here: list[Row]) -> list[Row]:
    """Numbers of earlier runs, which stay beside those of this machine; none if theirs was another."""
    rows = read(path)
    label = here[0].benchmark
    before = [row for row in rows if row.benchmark == label]
    if before and before != here:
        print(f"bench: {path}: made on another machine or with other versions; starting anew", flush=True)
        return []
    return [row for row in rows if row.benchmark != label]


if __name__ == "__main__":
    main()
