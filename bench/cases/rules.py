"""A study of real size through the rules: from nothing to the second iteration of an arm and its table of weights.

Its models are tiny and its texts are short sums, so that it ends within minutes on a CPU; rows, shards, jobs and
files are those of a study. Every program writes at its end what it has taken: a `sitecustomize` makes it do so.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import ROOT
from ..measure import Row, processor

sys.path.append(str(ROOT / "tests"))  # for copies of the repository

from workflow import Repository, checkout, environment

CONFIG = ("config/overlays/demo.yaml", "tests/configs/small.yaml", "tests/configs/tiny.yaml")
TARGETS = ("results/demo/wspin/ite1/manifest.json", "results/demo/tables/weights.csv")
CONTEXT = 160  # tokens, which every sum fits
SPARE = 1.6  # rows of the source for each prompt: a fifth is held out, and equal sums are dropped
SITE = """
import atexit, json, os, resource, sys


def write():
    place, program = os.path.split(sys.argv[0])
    if place == "workflow/scripts":
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        taken = {"cpu_seconds": sum(usage.ru_utime + usage.ru_stime for usage in usages)}
        taken["bytes"] = 1024 * max(usage.ru_maxrss for usage in usages)
        stage = program.removesuffix(".py").partition("_")[0]
        with open(os.path.join(os.path.dirname(__file__), f"{stage}-{os.getpid()}.json"), "w") as file:
            json.dump(taken, file)


atexit.register(write)
"""


@dataclass(frozen=True)
class Case:
    prompts: int
    shard: int
    targets: tuple[str, ...] = TARGETS


FULL, QUICK = Case(50_000, 10_000), Case(50, 25, ("results/demo/data/prompts.parquet",))


def run(quick: bool, device: str) -> Iterator[Row]:
    case = QUICK if quick else FULL
    limits = yaml.safe_load((ROOT / "config/config.yaml").read_text())["resources"]
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(checkout(Path(folder, "study"), *CONFIG).overlay(settings(case)), case, Path(folder))
    for stage, jobs in measured.items():
        quantities = {"jobs": len(jobs), "cpu_seconds": sum(job["cpu_seconds"] for job in jobs)}
        quantities |= {"bytes": max(job["bytes"] for job in jobs), "limit_bytes": limits[stage]["mem_mb"] * 10**6}
        yield from (Row("rules", stage, "", 0, *entry) for entry in quantities.items())
    yield Row("rules", "machine", "", 0, "processor", processor())


def settings(case: Case) -> dict[str, Any]:
    sums = {"chain_sum": {"min_digits": 2, "max_digits": 4, "min_terms": 2, "max_terms": 4}}
    rows = {"rows": round(SPARE * case.prompts), "tasks": {"spell_backward": None, **sums}}
    models = {name: {"scratch": {"context": CONTEXT}} for name in ("base", "teacher.base")}
    return {
        "models": models,
        "data": {"sft": {"reasoning_gym": rows, "prompts": case.prompts, "shard": case.shard}},
        "dialogue": {"max_prompt_tokens": CONTEXT - 32, "max_tokens": CONTEXT},
        "train": {"global_batch": 64, "save_every": 500, "sft": {"global_batch": 64, "epochs": 1}},
    }


def measure(study: Repository, case: Case, folder: Path) -> dict[str, list[dict[str, float]]]:
    """CPU-seconds and peak bytes of every program of a run, by stage in the order of their first ends."""
    (folder / "sitecustomize.py").write_text(SITE)
    command = study.command(*case.targets)
    done = subprocess.run(
        command, cwd=study.folder, env=environment() | {"PYTHONPATH": str(folder)}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stages = defaultdict(list)
    for file in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime):
        stages[file.stem.partition("-")[0]].append(json.loads(file.read_text()))
    return dict(stages)
