"""Who made a result, when, with which code, versions, inputs, time and memory.

Kept out of the results themselves, so that equal work gives equal bytes: a model's record lies in its folder (not
hashed by the manifest), a file's beside it as `{name}.provenance.json`. The target `stale` reads these records.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .code_hash import SCRIPTS, code_hash
from .files import sha256, write_json

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "datasets",
    "pyarrow",
    "numpy",
    "scipy",
    "matplotlib",
    "lm_eval",
    "reasoning-gym",
)


def record_path(output: str | Path) -> Path:
    """Where the record of an output lies."""
    output = Path(output)
    return output / "provenance.json" if output.is_dir() else output.with_name(output.name + ".provenance.json")


def record(program: str, started: float, inputs: list[str], **more: Any) -> dict[str, Any]:
    """The record of a run that began at `started` (time.time()); `more` is whatever else is worth keeping."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "program": program,
        "code": code_hash(program),
        "commit": _commit(),
        "command": sys.argv,
        "host": platform.node(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mb": usage.ru_maxrss // 1024,
        "versions": versions(),
        "inputs": {path: sha256(path) for path in inputs},
        **_gpus(),
        **more,
    }


def _gpus() -> dict[str, Any]:
    """GPUs of this run and the memory that torch held on its own, if it used any; torch is not imported for that."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    name, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_reserved() // 2**20
    processes = int(os.environ.get("WORLD_SIZE", 1))  # of a training: one on each GPU
    return {"gpus": {"count": processes, "name": name, "peak_memory_mb": peak}}


def write_record(output: str | Path, entry: dict[str, Any]) -> None:
    write_json(record_path(output), entry)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions, read without importing anything."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The checked-out commit, with a mark if the tree differs from it."""
    command = ["git", "-C", str(SCRIPTS), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def records(results: Path) -> Iterator[Path]:
    """The records below a folder of results, those of other studies left out."""
    for folder, below, names in os.walk(results):
        below[:] = sorted(name for name in below if not (Path(folder) / name / "config.yaml").exists())
        yield from (Path(folder) / name for name in sorted(names) if name.endswith("provenance.json"))


def record_output(path: Path) -> Path:
    """The output that a record belongs to."""
    return path.parent if path.name == "provenance.json" else path.with_name(path.name.removesuffix(".provenance.json"))
