"""Validation errors of pydantic in the words of a configuration file: place, what was found, the nearest key."""

import difflib
import re
from typing import Any

from pydantic import ValidationError

from .base import Section
from .study import Study

Node = dict[str, Any]  # a part of a JSON schema
Place = tuple[str, ...]
Complaint = tuple[Place, str]  # place in the configuration, what is wrong there
ALTERNATIVE = re.compile(r"\[key\]|constrained-\w+|list\[.+\]")  # parts of a place that pydantic adds


def complaints_of(error: ValidationError, section: type[Section]) -> list[Complaint]:
    """One complaint for each wrong value; where a value may have several types, about the type that came closest."""
    messages: dict[Place, str] = {}
    for entry in error.errors():
        place = tuple(str(part) for part in entry["loc"] if not ALTERNATIVE.fullmatch(str(part)))
        messages.setdefault(place, _message(entry, section))
    above = {place[:depth] for place in messages for depth in range(len(place))}
    return [(place, message) for place, message in messages.items() if place not in above]


def _message(entry: dict[str, Any], section: type[Section]) -> str:
    place = tuple(map(str, entry["loc"]))
    if entry["type"] == "extra_forbidden":
        if place[0] == "arms" and len(place) == 3 and place[2] in Study.model_fields:
            return f"an arm may not set `{place[2]}`, it is the study's: use another results folder"
        near = difflib.get_close_matches(place[-1], _valid_keys(place[:-1], section), n=1)
        return "unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    if entry["type"] == "missing":
        return "missing key; nothing is defaulted silently"
    value = entry["input"]
    found = f", found {value!r}" if isinstance(value, (str, int, float, bool, list)) else ""
    return entry["msg"].removeprefix("Value error, ") + found


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
