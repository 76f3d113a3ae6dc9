"""Copies of the repository in which Snakemake runs, and what its dry runs plan."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

ROOT = Path(__file__).parent.parent
TWO_ARMS = "tests/configs/two_arms.yaml"
WEIGHED = "tests/configs/weighed.yaml"
JOB = re.compile(r"^\w*rule (?P<rule>\S+):\n(?P<lines>(?:    .*\n)+)", re.MULTILINE)
TABLE = re.compile(r"^Job stats:\njob +count\n[- ]+\n(?P<rows>(?:\S+ +\d+\n)+?)total +(?P<total>\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    rule: str
    outputs: tuple[str, ...]


class Plan:
    """The jobs that a dry run lists: each of them, and how many of each rule."""

    def __init__(self, text: str):
        self.jobs = [Job(found["rule"], _outputs(found["lines"])) for found in JOB.finditer(text)]
        self.counts = dict(Counter(job.rule for job in self.jobs))
        table = TABLE.search(text)
        told = dict(row.split() for row in table["rows"].splitlines()) if table else {}
        assert {rule: int(count) for rule, count in told.items()} == self.counts, text
        assert table or "Nothing to be done" in text, text

    def made(self, *rules: str) -> set[str]:
        """Outputs of the planned jobs; of some rules, if they are named."""
        return {output for job in self.jobs if not rules or job.rule in rules for output in job.outputs}


def _outputs(lines: str) -> tuple[str, ...]:
    found = re.search(r"^    output: (.*)$", lines, re.MULTILINE)
    return tuple(found[1].split(", ")) if found else ()


@dataclass(frozen=True)
class Repository:
    """A copy of the repository, with the configuration that its runs are given."""

    folder: Path
    configfiles: tuple[str, ...] = ()

    def copy(self, to: Path) -> Self:
        """A copy with everything that was made in it, times included."""
        shutil.copytree(self.folder, to)
        return Repository(to, self.configfiles)

    def use_stubs(self) -> None:
        """Replace the programs, so that a study is finished in seconds."""
        for program in (self.folder / "workflow/scripts").glob("*.py"):
            shutil.copy(ROOT / "tests/stub.py", program)

    def overlay(self, edit: dict[str, Any]) -> Self:
        """The same folder with one more configuration file, `edit.yaml`."""
        (self.folder / "edit.yaml").write_text(yaml.safe_dump(edit, sort_keys=False))
        return Repository(self.folder, (*self.configfiles, "edit.yaml"))

    def command(self, *arguments: str) -> list[str]:
        given = ["--configfile", *self.configfiles] if self.configfiles else []
        return [sys.executable, "-m", "snakemake", "--profile", "local", *arguments, *given]

    def run(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """Run Snakemake; its output and errors come back together."""
        command = [*before, *self.command(*arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def make(self, *arguments: str) -> None:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout

    def plan(self, *arguments: str, before: tuple[str, ...] = ()) -> Plan:
        done = self.run("--dry-run", *arguments, before=before)
        assert done.returncode == 0, done.stdout
        return Plan(done.stdout)


def checkout(folder: Path, *configfiles: str) -> Repository:
    """A copy of the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return Repository(folder, configfiles)


def environment() -> dict[str, str]:
    """The environment of a user's shell: nothing of the tests' own, and this Python's programs first."""
    ours = ("PYTEST", "SNAKEMAKE", "HF_", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])}
