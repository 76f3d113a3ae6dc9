"""The files of iterations, shard by shard."""

from collections.abc import Mapping, Sequence

from wspin.errors import StudyError


def shard_files(
    iterations: Sequence[str], shards: Sequence[str], folders: Mapping[str, Sequence[str]]
) -> dict[str, list[tuple[str, ...]]]:
    """Iteration -> the files of each shard, one of each kind. Raises `StudyError` unless each has a folder of each."""
    for kind, names in folders.items():
        if len(names) != len(iterations):
            raise StudyError(f"--{kind}: expected {len(iterations)} folders, one per iteration, found {len(names)}")
    return {
        iteration: [tuple(f"{folder}/{shard}.parquet" for folder in of_iteration) for shard in shards]
        for iteration, *of_iteration in zip(iterations, *folders.values(), strict=True)
    }


def distinct(files: Mapping[str, Sequence[tuple[str, ...]]]) -> list[str]:
    """Every file once: arms share answers and their log-probabilities."""
    return list(dict.fromkeys(path for shards in files.values() for shard in shards for path in shard))
