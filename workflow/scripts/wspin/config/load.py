"""From configuration files to a valid `Study`, or one line per mistake: file, line, key, what was expected.

Snakemake merges the files, and the merged mapping is checked here. The files are read again for what the mapping has
lost: line numbers, and keys that a file holds twice.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from wspin.errors import StudyError

from .checks import complaints
from .explain import Place, complaints_of
from .study import Study, merge

LOCK_FILE = "config/revisions.lock.yaml"  # commits for hub names without a revision


def read_results(results: str | Path) -> Study:
    """The study whose results lie in a folder, as its last run resolved it. Raises `StudyError` if there was no run."""
    file = Path(results) / "config.yaml"
    if not file.exists():
        raise StudyError(f"{file}: expected the resolved study, found no file; run the study first")
    return read_study([file]).model_copy(update={"results": str(results)})


def load_study(merged: dict[str, Any], files: Iterable[str | Path] = ()) -> Study:
    """The study that the merged mapping describes; hub names without a revision take it from the lock file.

    `files` are the configuration files in the order of merging; they only provide line numbers for messages. Raises
    `StudyError` with one line per mistake.
    """
    places: dict[Place, str] = {}
    for file in files:
        for place, line, repeated in keys_with_lines(Path(file)):
            if repeated:
                raise StudyError(f"{file}:{line}: {'.'.join(place)}: the key is given twice; remove one of them")
            places[place] = f"{file}:{line}"
    mapping = merge(merged)
    pinned = read_lock(Path(LOCK_FILE))
    for kind, entry in _on_the_hub(mapping):
        if commit := pinned.get(kind, {}).get(entry["hub"]):
            entry.setdefault("revision", commit)
    try:
        study = Study.model_validate(mapping)
    except ValidationError as error:
        mistakes = complaints_of(error, Study)
    else:
        mistakes = list(complaints(study))
    if mistakes:
        raise StudyError("\n".join(_line(places, *mistake) for mistake in mistakes))
    return study


def read_study(files: Sequence[str | Path]) -> Study:
    """The study that files describe, merged as Snakemake merges them, for programs that run without it."""
    return load_study(merge_files(files), files)


def merge_files(files: Sequence[str | Path]) -> dict[str, Any]:
    """The merged mapping of the files, unchecked."""
    layers = []
    for file in files:
        try:
            layers.append(yaml.safe_load(Path(file).read_text()))
        except yaml.YAMLError as error:
            raise StudyError(f"{file}: expected YAML: {' '.join(str(error).split())}") from None
        if not isinstance(layers[-1], dict):
            raise StudyError(f"{file}: expected keys with values, found none")
    return merge(*layers)


def read_lock(path: Path) -> dict[str, dict[str, str]]:
    """{model, dataset: {name on the hub: commit}}; empty without such a file."""
    if not path.exists():
        return {}
    kinds = yaml.safe_load(path.read_text())
    commits = [commit for names in kinds.values() for commit in names.values()] if isinstance(kinds, dict) else [None]
    if not all(isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit) for commit in commits):
        raise StudyError(f"{path}: expected names with the 40 hex digits of a commit; run `make revisions`")
    return kinds


def unpinned(mapping: dict[str, Any]) -> set[tuple[str, str]]:
    """(kind, name) of the models and data sets that a mapping takes from the hub without a commit."""
    return {(kind, entry["hub"]) for kind, entry in _on_the_hub(mapping) if not entry.get("revision")}


def _on_the_hub(mapping: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, entry) of every section that names a model or data set on the hub."""
    sections = {"model": mapping.get("models"), "dataset": mapping.get("data")}
    evaluation = mapping.get("eval")
    sources = evaluation.get("sources") if isinstance(evaluation, dict) else None
    for kind, section in (*sections.items(), ("dataset", sources)):
        for entry in section.values() if isinstance(section, dict) else ():
            if isinstance(entry, dict) and isinstance(entry.get("hub"), str) and not entry.get("path"):
                yield kind, entry


def keys_with_lines(file: Path) -> Iterator[tuple[Place, int, bool]]:
    """(place, line, whether it is a duplicate) of every key in a YAML file."""

    def walk(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int, bool]]:
        if not isinstance(node, yaml.MappingNode):
            return
        names = set()
        for key, value in node.value:
            below = (*place, str(key.value))
            yield below, key.start_mark.line + 1, key.value in names
            names.add(key.value)
            yield from walk(value, below)

    yield from walk(yaml.compose(file.read_text()), ())


def _line(places: dict[Place, str], place: Place, message: str) -> str:
    """Prefix a message with the line of its key, or of the nearest key above it."""
    for depth in range(len(place), -1, -1):
        if place[:depth] in places:
            return f"{places[place[:depth]]}: {'.'.join(place)}: {message}"
    return f"config: {'.'.join(place) or 'study'}: {message}"
