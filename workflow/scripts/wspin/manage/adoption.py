"""Results that were copied, moved or put beside a fresh clone: Snakemake gets to know what they were made with.

Snakemake keeps outside the results, in `.snakemake`, which flags made a file. Without that it sees times alone: a copy
is made again because of its times, and where the times fit, no edit of a setting is noticed. Every result has a record
of its command, though. The results with another one get metadata that no flags fit, so that the next run makes them
again. Then the times and the metadata of all others are renewed (`snakemake --touch`).
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from wspin.config.load import read_study
from wspin.errors import StudyError
from wspin.storage.files import sha256
from wspin.storage.provenance import check_entries, read_record, record_path
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

from . import marks

Command = dict[str, list[str]]  # flag -> its values; "" -> the sub-command
SCRIPTS = str(Path(__file__).parents[2])
RENAMED = {"--teacher": "--positive-logprobs"}  # flags of earlier versions -> the present ones
TIME = re.compile(r"^\[\w{3} \w{3} +\d+ [\d:]+ \d{4}\]$", re.MULTILINE)  # precedes every job that Snakemake prints
ERROR = re.compile(r"^(?=\w*(?:Error|Exception)\b)", re.MULTILINE)  # where Snakemake's last message begins
JOB = re.compile(
    r"\s*\w*rule (?P<rule>\w+):\n(?P<fields>(?:    \w+: [^\n]*\n)*)Shell command: .*?/scripts/\w+\.py\s(?P<words>.*)",
    re.DOTALL,
)


class PlannedJob(NamedTuple):
    """A job as Snakemake would run it now."""

    rule: str
    wildcards: dict[str, str]
    paths: set[str]  # of its inputs and outputs
    outputs: list[str]
    command: Command


def adopt(configfiles: Sequence[str]) -> Iterator[str]:
    """Adopt the results of the study that config/config.yaml and these overlays describe; yields a line for each that
    was made otherwise, and the total. Raises `StudyError` if Snakemake fails, for example because it runs already.
    """
    paths = StudyPaths(read_study(["config/config.yaml", *configfiles]))
    begun = [job for job in planned_jobs(configfiles) if any(map(os.path.exists, job.outputs))]
    jobs = [job for job in begun if os.path.exists(job.outputs[0])]  # beside or in which the record lies
    differences = {job.outputs[0]: difference(job, paths) for job in jobs}
    others = [job for job in jobs if differences[job.outputs[0]]]
    marks.renew(_outputs(begun), _outputs(others))
    _snakemake(configfiles, "--touch", module=marks.__name__)
    for path in Path(f"{paths.results}/benchmarks").rglob("*.tsv"):
        path.touch()  # Snakemake compares their times as those of outputs
    for job in others:
        yield f"{job.outputs[0]}: {differences[job.outputs[0]]}"
    for job in begun:
        if job not in jobs:
            yield f"{job.outputs[0]}: missing, and with it the record of how {', '.join(job.outputs[1:])} was made"
    yield f"{len(jobs) - len(others)} results adopted; {len(others)} made otherwise, which the next run makes again"


def _outputs(jobs: Sequence[PlannedJob]) -> set[str]:
    return {output for job in jobs for output in job.outputs}


def planned_jobs(configfiles: Sequence[str]) -> list[PlannedJob]:
    """Every job of the study, finished or not, from a dry run."""
    printed = TIME.split(_snakemake(configfiles, "--dry-run", "--printshellcmds"))
    return [_parse_job(match) for match in map(JOB.match, printed) if match]


def _parse_job(match: re.Match) -> PlannedJob:
    fields = dict(re.findall(r"    (\w+): (.*)\n", match["fields"]))
    inputs, outputs = (fields[name].split(", ") if name in fields else [] for name in ("input", "output"))
    wildcards = dict(pair.split("=", 1) for pair in fields["wildcards"].split(", ")) if "wildcards" in fields else {}
    words = shlex.split(match["words"].partition("\nJob stats:\n")[0].replace("\\\n", " "))
    return PlannedJob(match["rule"], wildcards, {*inputs, *outputs}, outputs, parse_command(words))


def parse_command(words: Sequence[str]) -> Command:
    """The values of every flag, and the words before the first one."""
    flag, command = "", {"": []}
    for word in words:
        if word.startswith("--"):
            flag = word
            command[flag] = []
        else:
            command[flag].append(word)
    return command


def difference(job: PlannedJob, paths: StudyPaths) -> str | None:
    """How a result was made otherwise than its job would make it; None if it was not.

    Compared are the flags that re-run a job, the paths of its files, and the contents of its inputs, wherever the
    results lay before.
    """
    try:
        record = read_record(record_path(job.outputs[0]))
        check_entries(record_path(job.outputs[0]), record, ("command", "inputs"))
    except FileNotFoundError:
        return "no record of how it was made"
    except StudyError as error:
        return str(error)
    results, place = paths.results, job.outputs[0].removeprefix(paths.results)
    words = record["command"][1:]
    # Outputs are a command's last words: an input may have an output's name, as a model taken from another study.
    old = next((word.removesuffix(place) for word in reversed(words) if word.endswith(place)), results)
    recorded = parse_command([RENAMED.get(word, _moved(word, old, results)) for word in words])
    if flag := _different_flag(recorded, job, paths):
        before, now = (
            " ".join([flag, *command[flag]]) if flag in command else f"no {flag}" for command in (recorded, job.command)
        )
        return f"made with {before}, now {now}"
    digests = {_moved(path, old, results): digest for path, digest in record["inputs"].items()}
    inputs = [path for path in digests if path in job.paths and os.path.isfile(path)]
    return next((f"made from another {path}" for path in inputs if sha256(path) != digests[path]), None)


def _moved(path: str, old: str, results: str) -> str:
    """A path below the results' old place as one below their present place; any other word as it is."""
    return results + path.removeprefix(old) if path == old or path.startswith(f"{old}/") else path


def _different_flag(recorded: Command, job: PlannedJob, paths: StudyPaths) -> str | None:
    """A flag whose values differ, of those that re-run a job or name its files; None if there is none."""
    tracked = parse_command(getattr(RuleFlags(paths), job.rule)(**job.wildcards))
    present, states = job.command, f"{paths.results}/.state/"

    def is_compared(flag: str) -> bool:
        values = {*recorded.get(flag, ()), *present.get(flag, ())}
        files = (value.startswith(f"{paths.results}/") and not value.startswith(states) for value in values)
        return flag in tracked or flag not in present or not job.paths.isdisjoint(values) or any(files)

    def values(command: Command, flag: str) -> list[str] | None:
        """None for a flag that is absent, or names no file: an earlier version may not have had it."""
        return command.get(flag) or (command.get(flag) if flag in tracked else None)

    flags = [flag for flag in dict.fromkeys((*present, *recorded)) if flag]  # the output tells the sub-command
    different = (flag for flag in flags if values(recorded, flag) != values(present, flag))
    return next(filter(is_compared, different), None)


def _snakemake(configfiles: Sequence[str], *options: str, module: str = "snakemake") -> str:
    """What Snakemake, started by a module, prints with these options for all jobs. Raises `StudyError` if it fails."""
    overlays = ["--configfile", *configfiles] if configfiles else []
    places = filter(None, (SCRIPTS, os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-m", module, "--profile", "local", "--forceall", *options, "all", *overlays]
    done = subprocess.run(command, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        *_, reason = ERROR.split(done.stdout)
        raise StudyError(f"snakemake {options[0]}: {' '.join(reason.split())}")
    return done.stdout
