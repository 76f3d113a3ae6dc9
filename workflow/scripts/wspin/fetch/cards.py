"""Cards of data sets: which files a card's YAML names for which split."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from wspin.config.reader import read_plain
from wspin.errors import StudyError
from wspin.escaping import escaped
from wspin.storage.names import path_below

CARD = "README.md"
LONGEST = 2**21  # bytes that a card's YAML may have
MOST_PAIRS = 10**7  # files times patterns with wildcards: a minute
MOST_NODES = 200_000  # keys and values, aliases written out
# As huggingface_hub finds it: behind a mark of UTF-8 and blanks of any alphabet
FRONT = re.compile(r"\ufeff?\s*---(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)", re.DOTALL)
NO_ROWS = (CARD, "config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json")  # beside files of rows
REMEDY = "take another commit, or set `path:` to a copy of its files"


def split_patterns(card: Path, place: str) -> dict[str, list[str]]:
    """{split: patterns of its files} of a card's default configuration; empty if it names none.

    The default is the configuration that is called or marked so, else the first; a line is printed for the latter, and
    where no files are named. `place` stands for the card in messages. Raises `StudyError` for a card that is not of the
    form that `datasets` documents.
    """
    configs = _configs(card, place)
    defaults = [config for config in configs if config.get("config_name") == "default" or config.get("default") is True]
    config = next(iter(defaults or configs), {})
    if len(configs) > 1 and not defaults:
        name = escaped(str(config.get("config_name")))[:80]
        print(f"fetch: {place}: of {len(configs)} configurations without a default the first is read: {name}")
    if not (patterns := _patterns(config.get("data_files"), place)):
        print(f"fetch: {place}: no files of splits are named; they are taken by their names", flush=True)
    return patterns


def matching(paths: Collection[str], patterns: list[str], place: str) -> set[str]:
    """The paths that patterns mean to `datasets`: `*` stays in its folder, `**` is any number of folders.

    Raises `StudyError` for so many of both that comparing them would not end.
    """
    globs = [pattern for pattern in patterns if pattern not in paths]
    rows = [path for path in paths if path.rpartition("/")[2] not in NO_ROWS]
    if len(globs) * len(rows) > MOST_PAIRS:
        found = f"found {len(globs)} patterns for {len(rows)} files; {REMEDY}"
        raise StudyError(f"{place}: data_files: expected at most {MOST_PAIRS:.3g} comparisons, {found}")
    matches = {path for pattern in globs for path in rows if _is_match(path, pattern)}
    return matches.union(pattern for pattern in patterns if pattern in paths)


def _is_match(path: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatchcase(path, pattern) or fnmatchcase(path, pattern.replace("**/", ""))
    return PurePosixPath("/", path).match(f"/{pattern}")


def check_card(card: Path, place: str) -> None:
    """Raises `StudyError` unless every file and folder that a card names, in any configuration, is in its folder.

    `datasets` would read any file of this machine, or fetch any address.
    """
    for config in _configs(card, place):
        for paths in _patterns(config.get("data_files"), place).values():
            check_inside(paths, place)
        if (folder := config.get("data_dir")) not in (None, "", ".", "./"):
            check_inside([folder.removeprefix("./").removesuffix("/") if isinstance(folder, str) else folder], place)


def check_inside(patterns: list[str], place: str) -> None:
    """Raises `StudyError` unless every pattern is of files inside the repository."""
    for pattern in patterns:
        try:
            path_below(".", pattern)
        except StudyError as error:
            raise StudyError(f"{place}: data_files: {error}") from None


def _configs(card: Path, place: str) -> list[dict[str, Any]]:
    """The configurations of a card; none if it has no YAML."""
    with open(card, "rb") as file:
        text = file.read(LONGEST + 1).decode(errors="surrogateescape")
    if not (front := FRONT.match(text)):
        start = text.removeprefix("\ufeff").lstrip()[:3]  # empty where blanks alone have been read
        if len(text.encode(errors="surrogateescape")) > LONGEST and "---".startswith(start):
            raise StudyError(f"{place}: expected at most {LONGEST >> 20} MiB of YAML, found more; {REMEDY}")
        return []
    try:
        front[1].encode()
        content = read_plain(front[1], place, MOST_NODES)
    except UnicodeEncodeError:
        raise StudyError(f"{place}: expected UTF-8, found other bytes; {REMEDY}") from None
    if content is not None and not isinstance(content, dict):
        raise _mistake(place, "", "keys with values", content)
    configs = (content or {}).get("configs")
    if not isinstance(configs, list | None):
        raise _mistake(place, "configs: ", "a list", configs)
    for config in configs or []:
        if not isinstance(config, dict):
            raise _mistake(place, "configs: ", "keys with values", config)
    return configs or []


def _patterns(entries: Any, place: str) -> dict[str, list[str]]:
    """{split: patterns} of `data_files`; files without a split are of `train`."""
    if entries is None:
        return {}
    entries = entries if isinstance(entries, list) else [entries]
    if entries and all(isinstance(entry, str) for entry in entries):
        return {"train": [entry.removeprefix("./") for entry in entries]}
    splits: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        paths = paths if isinstance(paths, list) else [paths]
        if not isinstance(split, str) or not split or not all(isinstance(path, str) for path in paths):
            raise _mistake(place, "data_files: ", "`split` and `path` of text", entry)
        if split in splits:
            raise StudyError(f"{place}: data_files: expected a split once, found {split} twice; {REMEDY}")
        splits[split] = [path.removeprefix("./") for path in paths]
    return splits


def _mistake(place: str, key: str, expected: str, found: Any) -> StudyError:
    kinds = {list: "a list", dict: "keys with values", type(None): "nothing"}
    shown = kinds.get(type(found)) or repr(found[:80] if isinstance(found, str) else found)
    return StudyError(f"{place}: {key}expected {expected}, found {shown}; {REMEDY}")
