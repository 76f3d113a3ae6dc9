"""Snakemake's `--touch`, by which results that were made otherwise get metadata that no flags fit.

    python -m wspin.manage.touching --touch ... < names of these results, one a line

They get it in place of the present flags, not after them: an adoption that is killed must not leave results of other
settings that look like those of the present ones.
"""

import sys
from collections.abc import Set

from snakemake import cli
from snakemake.persistence import MetadataRecord
from snakemake.persistence.file import FilePersistence

OTHER_FLAGS = "made with other flags"  # a param that no job has


def mark(others: Set[str]) -> None:
    """From now on this process writes metadata that no job's params equal for these results."""
    write_record = FilePersistence._write_record

    def write_marked(persistence: FilePersistence, output: str, record: MetadataRecord) -> None:
        if output in others:
            record.params = [OTHER_FLAGS]
        write_record(persistence, output, record)

    FilePersistence._write_record = write_marked


if __name__ == "__main__":
    mark(set(sys.stdin.read().splitlines()))
    cli.main()
