"""Run benchmarks and write docs/benchmarks.csv, .md and .svg; see `make bench`.

python -m bench                    # all of them, about an hour
python -m bench training memory    # two of them; the numbers of the others stay
python -m bench --quick            # a smoke test in a minute; writes nothing
python -m bench --device cuda      # training, scoring and evaluation on a GPU, in bfloat16; TRL if it is installed
"""

import argparse
import sys
import time
from pathlib import Path

from . import ROOT
from .measure import Row, in_new_process, label, machine, run_case
from .page.goals import goals
from .page.numbers import Numbers, read
from .page.page import NAME, write

BENCHMARKS = (
    *("training", "weighing", "generating", "evaluation", "preparation"),
    *("scale", "rules", "memory", "growth", "work", "workflow", "cost"),
)
ON_GPU = ("training", "evaluation")  # training includes scoring


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="minute models, one round; writes nothing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the three files")
    arguments = parser.parse_args()
    if unknown := set(arguments.benchmarks) - set(BENCHMARKS):
        parser.error(f"expected some of {', '.join(BENCHMARKS)}, found {', '.join(sorted(unknown))}")
    names = arguments.benchmarks or (BENCHMARKS if arguments.device == "cpu" else ON_GPU)
    this_machine = in_new_process(machine, arguments.device)
    rows = [] if arguments.quick else earlier_rows(arguments.output / f"{NAME}.csv", this_machine)
    for name in names:
        began = time.time()
        new = in_new_process(run_case, name, arguments.quick, arguments.device)
        print(f"bench: {name}: {len(new)} numbers, {time.time() - began:.0f} s", flush=True)
        rows = [row for row in rows if row.benchmark != label(name, arguments.device)] + new
        if arguments.quick:
            sys.stdout.writelines(f"{' '.join(map(str, row))}\n" for row in new)
        else:
            write(rows + this_machine, arguments.output)
    missed = [goal.metric for goal in goals(Numbers(rows)) if goal.gated and goal.verdict == "**missed**"]
    if missed and not arguments.quick:
        sys.exit(f"bench: missed: {'; '.join(missed)}")


def earlier_rows(path: Path, this_machine: list[Row]) -> list[Row]:
    """Numbers of earlier runs, without the machine's description; empty if they come from another machine."""
    rows, benchmark = read(path), this_machine[0].benchmark
    machine_before = [row for row in rows if row.benchmark == benchmark]
    if machine_before and machine_before != this_machine:
        print(f"bench: {path}: from another machine or other versions; starting from nothing", flush=True)
        return []
    return [row for row in rows if row.benchmark != benchmark]


if __name__ == "__main__":
    main()
