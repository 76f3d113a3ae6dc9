"""The errors of the study, and how they are shown."""


class StudyError(Exception):
    """Something the user can put right. The message is one line: place, expected, found, what to do."""


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its class if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
