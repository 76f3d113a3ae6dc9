"""Results that other code than the present one has made.

An edit of the code re-runs nothing by itself: a changed comment must not cost GPU-days. Every result's record keeps a
hash of the code that made it, comments and docstrings left out.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wspin.errors import StudyError
from wspin.storage.code_hash import SCRIPTS, code_hash
from wspin.storage.provenance import read_record, record_output, records


def list_stale(results: Path) -> Iterator[str]:
    """A line for every stale result and every record that cannot be read, and how to make the results again.

    Raises `StudyError` without a folder of results.
    """
    if not results.is_dir():
        raise StudyError(f"{results}: expected a folder of results, found none; give the config's `results`")
    stale, unreadable = stale_results(results)
    yield from map(str, unreadable)
    for output, record in stale:
        yield f"{output}: made by other code of {record['program']}.py"
    if not stale:
        yield f"every {'other ' if unreadable else ''}result was made by the present code"
        return
    rules = sorted({rule(output, record) for output, record in stale} - {None})
    every = f", or `-R {' '.join(rules)}` to re-run these rules" if rules else ""
    yield f"{len(stale)} stale; add `-R` and the paths of results to your command to make these again{every}"


def stale_results(results: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[StudyError]]:
    """(output, record) of every result that other code made and that still exists; errors of unreadable records."""
    stale, unreadable = [], []
    for path in records(results):
        output = record_output(path)
        try:
            record = stale_record(path)
        except StudyError as error:
            unreadable += [error] * output.exists()
            continue
        if record and output.exists():
            stale.append((output, record))
    return stale, unreadable


def stale_record(path: Path) -> dict[str, Any] | None:
    """The record at `path` if other code than the present made its result; None if the present did, or without one.

    Raises `StudyError` if the record cannot be read.
    """
    try:
        record = read_record(path)
    except FileNotFoundError:  # removed meanwhile, with its result
        return None
    return record if record["code"] != present_hash(record["program"]) else None


@functools.cache
def present_hash(program: str) -> str | None:
    """The hash of a program's present code; None if there is no such program, whatever path its name would be."""
    return code_hash(program) if program in {file.stem for file in SCRIPTS.glob("*.py")} else None


def rule(output: Path, record: dict[str, Any]) -> str | None:
    """The rule that makes an output by the command of its record; None if there is no such rule any more."""
    program, command = record["program"], record.get("command", ())[1:2]
    rules = {name: rule for name, rule in _rules().items() if rule[0][0] == program}
    same = [name for name, (known, _) in rules.items() if known[1:] in ((), tuple(command))]
    # Several rules of one command, such as generate's, differ in what they make; an earlier version had other commands.
    alike = [name for name in same or rules if re.fullmatch(rules[name][1], str(output))]
    return next(iter(alike or same), None)


@functools.cache
def _rules() -> dict[str, tuple[tuple[str, ...], str]]:
    """{rule: ((program,) or (program, sub-command), pattern of its first output)}."""
    texts = [file.read_text() for file in (SCRIPTS.parents[1] / "rules").glob("*.smk")]
    bodies = [match for text in texts for match in re.findall(r"^rule (\w+):\n((?: .*\n|\n)*)", text, re.MULTILINE)]
    rules = {}
    for name, body in bodies:
        output = re.search(r'^    output:\n.*?"(.*?)"', body, re.MULTILINE)
        if output and (command := re.search(r"workflow/scripts/(\w+)\.py(?: ([a-z_]+))?", body)):
            pattern = re.sub(r"<\w+>|\\{\w+\\}", ".*", re.escape(output[1]))
            rules[name] = tuple(filter(None, command.groups())), pattern
    return rules
