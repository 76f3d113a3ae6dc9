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
        super().__init__(*(one_line(without_credentials(line)) for line in lines[:MOST_LINES]), *more)

    def __str__(self) -> str:
        return "\n".join(self.args)


def first_line(error: BaseException) -> str:
    """First line of another library's message, `escaped`, without credentials; the name of its class if it has none."""
    return one_line(without_credentials(next(iter(str(error).splitlines()), type(error).__name__)))
