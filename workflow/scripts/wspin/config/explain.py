"""Pydantic's errors in a reader's words: place, what was found, the nearest key."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import ValidationError

from .base import Section
from .study import Study

Place = tuple[str, ...]
Complaint = tuple[Place, str]  # place in the configuration, what is wrong there
ALTERNATIVE = re.compile(r"\[key\]|constrained-\w+|list\[.+\]")  # pydantic's own words in a place


def mistakes(error: ValidationError, section: type[Section]) -> list[Complaint]:
    """Every mistake once: of the types that a value may have, the one it came closest to."""
    found: dict[Place, str] = {}
    for one in error.errors():
        place = tuple(str(part) for part in one["loc"] if not ALTERNATIVE.fullmatch(str(part)))
        found.setdefault(place, explain(one, section))
    above = {place[:depth] for place in found for depth in range(len(place))}
    return [(place, message) for place, message in found.items() if place not in above]


def explain(error: dict[str, Any], section: type[Section]) -> str:
    """One of pydantic's errors in a reader's words, with the nearest valid key where the key is unknown."""
    place = tuple(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        if place[0] == "arms" and len(place) == 3 and place[2] in Study.model_fields:
            return f"an arm may not set `{place[2]}`, it is the study's: use another results folder"
        near = difflib.get_close_matches(place[-1], valid_keys(place[:-1], section), n=1)
        return "unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    if error["type"] == "missing":
        return "missing key; nothing is defaulted silently"
    found = error["input"]
    shown = f", found {found!r}" if isinstance(found, (str, int, float, bool, list)) else ""
    return error["msg"].removeprefix("Value error, ") + shown


def valid_keys(place: Place, section: type[Section]) -> list[str]:
    """The keys that a section knows at a place below it."""
    root = section.model_json_schema()

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        for option in (node, *node.get("anyOf", ())):
            if "$ref" in option:
                return root["$defs"][option["$ref"].rsplit("/", 1)[1]]
        return node

    node = root
    for key in place:
        named = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), {})
        node = resolve(node.get("properties", {}).get(key) or named)
    return list(node.get("properties", {}))
