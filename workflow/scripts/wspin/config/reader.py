"""Reads configuration files, which are YAML 1.1: the values, and the line of every key.

What YAML would take in silence for something else than its author wrote is refused: duplicate keys, keys that are no
text, octal and sexagesimal numbers, dates, tags, aliases that multiply.
"""

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from wspin.errors import StudyError, first_line

Place = tuple[str, ...]
TAG = "tag:yaml.org,2002:"
WORDS = {"bool": "a truth value", "int": "a number", "float": "a number", "null": "null", "timestamp": "a date"}
MOST_NODES = 20_000  # keys and values of a file, aliases written out: the study's own file has 500
LARGEST_FILE = 10**6  # bytes: more takes the parser seconds
LONGEST_NUMBER = 40  # characters
LONGEST_KEY = 60  # in messages


class Layer(NamedTuple):
    """What one file, or the command line, contributes to the configuration."""

    values: dict[str, Any]
    places: dict[Place, str]  # of every key: `file:line`


def read_layer(file: str | Path, if_empty: str = "remove it from the command line") -> Layer:
    """A file's values and places. Raises `StudyError` with one line per mistake; `if_empty`: what to do then."""
    loader = yaml.SafeLoader(read_text(Path(file)))
    try:
        root = loader.get_single_node()
        if root is None or root.tag == f"{TAG}null":
            raise StudyError(f"{file}: expected keys with values, found an empty file; {if_empty}")
        line = root.start_mark.line + 1
        if not isinstance(root, yaml.MappingNode):
            found = "a list; remove the dashes" if isinstance(root, yaml.SequenceNode) else ascii(root.value[:40])
            remedy = "; a blank must follow the colon" if ":" in root.value else ""
            raise StudyError(f"{file}:{line}: expected `key: value`, found {found}{remedy}")
        _check_size(root, f"{file}:{line}", MOST_NODES)
        if mistakes := list(dict.fromkeys(_mistakes(loader, root, ()))):
            raise StudyError(*(f"{file}:{line}: {message}" for line, message in mistakes))
        places = {place: f"{file}:{line}" for place, line in _lines(loader, root, ())}
        return Layer(loader.construct_document(root), places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise StudyError(f"{file}:{mark.line + 1}: {_problem(error)}") from None
    except RecursionError:
        raise StudyError(f"{file}: expected sections a few levels deep, found brackets nested without end") from None


def read_plain(text: str, place: str, most: int) -> Any:
    """The values of foreign YAML, such as a card's; `most`: keys and values, aliases written out.

    Raises `StudyError` for what is no YAML, has tags that are not plain values, or more than `most`.
    """
    try:
        loader = _PlainLoader(text)
        if (root := loader.get_single_node()) is None:
            return None
        _check_size(root, place, most)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise StudyError(f"{place}:{mark.line + 1}: {_problem(error)}") from None
    except (yaml.YAMLError, ValueError) as error:  # control characters; dates and numbers that are none
        raise StudyError(f"{place}: expected YAML, found {first_line(error)}; write it as text, or remove it") from None
    except (AttributeError, LookupError):  # of PyYAML's constructors
        raise StudyError(f"{place}: expected YAML, found a value that its tag does not have; remove it") from None
    except RecursionError:
        raise StudyError(f"{place}: expected YAML a few levels deep, found brackets nested without end") from None


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's, without numbers that Python cannot write again."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a number of more than {LONGEST_NUMBER} characters")
        return super().construct_yaml_int(node)


_PlainLoader.add_constructor(f"{TAG}int", _PlainLoader.construct_yaml_int)


def read_text(file: Path) -> str:
    """The text of a configuration file. Raises `StudyError` for what is no file, too large, or no UTF-8."""
    try:
        kind = file.stat()
        if stat.S_ISREG(kind.st_mode) and kind.st_size > LARGEST_FILE:
            found = f"{kind.st_size / 1e6:.1f} MB"
            raise StudyError(f"{file}: expected a configuration file of at most 1 MB, found {found}; name another file")
        if not (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode)):  # it may have no end, or wait for a writer
            raise StudyError(f"{file}: expected a configuration file, found a pipe or device; name a file")
        content = file.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"{file}: expected a configuration file, found none; correct its path") from None
    except IsADirectoryError:
        raise StudyError(f"{file}: expected a configuration file, found a folder; name a file in it") from None
    except OSError as error:
        raise StudyError(f"{file}: expected a configuration file, found: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StudyError(f"{file}: expected UTF-8, found UTF-16; save the file as UTF-8")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"the byte 0x{content[error.start]:02x}"
        raise StudyError(f"{file}:{line}: expected UTF-8, found {found}; save the file as UTF-8") from None
    if control := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise StudyError(f"{file}:{line}: expected text, found the control character {control[0]!a}; save it as UTF-8")
    return text


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem).split())
    if "\\t" in problem:
        return "expected blanks, found a tab; indent with blanks"
    if "another document" in problem:
        return "expected one document, found a second behind `---`; write it into a file of its own"
    if "undefined alias" in problem:
        name = problem.split("'")[1]
        return f"expected an anchor `&{name}` above, found none; write it, or quote a text that begins with `*`"
    if "for merging" in problem:
        return f"`<<` takes the keys of another section: {problem}; give `<<: *anchor`"
    begin = error.context_mark
    context = f" ({' '.join(error.context.split())}, from line {begin.line + 1})" if error.context and begin else ""
    return f"expected YAML: {problem}{context}; check colons, quotes, brackets and indentation here"


