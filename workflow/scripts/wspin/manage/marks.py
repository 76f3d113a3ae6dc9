"""Marks in Snakemake's metadata on results that were made with other flags than the present ones.

    python -m wspin.manage.marks --touch ...        snakemake, which leaves the marks where they are

`--touch` renews the times of all results, and would give them the present flags. The marks are there before, so that
an adoption that is killed leaves no result of other settings that looks like one of the present ones.
"""

from collections.abc import Collection
from pathlib import Path

OTHER_FLAGS = ["made with other flags"]  # params that no job has


def renew(outputs: Collection[str], others: Collection[str]) -> None:
    """Of these outputs, mark those that were made otherwise, and no more."""
    from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord  # a second to import
    from snakemake.persistence.file import FilePersistence

    persistence = FilePersistence(nolock=True, path=Path(".snakemake"))
    for output in outputs:
        record = persistence._read_record(output) or MetadataRecord()
        if output in others:
            record.params, record.record_format_version = OTHER_FLAGS, RECORD_FORMAT_VERSION
            persistence._write_record(output, record)
        elif record.params == OTHER_FLAGS:
            persistence._delete_record(output)


def run_snakemake() -> None:
    """Snakemake with the flags of this process; marks stay when it writes metadata."""
    from snakemake import cli
    from snakemake.persistence import MetadataRecord
    from snakemake.persistence.file import FilePersistence

    write_record = FilePersistence._write_record

    def write(persistence: FilePersistence, output: str, record: MetadataRecord) -> None:
        persistence._clear_cache()  # which holds this record, with the present flags
        before = persistence._read_record(output)
        if before and before.params == OTHER_FLAGS:
            record.params = OTHER_FLAGS
        write_record(persistence, output, record)

    FilePersistence._write_record = write
    cli.main()


if __name__ == "__main__":
    run_snakemake()
