"""JSON from files of others: one value that every reader reads alike, or a `ValueError` of one line."""

import json
from collections import Counter
from typing import Any

DEEPEST = 100  # lists and objects inside each other: what the study reads has ten
PROBLEMS = {  # of Python's messages, in other words
    "integer string conversion": "a number of thousands of digits",
    "surrogates not allowed": "a lone surrogate (\\ud800 to \\udfff)",
}


def parse(text: bytes | str, distinct: bool = True) -> Any:
    """The value of a JSON text; `distinct`: an object has every key once.

    Raises `ValueError` for what is no JSON, nested deeper than `DEEPEST`, or a number of thousands of digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=_distinct if distinct else None)
    except RecursionError:
        raise ValueError("brackets inside each other without end") from None
    except ValueError as error:
        raise ValueError(_problem(error)) from None
    level = [value]
    for _ in range(DEEPEST):
        lists = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list)))
        if not (level := [part for parts in lists for part in parts]):
            return value
    raise ValueError(f"brackets inside each other more than {DEEPEST} times")


def parse_exact(text: bytes | str) -> Any:
    """As `parse`, for what can be written again: raises `ValueError` for lone surrogates too."""
    value = parse(text)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise ValueError(_problem(error)) from None
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name!r:.60} twice")
    return entries


def _problem(error: ValueError) -> str:
    return next((problem for part, problem in PROBLEMS.items() if part in str(error)), str(error))
