"""Validation errors of pydantic in the words of a configuration file: place, what was found, the nearest key."""

import difflib
import functools
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from .base import PATTERNS, Section
from .reader import Place
from .stages import Train
from .study import Study
from .weigh import Weigh

Node = dict[str, Any]  # a part of a JSON schema
Complaint = tuple[Place, str]  # place in the configuration, what is wrong there
# Parts of a place that pydantic adds
ALTERNATIVE = re.compile(r"\[key\]|constrained-\w+|(list|dict|literal|function-\w+)\[.+\]")
EXPECTED = {  # pydantic's types of errors
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a section, `key: value`",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:.10g}",
    "less_than_equal": "a number of at most {le:.10g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a section, `key: value`",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "text",
    "string_type": "text",
    "too_long": "at most {max_length} entries",
    "too_short": "{min_length} or more entries",
}
MOST_MISTAKES = 200  # that are explained: each takes a search for the nearest key
WIDEST = 60  # characters of a value in a message


def complaints_of(error: ValidationError, section: type[Section]) -> list[Complaint]:
    """One complaint for each wrong value; where a value may have several types, about the type that came closest."""
    messages: dict[Place, str] = {}
    for entry in error.errors()[:MOST_MISTAKES]:
        place = tuple(str(part) for part in entry["loc"] if not ALTERNATIVE.fullmatch(str(part)))
        messages.setdefault(place, _message(entry, section))
    above = {place[:depth] for place in messages for depth in range(len(place))}
    return [(place, message) for place, message in messages.items() if place not in above]


def _message(entry: dict[str, Any], section: type[Section]) -> str:
    if entry["type"] == "extra_forbidden":
        return _unknown_key(tuple(map(str, entry["loc"])), section)
    if entry["type"] == "missing":
        return "missing key; nothing is defaulted silently"
    return value_message(entry)


def value_message(entry: dict[str, Any]) -> str:
    """`expected X, found Y; do Z` of one of pydantic's errors about a value."""
    kind, value, context = entry["type"], entry["input"], entry.get("ctx", {})
    if kind == "json_invalid" or (kind == "value_error" and isinstance(value, dict)):
        return entry["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        message = f"expected {PATTERNS.get(context['pattern'], context['pattern'])}"
    elif kind in EXPECTED:
        message = f"expected {EXPECTED[kind].format(**context)}"
    else:
        message = entry["msg"].removeprefix("Value error, ")
    expected, separator, remedy = message.partition(";")
    if kind in ("dict_type", "model_type") and isinstance(value, list) and value:
        entries = ", ".join(f"{name}: ..." for name in value[:1] if isinstance(name, str)) or "key: value"
        separator, remedy = ";", f" write `{entries}` without the dash or brackets"
    if kind == "string_type" and not isinstance(value, list):
        text = "remove it" if value is None else "quote text in braces" if isinstance(value, dict) else "quote it"
        separator, remedy = ";", f" {text}"
    guess = nearest(str(value).lower(), re.findall("'([^']+)'", context["expected"])) if kind == "literal_error" else ""
    return f"{expected}, found {show_value(value)}{separator}{remedy}{guess}"


def show_value(value: Any) -> str:
    """A value in one short line; letters that look like others by their code."""
    words = {"True": "true", "False": "false", "None": "null"}
    text = words.get(ascii(value), ascii(value))
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}..."


def _unknown_key(place: Place, section: type[Section]) -> str:
    *above, key = place
    if len(place) == 3 and place[0] == "arms" and key in Study.model_fields:
        return f"an arm may not set `{key}`, it is the study's: use another results folder"
    if near := _close(key, _valid_keys(tuple(above), section)):
        return f"unknown key; did you mean `{near[0]}`?"
    inner = {"train": Train.model_fields, "weigh": Weigh.model_fields} if len(place) == 3 and place[0] == "arms" else {}
    if section is Study and not above:
        inner = {name: _valid_keys((name,), section) for name in Study.model_fields}
    if homes := [name for name, keys in inner.items() if key in keys]:
        return f"unknown key; did you mean `{homes[0]}: {{{key}: ...}}`?"
    return "unknown key; remove it, config/README.md lists the valid ones"


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'X'?`, if one of the names is similar."""
    return next((f"; did you mean {near!r}?" for near in _close(name, names)), "")


def _close(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(names), n=1)


@functools.cache
def _valid_keys(place: Place, section: type[Section]) -> list[str]:
    """The keys that may stand at a place below a section."""
    root = node = section.model_json_schema()
    for key in place:
        node = resolve(root, node.get("properties", {}).get(key) or entry_schema(node) or {})
    return list(node.get("properties", {}))


def resolve(root: Node, node: Node) -> Node:
    """The definition that a node refers to, itself or in its alternative to `null`; the node if it refers to none."""
    for option in (node, *node.get("anyOf", ())):
        if "$ref" in option:
            return root["$defs"][option["$ref"].rsplit("/", 1)[1]]
    return node


def entry_schema(section: Node) -> Node | None:
    """Schema of the values of a mapping whose keys are the user's."""
    entry = section.get("additionalProperties") or next(iter(section.get("patternProperties", {}).values()), None)
    return entry if isinstance(entry, dict) else None
