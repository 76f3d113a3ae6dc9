"""The errors of the study, and how they are shown."""

from wspin.credentials import without_credentials
from wspin.escaping import one_line

MOST_LINES = 100


class StudyError(Exception):
    """Something the user can put right. Every argument is one line: place, expected, found, what to do.

    A line is `escaped` and cut here, so that no foreign text in it can forge another line, move a cursor or fill a log,
    and holds no credentials.
    """

    def __init__(self, *lines: str) -> None:
        more = [f"{len(lines) - MOST_LINES} more lines like these"] * (len(lines) > MOST_LINES)
        super().__init__(*map(shown_line, lines[:MOST_LINES]), *more)

    def __str__(self) -> str:
        return "\n".join(self.args)


def shown_line(text: str) -> str:
    """The text on one line, `escaped`, cut and without credentials."""
    return one_line(without_credentials(text))


def first_line(error: BaseException) -> str:
    """First line of another library's message, blank ones aside, as `shown_line`; else the name of its class."""
    return shown_line(next(filter(str.strip, str(error).splitlines()), type(error).__name__))
