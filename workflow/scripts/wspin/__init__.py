"""The library of the study: tensors and tables in, tensors and tables out.

Nothing here knows Snakemake or reads the command line, and nothing here is imported before it is needed: `wspin`,
`wspin.config` and `wspin.study` are parsed by every job and import no tensor library.
"""


class StudyError(Exception):
    """Something the user can put right. The message is one line: file, place, found, expected, what to do."""
