"""The first hour on a GPU as one command; see `make check-gpu` and docs/gpu.md.

python -m bench.gpu           # every step, at most 8 minutes; writes docs/gpu.json and docs/gpu.md
python -m bench.gpu --page    # write the page again from the stored results, or from none
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from .. import ROOT
from ..measure import in_new_process
from .machine import cuda_problem, facts
from .page import MINUTES, NAME, page, read, write
from .steps import STEPS, run_steps, start_step

DOCS = ROOT / "docs"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to test the check itself")
    parser.add_argument("--quick", action="store_true", help="the smallest cases; on a CPU always")
    names = [step.name for step in STEPS]
    parser.add_argument("--steps", nargs="+", choices=names, default=names, help="some of them")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the two files")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args(arguments)
    options.quick |= options.device == "cpu"
    if options.page:
        (options.output / f"{NAME}.md").write_text(page(read(options.output / f"{NAME}.json")))
    elif options.output.resolve() == DOCS and (options.quick or len(set(options.steps)) < len(STEPS)):
        parser.error("expected another folder by --output: the page in docs is of all steps, whole cases, on a GPU")
    elif options.device == "cuda" and (problem := cuda_problem()):
        sys.exit(f"check-gpu: {problem}; nothing has been changed")
    else:
        run(options)


def run(options: argparse.Namespace) -> None:
    """Run the steps, and write what has been found after each; exits with 1 if one failed or ran out of time."""
    about = {"device": options.device, "quick": options.quick, "minutes": options.minutes}
    about["machine"] = in_new_process(facts, options.device)
    results, steps = [], [step for step in STEPS if step.name in options.steps]
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="check-gpu-", ignore_cleanup_errors=True) as scratch:
        start = partial(start_step, device=options.device, quick=options.quick, scratch=Path(scratch))
        for result in run_steps(steps, options.minutes * 60, start):
            print(f"check-gpu: {result.line}", flush=True)
            results.append(result)
            write(results, about, options.output)
    if any(result.ending.outcome in ("failed", "out of time") for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
