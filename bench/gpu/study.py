"""A tiny study from scratch to tables, on the device, in a copy of the repository's files."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import ROOT
from ..measure import Row
from .steps import require

NEEDED = ("snakemake", "pydantic", "lm_eval", "reasoning_gym", "tabulate", "scipy", "matplotlib", "accelerate")
COPIED = ("Snakefile", "rules", "workflow", "config", "local", "envs", "constraints.txt", "constraints-vllm.txt")
RESULTS = "results/gpu"
JOBS = 4  # that share the GPU: with so small models, most of a job's time is imports and compilation

# Laid over config/overlays/demo.yaml: one iteration of each loss in bfloat16, and heads as wide as a real model's.
OVERLAY: dict[str, Any] = {
    "results": RESULTS,
    "models": {
        "base": {"scratch": {"hidden": 128, "heads": 2, "layers": 2}},
        "teacher.base": {"scratch": {"hidden": 128, "heads": 2, "layers": 2}},
        "teacher": {"train": {"epochs": 4}},
        "dpo": None,
    },
    "data": {
        "sft": {"reasoning_gym": {"rows": 1000}, "prompts": 256, "shard": 256},
        "heldout": {"prompts": 32},
        "preferences": {"pairs": 64, "shard": 64},
    },
    "logprobs": {"autocast": "bfloat16"},
    "train": {"sft": {"epochs": 4}},
    "eval": {"models": ["sft"], "autocast": "bfloat16"},
    "arms": {"equal": None, "wspin.paper": None},
    "iterations": 1,
}


def run(quick: bool, device: str) -> Iterator[Row]:
    """Seconds and memory of every stage, from the study's own table of costs. Raises `Skipped` without a package."""
    require(NEEDED)
    folder = Path(tempfile.mkdtemp())
    copy_repository(folder)
    make_study(folder)
    yield from costs(folder / RESULTS, device)


def copy_repository(folder: Path) -> None:
    """What a study runs from, with the overlay."""
    import yaml

    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "gpu.yaml").write_text(yaml.safe_dump(OVERLAY))
    programs = folder / "bin"  # the jobs start `python`, which some environments have by another name alone
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)


def make_study(folder: Path) -> None:
    """Run all stages. Raises `AssertionError` with the first line that names the fault."""
    configs = ["--configfile", "config/overlays/demo.yaml", "gpu.yaml"]
    snakemake = [sys.executable, "-m", "snakemake", "--profile", "local", "--resources", f"gpu={JOBS}", *configs]
    environment = os.environ | {"PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])}
    if subprocess.run([*snakemake, "--", "all"], cwd=folder, env=environment).returncode:
        raise AssertionError(fault(folder))


def fault(folder: Path) -> str:
    """The last line of the log that was written last: where a job says what it found."""
    logs = sorted((folder / RESULTS / "logs").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    lines = [(log, line) for log in logs for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1][0].stem}: {lines[-1][1]}" if lines else "snakemake failed before its first job"


def costs(results: Path, device: str) -> Iterator[Row]:
    """Jobs, seconds and peak memory of each stage."""
    from wspin.config.load import read_results
    from wspin.manage.costs import SHARED, job_records, table

    records, unreadable = job_records(results, set(read_results(results).arms))
    if unreadable:
        raise unreadable[0]
    stages = table(record._replace(owner=SHARED) for record in records)
    for row in stages:
        yield Row("study", row.stage, "", 0, "jobs", row.jobs)
        yield Row("study", row.stage, "", 0, "seconds", round(row.wall_hours * 3600, 1))
        yield Row("study", row.stage, "", 0, "gpu_bytes", row.peak_gpu_memory_mb * 2**20)
    if device == "cuda" and not any(row.gpu_hours for row in stages):
        raise AssertionError("no job of the study used the GPU")
