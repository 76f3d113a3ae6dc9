"""From configuration files to a valid `Study`, or one line per mistake: file, line, key, what was expected.

The files are read here and not by Snakemake, whose merged mapping has lost line numbers, duplicate keys, and the
difference between a file and the command line.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wspin.errors import StudyError

from .blame import Blame, Checked
from .checks import complaints
from .explain import complaints_of
from .reader import Layer, Place, complaint_line, read_layer
from .replicates import Replicates, check_seeds
from .study import Study, merge

LOCK_FILE = "config/revisions.lock.yaml"  # commits for hub names without a revision
COMMAND_LINE = "--config"  # in place of a file and line


def read_results(results: str | Path) -> Study:
    """The study whose results lie in a folder, as its last run resolved it. Raises `StudyError` if there was no run."""
    file = Path(results) / "config.yaml"
    if not file.exists():
        raise StudyError(f"{file}: expected the resolved study, found no file; run the study first")
    return read_study([file]).model_copy(update={"results": str(results)})


def load_study(merged: dict[str, Any], files: Iterable[str | Path] = ()) -> Study:
    """The study that a merged mapping describes; `files` provide the line numbers of messages. Raises `StudyError`."""
    places = {place: line for layer in _layers(files) for place, line in layer.places.items()}
    return _study([Layer(merged, places)], {})


def read_study(files: Sequence[str | Path], command_line: dict[str, Any] | None = None) -> Study:
    """The study that files describe, each merged over those before it, and over them the values of a command line.

    Hub names without a revision take it from the lock file. Raises `StudyError` with one line per mistake.
    """
    layers = [Layer({}, {(): str(next(iter(files), COMMAND_LINE))}), *_layers(files)]
    if command_line:
        layers.append(Layer(command_line, {place: COMMAND_LINE for place, _ in _entries(command_line)}))
    return _study(layers, dict([*_idle_nulls(layers), *_other_hubs(layers)]))


def _study(layers: Sequence[Layer], between: dict[Place, str]) -> Study:
    """The study of merged layers, if it is valid; `between`: the lines about what a layer makes of those below it."""
    blame = Blame(layers, _check)
    wrong = {place for place, _ in blame.checked.complaints}
    mistakes = [
        line for place, line in between.items() if wrong.isdisjoint(place[:depth] for depth in range(len(place) + 1))
    ]
    if mistakes := [*mistakes, *blame.lines()]:
        raise StudyError(*mistakes)
    return blame.checked.study


def _check(layers: Sequence[Layer]) -> Checked:
    """Validate merged layers. A mistake in an entry that has replicates is one of the entry."""
    mapping = merge(*(layer.values for layer in layers))
    _drop_rows(mapping, layers)
    pinned = read_lock(Path(LOCK_FILE))
    for kind, entry in _on_the_hub(mapping):
        if commit := pinned.get(kind, {}).get(entry["hub"]):
            entry.setdefault("revision", commit)
    try:
        study = Study.model_validate(mapping)
    except ValidationError as error:
        return Checked(None, 1, complaints_of(error, Study))
    if found := list(check_seeds(study)):
        return Checked(None, 2, found)
    replicates = Replicates(study)
    study, origins = replicates.expanded(), replicates.origins()
    named = [((*origins.get(place[:2], place[:2]), *place[2:]), message) for place, message in complaints(study)]
    return Checked(study, 3, named)


def _drop_rows(mapping: dict[str, Any], layers: Iterable[Layer]) -> None:
    """Remove published rows beside models and arms that a layer deletes and none gives again."""
    deleted = {name for layer in layers for name, entry in _models_and_arms(layer.values) if entry is None}
    deleted -= {name for name, _ in _models_and_arms(mapping)}
    tables = _section(mapping, "report", "published")
    for name in list(tables):
        rows = _section(tables, name, "rows")
        kept = {row: text for row, text in rows.items() if row.split("/")[0] not in deleted}
        if len(kept) < len(rows):
            tables[name]["rows"] = kept
            if not kept:
                del tables[name]


def _models_and_arms(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in ("models", "arms"):
        yield from _section(values, section).items()


def _section(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A section at this depth; empty where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def merge_files(files: Sequence[str | Path]) -> dict[str, Any]:
    """The merged mapping of the files, unchecked."""
    return merge(*(layer.values for layer in _layers(files)))


def _layers(files: Iterable[str | Path]) -> list[Layer]:
    """What each file contributes. Raises `StudyError` with the mistakes of all files."""
    layers, mistakes = [], []
    for file in files:
        try:
            layers.append(read_layer(file))
        except StudyError as error:
            mistakes += error.args
    if mistakes:
        raise StudyError(*mistakes)
    return layers


def _entries(values: dict[str, Any], above: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every key at every depth, with its value."""
    for key, value in values.items():
        yield (*above, key), value
        if isinstance(value, dict):
            yield from _entries(value, (*above, key))


def _idle_nulls(layers: Iterable[Layer]) -> Iterator[tuple[Place, str]]:
    """(place, message) of nulls that delete nothing: an arm `mine:` without a value would vanish in silence."""
    known: set[Place] = set()
    for layer in layers:
        for place, value in _entries(layer.values):
            if value is None and place not in known:
                message = "null deletes an inherited key, and none is inherited; remove the line, or give a value or {}"
                yield place, complaint_line(layer.places, place, message)
        known |= layer.places.keys()


def _other_hubs(layers: Iterable[Layer]) -> Iterator[tuple[Place, str]]:
    """(place, message) of names on the hub that replace another one, and keep its commit."""
    below: dict[str, Any] = {}
    for layer in layers:
        for section in (("models",), ("data",), ("eval", "sources")):
            for name in _section(layer.values, *section):
                entry, inherited = (_section(values, *section, name) for values in (layer.values, below))
                replaced = inherited.get("hub") not in (None, entry.get("hub", inherited.get("hub")))
                if replaced and entry["hub"] and "revision" not in entry and inherited.get("revision"):
                    place = (*section, name, "hub")
                    found = f"expected a revision of its own, found that of {inherited['hub']}"
                    message = f"{found}; give its commit, or null for `make revisions`"
                    yield place, complaint_line(layer.places, place, message)
        below = merge(below, layer.values)


def read_lock(path: Path) -> dict[str, dict[str, str]]:
    """{model, dataset: {name on the hub: commit}}; empty without such a file."""
    if not path.exists():
        return {}
    kinds = read_layer(path).values
    names = [commits for commits in kinds.values() if isinstance(commits, dict)]
    commits = [str(commit) for section in names for commit in section.values()]
    if len(names) < len(kinds) or not all(re.fullmatch(r"[0-9a-f]{40}", commit) for commit in commits):
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