def _check_size(root: yaml.Node, place: str, most: int) -> None:
    """Raises `StudyError` for a document of more than `most` keys and values, aliases written out."""
    if (size := _size(root, {})) > most:
        found = "no end of them" if size == float("inf") else f"{size:.3g}"
        problem = f"expected at most {most} keys and values, found {found} behind aliases; write them out"
        raise StudyError(f"{place}: {problem}")


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Nodes below and with this one, aliases written out; infinite for one that contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = float("inf")
        below = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in below if not isinstance(node, yaml.ScalarNode))
    return sizes[id(node)]


def _mistakes(loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Iterator[tuple[int, str]]:
    """(line, message) of what would be read otherwise than it was written."""
    shown, line = show(place), node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        if message := _misread(loader, node):
            yield line, f"{shown}: {message}"
    elif isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
        for index, item in enumerate(node.value):
            yield from _mistakes(loader, item, (*place, str(index)))
    elif isinstance(node, yaml.MappingNode) and node.tag == f"{TAG}map":
        names = set()
        for key, value in node.value:
            below, line = (*place, str(key.value)), key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                yield line, f"{shown or 'study'}: expected a name as key, found a list or section; is a quote missing?"
                continue
            if key.tag not in (f"{TAG}str", f"{TAG}merge"):
                kind = WORDS.get(key.tag.removeprefix(TAG), "a tag")
                remedy = "; quote it, or write decimals with a point" if kind == "a number" else "; quote it"
                yield line, f"{show(below)}: expected a name, found `{key.value}`, which YAML reads as {kind}{remedy}"
            if key.value in names:
                yield line, f"{show(below)}: the key is given twice; remove one of them"
            names.add(key.value)
            yield from _mistakes(loader, value, below)
    else:
        yield line, f"{shown}: expected plain values, found the tag {node.tag.replace(TAG, '!!')}; remove it"


def _misread(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    kind, text = node.tag.removeprefix(TAG), node.value
    plain = loader.resolve(yaml.ScalarNode, text, (node.style is None, node.style is not None))
    if node.tag not in (plain, f"{TAG}str"):
        return f"expected plain values, found the tag {node.tag.replace(TAG, '!!')}; remove it"
    if kind in ("int", "float") and len(text) > LONGEST_NUMBER:
        return f"expected a number, found one of {len(text)} digits"
    if kind in ("int", "float") and ":" in text:
        return f"found {text}, which YAML reads in base 60; write one number, or quote text"
    if kind == "int" and re.match(r"[-+]?0[0-7_]+$", text):
        return f"found {text}, which YAML reads in base 8; remove the leading zero, or quote text"
    if control := yaml.reader.Reader.NON_PRINTABLE.search(text):
        return f"expected text, found the control character {control[0]!a}; remove it"
    if kind == "timestamp":
        return f"found {text}, which YAML reads as a date; quote it"
    return ""


def _lines(loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        for key, value in node.value:
            yield (*place, key.value), key.start_mark.line + 1
            yield from _lines(loader, value, (*place, key.value))


def show(place: Sequence[str]) -> str:
    """A place in the configuration, in one line; letters that look like others by their code."""
    return ".".join(ascii(key[:LONGEST_KEY])[1:-1] for key in place)


def complaint_line(places: dict[Place, str], place: Place, message: str) -> str:
    """A message with its place in front, and the line of its key, or of the nearest key above it."""
    for depth in range(len(place), -1, -1):
        if place[:depth] in places:
            return f"{places[place[:depth]]}: {show(place) or 'study'}: {message}"
    return f"config: {show(place) or 'study'}: {message}"
