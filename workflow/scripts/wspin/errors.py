"""The errors of the study, and how they are shown."""

from wspin.escaping import escaped


class StudyError(Exception):
    """Something the user can put right. The message is one line: place, expected, found, what to do."""


def first_line(error: BaseException) -> str:
    """First line of another library's message, `escaped`; the name of its class if it has none."""
    return escaped(next(iter(str(error).splitlines()), type(error).__name__))
