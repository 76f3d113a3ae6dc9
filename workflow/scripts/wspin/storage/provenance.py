"""Provenance records: when a result was computed, from which inputs, code and versions, with how much time and memory.

They are kept out of the results, so that equal work gives equal bytes: a model's record lies in its folder (not hashed
by the manifest), a file's beside it as `{name}.provenance.json`. The target `stale` reads these records.
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wspin.credentials import without_credentials
from wspin.errors import StudyError
from wspin.escaping import escaped

from .code_hash import SCRIPTS, code_hash
from .files import read_json, sha256, write_checked_json

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "lm_eval", "reasoning-gym")
PACKAGES += ("pyarrow", "numpy", "pandas", "scipy", "matplotlib")

PROFILES = ("local", "slurm")  # of Snakemake

NUMBER = (int, float)
LARGEST = 10**15  # of a number in a record, in its unit
NAMES = {str: "a text", list: "a list", dict: "an object", NUMBER: "a number"}
REMEDY = "make the result again"
ENTRIES = {  # types of the entries that are read again
    **dict.fromkeys(("program", "code", "started", "commit", "sha256", "curve"), str),
    **dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_mb"), NUMBER),
    **dict.fromkeys(("inputs", "versions", "settings", "gpus"), dict),
    "command": list,
}
OF_TEXTS = ("command", "inputs", "versions")
GPUS = {"count": NUMBER, "name": str, "peak_memory_mb": NUMBER}


def record_path(output: str | Path) -> Path:
    """Where the record of an output lies."""
    output = Path(output)
    return output / "provenance.json" if output.is_dir() else output.with_name(output.name + ".provenance.json")


def record(command: list[str], program: str, started: float, inputs: Iterable[str], **more: Any) -> dict[str, Any]:
    """The record of a run of `command` that began at `started` (time.time()); `more` are further entries."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "program": program,
        "code": code_hash(program),
        "commit": _commit(),
        "command": [without_credentials(word) for word in command],
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
    """GPUs of this run and the memory that torch reserved on one, if it used any; torch is not imported for this."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    name, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_reserved() // 2**20
    processes = int(os.environ.get("WORLD_SIZE", 1))  # a training has one on each GPU
    return {"gpus": {"count": processes, "name": name, "peak_memory_mb": peak}}


def write_record(output: str | Path, entry: dict[str, Any]) -> None:
    write_checked_json(record_path(output), entry)


def read_record(path: str | Path) -> dict[str, Any]:
    """The record in a file. Raises `StudyError` if it is none or an entry has another type, and FileNotFoundError."""
    entries = read_json(path, "a record", REMEDY)
    _check_types(str(path), entries, ENTRIES)
    for key in OF_TEXTS:
        values = entries.get(key, [])
        for value in values.values() if isinstance(values, dict) else values:
            _check_types(str(path), {key: value}, {key: str})
    _check_types(f"{path}: gpus", entries.get("gpus", {}), GPUS)
    check_entries(path, entries, ("program", "code"))
    return entries


def _check_types(place: str, entries: dict[str, Any], kinds: dict[str, Any]) -> None:
    for key, kind in kinds.items():
        value = entries.get(key)
        if key in entries and not (isinstance(value, kind) and (kind != NUMBER or abs(value) < LARGEST)):
            found = f"expected {NAMES[kind]}, found {value!r:.60}"
            raise StudyError(f"{place}: {key}: {found}; {REMEDY}")


def check_recorded(output: str | Path) -> None:
    """Compare a file that can hold no checksum with its hash in its record, if there is one. Raises `StudyError`."""
    with contextlib.suppress(FileNotFoundError):
        expected = read_record(record_path(output)).get("sha256")
        if expected and expected != sha256(output):
            raise StudyError(f"{output}: expected the bytes of its record, found others: it is damaged; make it again")


def check_entries(path: Path, entries: dict[str, Any], keys: Iterable[str]) -> None:
    """Raises `StudyError` unless a record has entries under all these keys."""
    if missing := [key for key in keys if key not in entries]:
        raise StudyError(f"{path}: expected the entries of a record, found no {', '.join(missing)}; {REMEDY}")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions, read without importing anything."""
    installed = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def _commit() -> str:
    """The checked-out commit, with the suffix `-dirty` if the tree differs; `unknown`, with a line, if git has none.

    Profiles may differ: they say where jobs run. Git refuses the repository of another user, as its configuration may
    name programs that git runs. That is not overridden: the hash of the code identifies it.
    """
    profiles = (f":(top,exclude){name}" for name in PROFILES)
    try:
        commit = _git("describe", "--always", "--abbrev=40")
        differs = _git("diff", "HEAD", "--name-only", "--", ":(top)", *profiles)
    except (OSError, subprocess.CalledProcessError) as error:
        found = (getattr(error, "stderr", "") or str(error)).partition("\n")[0]
        print(f"commit: unknown, git does not read {SCRIPTS.parents[1]} ({escaped(found)})", flush=True)
        return "unknown"
    return f"{commit}-dirty" if differs else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(SCRIPTS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def manifests(*folders: str | Path | None) -> list[str]:
    """What jobs track in place of fetched folders and models: their `{folder}.json` and `manifest.json`, if there."""
    named = [Path(folder) for folder in folders if folder]
    paths = [path for folder in named for path in (Path(f"{folder}.json"), folder.with_name("manifest.json"))]
    return [str(path) for path in paths if path.exists()]


def records(results: Path) -> Iterator[Path]:
    """Paths of the records below a folder of results, without those of nested studies, and of interrupted uploads and
    killed writes, whose folders are hidden.
    """
    for folder, below, names in os.walk(results):
        nested = {name for name in below if (Path(folder) / name / "config.yaml").exists()}
        below[:] = sorted(name for name in set(below) - nested if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith("provenance.json"))


def record_output(path: Path) -> Path:
    """The output that a record belongs to."""
    return path.parent if path.name == "provenance.json" else path.with_name(path.name.removesuffix(".provenance.json"))
