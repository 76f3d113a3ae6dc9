"""Results that other code than the present one has made.

An edit of the code re-runs nothing by itself: a changed comment must not cost GPU-days. Every result's record keeps a
hash of the code that made it, comments and docstrings left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from wspin.errors import StudyError
from wspin.storage.code_hash import SCRIPTS, code_hash
from wspin.storage.provenance import record_output, records


def list_stale(results: Path) -> Iterator[str]:
    """A line for every stale result, and how to make them again. Raises `StudyError` without a folder of results."""
    if not results.is_dir():
        raise StudyError(f"{results}: expected a folder of results, found none; give the config's `results`")
    found = [(output, program) for output, program in stale(results) if output.exists()]
    for output, program in found:
        yield f"{output}: made by other code of {program}.py; to make it again, add -R {output} to your command"
    if found:
        programs = ", ".join(sorted({program for _, program in found}))
        yield f"{len(found)} stale; -R takes rules too: named like the program, or beginning with its name ({programs})"
    else:
        yield "every result was made by the present code"


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
