"""Task files of lm-eval's format, as strangers may have written them: no code, no files beyond their folder.

lm-eval imports the functions that a file names, runs scripts of metrics and of generation, and renders templates with
all of Python in reach.
"""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from wspin.errors import StudyError, first_line
from wspin.escaping import escaped

YAML_FILES = ("yaml", ".yml")  # ends of names: `demo.yaml`, `_default_yaml`
DEEPEST = 50  # nested collections of a file; libyaml ends the process at a hundred thousand
PLAIN_TAGS = {"!", *(f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null"))}
SWITCHES = ("custom_generate", "hf_evaluate", "trust_remote_code", "unsafe_code")  # keys that run code
READ_KEYS = ("include", "dataset_path", "dataset_name", "dataset_kwargs", "use_prompt")  # keys that name files
READ_KEYS += ("data_files", "data_dir")  # of `.huggingface.yaml`, a card of data
# An address or another file system (`file:/x`, `zip::x`), an absolute path, a parent, a script
BEYOND = re.compile(r"::|://|(^|:)[/~]|(^|[/:])\.\.(/|$)|\.py$")
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # lm-eval's, so both read the same
REMEDY = "read them, then set `code: allow` beside the suite's `path`"


def check_task_files(folder: str | Path) -> None:
    """Raise `StudyError`, with file and line, unless a folder's task files run no code and read no other files.

    Templates are left to what renders them.
    """
    root = Path(folder).resolve()
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    for path in files:
        if not path.resolve().is_relative_to(root):
            found = f"found a link to {escaped(os.readlink(path))}"
            raise StudyError(f"{path}: expected no code and no files beyond the folder, {found}; {REMEDY}")
    waiting = [path.resolve() for path in files if path.name.endswith(YAML_FILES)]
    for path in waiting:  # to which the loop adds files that others include, whatever their names
        place = Path(folder, path.relative_to(root))
        for line, found in _findings(path, root, waiting):
            raise StudyError(
                f"{place}:{line}: expected no code and no files beyond the folder, found {found}; {REMEDY}"
            )
    for path in files:
        if path.suffix == ".py":
            raise StudyError(f"{path}: expected task files without code, found a Python file; {REMEDY}")


def _findings(path: Path, root: Path, waiting: list[Path]) -> Iterator[tuple[int, str]]:
    """(line, what stands there) of what would run code or read beyond the folder; adds included files to `waiting`."""
    text, depth = path.read_bytes(), 0
    try:
        for event in yaml.parse(text, Loader=LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            tag = getattr(event, "tag", None)
            if depth > DEEPEST or (tag and tag not in PLAIN_TAGS):
                value = f"{tag} {getattr(event, 'value', '')}".strip()
                yield (
                    event.start_mark.line + 1,
                    value if depth <= DEEPEST else f"more than {DEEPEST} nested collections",
                )
        document = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield 1, f"no YAML ({first_line(error)})"
    else:
        for key, node in _entries(document):
            if _reaches(key, node.value, path, root):
                yield node.start_mark.line + 1, f"{key}: {node.value}"
            elif key == "include" and os.path.isfile(included := os.path.realpath(path.parent / node.value)):
                waiting += {Path(included)}.difference(waiting)


def _entries(root: Any) -> Iterator[tuple[str, Any]]:
    """(key, node) of all scalars; what stands in the value of a key of `READ_KEYS` has that key."""
    waiting, seen = [("", root)], set()
    while waiting:
        key, node = waiting.pop()
        if (key, id(node)) in seen:  # an alias
            continue
        seen.add((key, id(node)))
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                nested = str(name.value)
                waiting.append((key if key in READ_KEYS and nested not in SWITCHES else nested, value))
        elif isinstance(node, yaml.SequenceNode):
            waiting += zip(itertools.repeat(key), node.value)
        elif node is not None:
            yield key, node


def _reaches(key: str, value: str, path: Path, root: Path) -> bool:
    """Whether an entry runs code, or names a file that is not one of the folder."""
    if key in SWITCHES:
        return value.lower() not in ("", "~", "null", "false", "no", "off")
    if key == "metric":  # lm-eval looks for those that it does not know in folders and on the hub
        return "/" in value or value.endswith(".py")
    if key == "include":
        return not value.isprintable() or not Path(os.path.realpath(path.parent / value)).is_relative_to(root)
    return key in READ_KEYS and bool(BEYOND.search(value))
