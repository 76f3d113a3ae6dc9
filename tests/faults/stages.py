"""A small study, finished once, and a job of every rule in it with all that it needs."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workflow
from faults import points
from hub import REVISION, Hub, Repo
from runs import DEMO, results

from wspin.config.load import load_study, merge, merge_files
from wspin.errors import StudyError
from wspin.storage import provenance
from wspin.storage.files import write_yaml

CONFIG = ("config/overlays/demo.yaml", "tests/configs/small.yaml", "tests/configs/tiny.yaml")
JOB = re.compile(
    r"^rule (?P<rule>\w+):\n(?:    .*\n)*?    output: (?P<outputs>.*)\n(?:    .*\n)*Shell command: .*\n"
    r"(?:.*\n)*?.* (?P<command>workflow/scripts/(?:.*\\\n)*.*)\n",
    re.MULTILINE,
)
PINS = "config/revisions.lock.yaml"
STATES = "states"  # of killed jobs, for `clean_state`
PRIVATE = re.compile(r"^\..+\.[0-9a-f]{8}$")  # the folders of `whole_file`

PAIRS = f"{DEMO}/exchange/pairs.jsonl"
FETCHED = f"--revision {REVISION} --state {DEMO}/.state/fetch --output {DEMO}/hub"
EXPORTED = f"--rows {DEMO}/data/prompts.parquet --generations {DEMO}/sft/generations/00.parquet"
EXPORTED += f" --weights {DEMO}/wspin/ite0/weights/00.parquet --output {PAIRS}"
GIVEN = "given.jsonl"  # those pairs, as a study takes them over
SHARD = f"--shard 0 --shard-size 8 --given {GIVEN}"
ANSWERS = f"--model {DEMO}/sft/model --manifest {DEMO}/sft/manifest.json --prompts {DEMO}/data/prompts.parquet {SHARD}"
ANSWERS += " --max-new-tokens 8 --template human-assistant --eos <|endoftext|> --max-prompt-tokens 64 --max-tokens 96"
ANSWERS += f" --eos-on-cut false --output {DEMO}/given/generations.parquet"
WEIGHTS = f"--rows {DEMO}/data/prompts.parquet --generations {DEMO}/sft/generations/00.parquet {SHARD} --eos-weight 1.0"
WEIGHTS += f" --reference {DEMO}/sft/reference/00.parquet --output {DEMO}/given/weights.parquet"
COMMANDS = {  # for people, with the hub, and in place of sampling and of a teacher: their outputs
    f"fetch.py model --hub lab/model {FETCHED}/model --output-manifest {DEMO}/hub.json": "hub/model hub.json",
    f"fetch.py data --hub lab/rows {FETCHED}/rows --splits train": "hub/rows",
    f"fetch.py tasks --hub lab/rows {FETCHED}/tasks": "hub/tasks",
    f"generate_given.py {ANSWERS}": "given/generations.parquet",
    f"weigh_given.py {WEIGHTS}": "given/weights.parquet",
    f"exchange.py export --format tis-dpo {EXPORTED}": "exchange/pairs.jsonl",
    f"exchange.py import --format tis-dpo --train {PAIRS} --output {DEMO}/exchange/given": "exchange/given",
    f"manage.py cost --results {DEMO}": "tables/cost.csv tables/cost.md figures/cost.pdf",
    f"manage.py cards --results {DEMO}": "base/model/README.md dpo/model/README.md sft/model/README.md",
    f"manage.py clean_state --results {DEMO}": "",
    f"manage.py push --results {DEMO}": "",
    "manage.py revisions --configfile unpinned.yaml": "",
}


@dataclass(frozen=True)
class Job:
    """A program with its flags; `name`: its rule, or command."""

    name: str
    argv: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def stage(self) -> str:
        return Path(self.argv[0]).stem.partition("_")[0]

    @property
    def changes(self) -> str:
        """The folder in which it writes."""
        return "config" if "revisions" in self.argv else DEMO


class Study:
    """A study in a copy of the repository, whose programs can be killed."""

    def __init__(self, folder: Path, hub: Hub):
        self.folder, self.results, self.hub = folder, folder / DEMO, hub
        self.copy = workflow.checkout(folder, *CONFIG)
        settings = merge_files([folder / "config/config.yaml", *(folder / file for file in CONFIG)])
        resolved = load_study(merge(settings, {"push": {"model": "sft", "to": "lab/pushed"}}))
        write_yaml(self.results / "config.yaml", resolved.model_dump(mode="json", by_alias=True, exclude_none=True))
        write_yaml(folder / "unpinned.yaml", {"models": {"base": {"hub": "lab/model", "revision": None}}})
        self.planned = list(planned_jobs(self.copy))

    def finish(self) -> None:
        """Run every job of the study, renew the cards as Snakemake's end does, and prepare what the commands need."""
        for job in (*self.planned, self.job("manage.py cards"), self.job("exchange.py export")):
            run = self.run(job)
            assert run.code == 0, run.output
        shutil.move(self.folder / PAIRS, self.folder / GIVEN)
        self._keep_states()
        self.hub.add("model", "lab/model", self.results / "base/model")
        rows = (self.results / "fetched/sft/train.parquet").read_bytes()
        self.hub.add("dataset", "lab/rows").files["data/train-00000-of-00001.parquet"] = rows

    def _keep_states(self) -> None:
        """Those of a training and of a sampling that were killed halfway, for `clean_state`."""
        jobs = [self.job("train"), self.job("generate")]
        for job in jobs:
            operations = self.run(job).operations
            self.remove(job)
            self.run(job, points.Point(len(operations) // 2))
        shutil.copytree(self.results / ".state", self.folder / STATES)
        for job in jobs:
            assert self.run(job).code == 0

    def job(self, name: str) -> Job:
        return next(job for job in self.jobs() if job.name == name)

    def jobs(self) -> list[Job]:
        """One of every rule, the last by its output: that of the last iteration; and the commands."""
        last = {job.name: job for job in sorted(self.planned, key=lambda job: job.outputs)}
        for command, outputs in COMMANDS.items():
            program, action, *flags = command.split()
            name = program if action.startswith("--") else f"{program} {action}"
            argv = (f"workflow/scripts/{program}", action, *flags)
            last[name] = Job(name, argv, tuple(f"{DEMO}/{output}" for output in outputs.split()))
        return list(last.values())

    def program(self, job: Job, **more: Any) -> points.Program:
        return points.Program(job.argv, self.folder, self.folder / job.changes, self.hub.url, **more)

    def run(self, job: Job, point: points.Point | None = None) -> points.Run:
        return self.program(job).run(point)

    def remove(self, job: Job) -> None:
        """Remove a job's outputs, as Snakemake does before it starts one, and what commands have written elsewhere."""
        self.hub.repos.pop("model/lab/pushed", None)
        for output in (*job.outputs, PINS):
            path = self.folder / output
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def reset(self, job: Job) -> None:
        """Remove a job's outputs and all states, but those that `clean_state` is to remove."""
        self.remove(job)
        self.remove_hidden()
        if "clean_state" in job.argv:
            shutil.copytree(self.folder / STATES, self.results / ".state", symlinks=True)

    def remove_hidden(self) -> None:
        """Remove the states of all jobs, and what a killed `whole_file` leaves."""
        for path in list(self.results.rglob(".*")):
            if (path.name == ".state" or PRIVATE.match(path.name)) and path.exists():
                shutil.rmtree(path)

    def published(self) -> dict[str, str]:
        """Hash of every result, and of what commands have written elsewhere."""
        pins, pushed = self.folder / PINS, self.hub.repos.get("model/lab/pushed", Repo()).files
        found = {f"pushed/{name}": content for name, content in pushed.items()}
        found |= {PINS: pins.read_bytes()} if pins.exists() else {}
        for card in self.results.glob("**/model/README.md"):  # with the commit and the hours of the training
            found[str(card.relative_to(self.results))] = b"\n" * card.read_bytes().count(b"\n")
        return results(self.folder) | {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}

    def states(self) -> set[str]:
        """The locks of states that have not been discarded."""
        return {path.name for path in (self.results / ".state").rglob("*.lock")}

    def damaged(self, job: Job, whole: dict[str, str]) -> list[str]:
        """What is at the name of a result and not the whole result, or a record that cannot be read."""
        found = self.published()
        wrong = [name for name, digest in found.items() if whole.get(name) != digest]
        for output in ("pushed", *(output.removeprefix(f"{DEMO}/") for output in job.outputs)):
            names = {name for name in whole if f"{name}/".startswith(f"{output}/") and "README.md" not in name}
            if 0 < len(names & found.keys()) < len(names):
                wrong.append(output)
        for path in provenance.records(self.results):
            try:
                provenance.read_record(path)
            except StudyError as error:
                wrong.append(str(error))
        return wrong


def planned_jobs(copy: workflow.Repository) -> Iterator[Job]:
    """The jobs of a study in the order in which they can run, from a dry run."""
    done = copy.run("--dry-run", "--printshellcmds", "--forceall", "all")
    assert done.returncode == 0, done.stdout
    for match in JOB.finditer(done.stdout):
        words = shlex.split(match["command"].replace("\\\n", " "))
        yield Job(match["rule"], tuple(words), tuple(match["outputs"].split(", ")))
