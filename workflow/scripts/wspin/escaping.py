"""Foreign text on one line or in Markdown: what moves a cursor, begins a line or a link is shown as it is written."""

import json
import re
from typing import Any

LONGEST = 2000  # characters of a line of a message


def escaped(text: str) -> str:
    r"""The text with line ends, control characters, bidirectional and other marks as escapes (`\n`, `\u202e`).

    For names, answers and messages that come from a hub, a package, a model, data or another program, wherever they
    are printed or become part of a page. Letters of all scripts stay.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def one_line(text: str, longest: int = LONGEST) -> str:
    """The text `escaped`, its beginning and a mark if it is longer."""
    shown = escaped(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[:longest]} [...]"


def as_json(value: Any) -> str:
    """JSON on one line, with the letters of all scripts; what is not printable is written by its code, as JSON does."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def in_markdown(text: str) -> str:
    """The text in a paragraph or heading of Markdown: no link, image, code or HTML begins in it."""
    return re.sub(r"[\\`*\[\]<>&~]", r"\\\g<0>", escaped(text))


def code_in_markdown(text: str) -> str:
    """The text as code within a line of Markdown."""
    text = escaped(text)
    runs = {len(run) for run in re.findall("`+", text)}
    if not runs:
        return f"`{text}`"
    fence = next("`" * length for length in range(2, len(runs) + 3) if length not in runs)
    return f"{fence} {text} {fence}"


def block_in_markdown(text: str, language: str = "") -> str:
    """Lines of text as a block of code in Markdown, which no line of them ends."""
    fence = "`" * max(3, *(1 + len(run) for run in re.findall("`+", text)), 0)
    return "\n".join([f"{fence}{language}", *map(escaped, text.removesuffix("\n").split("\n")), fence])
