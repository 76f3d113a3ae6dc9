"""The one error that a user can put right."""


class StudyError(Exception):
    """Something the user can put right. The message is one line: file, place, found, expected, what to do."""
