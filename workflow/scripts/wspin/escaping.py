"""Foreign text on one line: what moves a cursor, reorders a line or begins a new one is shown by its code."""

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
