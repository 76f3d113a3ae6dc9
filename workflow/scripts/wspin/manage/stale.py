"""Results that other code than the present one has made."""

from __future__ import annotations

import json
from pathlib import Path

from wspin.storage.code_hash import SCRIPTS, code_hash
from wspin.storage.provenance import record_output, records


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
