"""What every program does around its work: parse flags, write records, report a user's mistakes in one line each."""

import argparse
import gc
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from wspin.config.base import PRECISIONS, Section
from wspin.config.flags import add_flags, from_flags
from wspin.credentials import drop_credentials
from wspin.errors import StudyError, shown_line
from wspin.escaping import one_line
from wspin.storage import provenance
from wspin.storage.files import sha256, whole_file
from wspin.storage.permissions import error_line

# Help of required flags, the same in every program that has them
HELP = {
    "--eos": "end-of-answer token of the study",
    "--manifest": "manifest of the model: hashes of its files",
    "--max-new-tokens": "longest answer, EOS included",
    "--metrics": "training curve to be written, one line of JSON per step",
    "--model": "folder of the model",
    "--output": "file or folder to be written",
    "--output-digest": "digest of the rows, to be written (JSON)",
    "--output-manifest": "manifest to be written: hashes of the files",
    "--prompts": "prompts.parquet",
    "--rows": "table of the rows (prompts.parquet or preferences.parquet)",
    "--samples": "documents with their answers, to be written (parquet)",
    "--scores": "scores of the suite, to be written (JSON)",
    "--seed": "seed of the study or arm, and the iteration",
    "--shard": "number of the shard, counted from 0",
    "--shard-size": "rows of a shard",
    "--source": "folder of the fetched data set",
    "--split": "split that the rows are drawn from",
    "--state": "folder from which a killed job resumes",
    "--suite": "name of the suite",
    "--tasks": "folder of the suite's fetched tasks",
    "--template": "template of the model's prompts",
    "--training": "folder of the fetched data set that is trained on",
    "--training-split": "split of that data set; rows with a prompt of it are left out",
}


def program_parser(program: str, description: str | None, *sections: type[Section]) -> argparse.ArgumentParser:
    """A parser with one flag for each key of the sections; the program adds the flags of its files."""
    parser = argparse.ArgumentParser(
        prog=f"{program}.py",
        description=_with_continuations(description or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(program=program, started=time.time())
    for section in sections:
        add_flags(parser, section)
    return parser


def _with_continuations(docstring: str) -> str:
    """The text with the lines of its commands apart: Python joins those that end in a backslash."""
    return re.sub(r"(?<=\S) {8,}(?=\S)", r" \\\n        ", docstring)


def add_required(parser: argparse.ArgumentParser, *flags: str, **options: Any) -> None:
    """Add required flags that share the `options` of `add_argument`, with their help in `HELP`."""
    for flag in flags:
        parser.add_argument(flag, required=True, **{"help": HELP[flag], **options})


def add_shown_scores(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flags of the scores that a table shows."""
    parser.add_argument("--results", required=True, help="folder of the results")
    parser.add_argument("--models", required=True, nargs="+", metavar="MODEL", help="models to show")
    parser.add_argument("--suites", required=True, nargs="+", metavar="SUITE", help="suites to show")
    parser.add_argument("--metrics", required=True, nargs="+", metavar="TASK=METRIC", help="metric to show")


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flag of means of tasks."""
    parser.add_argument("--groups", nargs="*", default=[], metavar="GROUP=TASK,TASK", help="means of tasks to show")


def add_replicates(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flag of arms and models that are shown as one."""
    help = "pairs of an arm or model and a replicate of it with another seed"
    parser.add_argument("--replicates", nargs="*", default=[], metavar="ARM=REPLICATE", help=help)


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flag of the seeds, of (name, seed) pairs."""
    help = "of arms and models of the registry"
    parser.add_argument("--seeds", nargs="*", default=[], type=named_seed, metavar="ARM=SEED", help=help)


def add_weighted_iterations(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flags of the files of weighted iterations."""
    add_required(parser, "--prompts")
    parser.add_argument("--shards", required=True, nargs="+", help="names of the shards: `examples` reads one")
    parser.add_argument("--iterations", nargs="*", default=[], help="iterations with token weights")
    for flag in ("--weights", "--reference", "--generations"):
        parser.add_argument(flag, nargs="*", default=[], metavar="FOLDER", help="one for each iteration")


def add_token(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flags that name a study and a pair of it."""
    parser.add_argument("--arm", required=True, help="an arm with token weights")
    parser.add_argument("--iteration", required=True, type=int, help="number of the iteration")
    parser.add_argument("--prompt", required=True, metavar="ID", help="prompt_id of the pair")
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays of config/config.yaml, in order")


def named_seed(text: str) -> tuple[str, int]:
    """(name, seed) of `name=seed`. Raises `ValueError` if the seed is no integer."""
    name, _, seed = text.rpartition("=")
    return name, int(seed)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flag of a model that need not be loaded in float32."""
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="of the model's weights")


def parse_section(arguments: argparse.Namespace, section: type[Section]) -> Any:
    """The section that the flags describe. Raises `StudyError` for a missing value that the others make necessary."""
    settings = from_flags(arguments, section)
    for key in settings.missing_keys():
        flag = "--" + key.replace("_", "-")
        raise StudyError(f"{flag}: expected a value, found none; nothing is defaulted silently")
    return settings


def write_outputs(arguments: argparse.Namespace, outputs: Mapping[str, bytes], inputs: Iterable[str]) -> None:
    """Write the content of every output, print their names, and write their records."""
    for path, content in outputs.items():
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    print(f"{arguments.program}: {', '.join(outputs)}", flush=True)
    write_records(arguments, outputs, inputs)


def write_records(arguments: argparse.Namespace, outputs: Iterable[str], inputs: Iterable[str], **more: Any) -> None:
    """Write the provenance record of this run beside each output; `more` are further entries."""
    entry = provenance.record(sys.argv, arguments.program, arguments.started, inputs, **more)
    for output in outputs:
        hashed = {"sha256": sha256(output)} if Path(output).is_file() else {}
        provenance.write_record(output, {**entry, **hashed})


def print_lines(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Print every text on one line, whatever foreign names it holds; `file`: standard output by default."""
    for line in lines:
        print(one_line(line), file=file)


def run(main: Callable[[], None], online: bool = False) -> None:
    """Run a program: a `StudyError` or failed disk operation ends it with exit code 1 and a line for each mistake.

    No line of an error holds credentials. `online`: the program uses them; others run without them in the environment,
    and so do the libraries and the tasks' code that they load.
    """
    name = Path(sys.argv[0]).name
    if not online:
        drop_credentials()
    _print_slurm_job(name)
    try:
        main()
    except StudyError as error:
        sys.exit("\n".join(f"{name}: error: {line}" for line in error.args))
    except OSError as error:
        sys.exit(f"{name}: error: {shown_line(error_line(error))}")
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            sys.exit("\n".join(map(shown_line, traceback.format_exc().rstrip("\n").split("\n"))))
        sys.exit(f"{name}: error: the GPU has too little memory; lower token_budget or batch_size")
    finally:
        gc.freeze()  # the collection at exit would go through all of torch: half a second


def _print_slurm_job(name: str) -> None:
    """In a job that Snakemake submitted to SLURM, begin the log with its number: `status` finds a requeued job by it.

    Not in an allocation in which Snakemake itself runs: its number is that of no job of the study.
    """
    job, array, task = (os.environ.get(f"SLURM_{part}") for part in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    first = os.environ.get("RANK", "0") == "0"  # of the processes of a training
    if job and first and "WSPIN_SUBMITTED" in os.environ:
        print(f"{name}: SLURM job {f'{array}_{task}' if array else job} on {os.uname().nodename}", flush=True)
