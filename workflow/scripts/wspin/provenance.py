"""Who made a result, when, with which code, versions, inputs, time and memory.

Kept out of the results themselves, so that equal work gives equal bytes: a model's record lies in its folder (not
hashed by the manifest), a file's beside it as `{name}.provenance.json`. The target `stale` reads these records.
"""

from __future__ import annotations

import ast
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .files import sha256, write_json

SCRIPTS = Path(__file__).parent.parent
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


# Packages and modules that read, check and record what is asked for, but compute nothing.
AROUND = ("wspin.program", "wspin.flags", "wspin.checks", "wspin.sections", "wspin.origins", "wspin.running")
AROUND += ("wspin.config", "wspin.configfile", "wspin.study", "wspin.relations", "wspin.commands")
AROUND += ("wspin.provenance", "wspin.imports", "wspin.cards")


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


def code_hash(program: str) -> str:
    """Hash of a program and of the modules of the library that it imports and that can change a result.

    Comments and docstrings are left out, and so are the packages around the work: flags, checks, records.
    """
    modules = {path: ast.unparse(_without_docstrings(ast.parse(path.read_text()))) for path in code_files(program)}
    text = "\n".join(modules[path] for path in sorted(modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_files(program: str) -> set[Path]:
    """The files that `code_hash` covers: the program, and all that it imports from the library but `AROUND`."""
    pending, found = [SCRIPTS / f"{program}.py"], set()
    while pending:
        path = pending.pop()
        if path not in found and not _is_around(path):
            found.add(path)
            pending += _imported(path)
    return found


def module_name(path: Path) -> str:
    """The dotted name of a file of the library; of a package's `__init__.py` the package's."""
    return ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")


def _is_around(path: Path) -> bool:
    name = module_name(path)
    return any(name == one or name.startswith(f"{one}.") for one in AROUND)


def _imported(path: Path) -> Iterator[Path]:
    """Files of the library that a file imports, wherever in it, whether by absolute or relative names."""
    package = path.relative_to(SCRIPTS).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield from _files((*module, alias.name))


def _files(name: Sequence[str]) -> Iterator[Path]:
    """Files that are run when `name`, a module or something in one, is imported: the packages above it run too."""
    for depth in range(1, len(name) + 1) if name[0] == "wspin" else ():
        place = SCRIPTS.joinpath(*name[:depth])
        yield from (path for path in (place / "__init__.py", place.parent / f"{place.name}.py") if path.is_file())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[:] = body[1:] or [ast.Pass()]
    return tree


def _commit() -> str:
    """The checked-out commit, with a mark if the tree differs from it."""
    command = ["git", "-C", str(SCRIPTS), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def stale(results: Path) -> list[tuple[Path, str]]:
    """(output, program) of every result that was made by other code than the present one.

    Another study's results below this folder, known by their own `config.yaml`, are left to their study.
    """
    present: dict[str, str | None] = {}
    programs = ((path, other_code(path, present)) for path in records(results))
    return [(record_output(path), program) for path, program in programs if program]


def other_code(path: Path, present: dict[str, str | None]) -> str | None:
    """The program of a record, if the result was made by other code of it than the present; None for no record.

    `present` keeps the hashes of the present code from one call to the next.
    """
    try:
        entry = json.loads(path.read_text())
    except FileNotFoundError:  # removed meanwhile, with its result
        return None
    program = entry["program"]
    if program not in present:
        present[program] = code_hash(program) if (SCRIPTS / f"{program}.py").exists() else None
    return program if entry["code"] != present[program] else None


def records(results: Path) -> Iterator[Path]:
    """The records below a folder of results, those of other studies left out."""
    for folder, below, names in os.walk(results):
        below[:] = sorted(name for name in below if not (Path(folder) / name / "config.yaml").exists())
        yield from (Path(folder) / name for name in sorted(names) if name.endswith("provenance.json"))


def record_output(path: Path) -> Path:
    """The output that a record belongs to."""
    return path.parent if path.name == "provenance.json" else path.with_name(path.name.removesuffix(".provenance.json"))
