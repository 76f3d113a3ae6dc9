"""Files of the study and of others, read by its programs."""

from inputs import Case, check_case


def no_rows(folder):
    (folder / "source").mkdir()
    return ["fetch", "data", "--path", "source", "--splits", "train", "--state", "state", "--output", "out"]


CASES = [
    Case(
        "a data set's folder without its splits",
        no_rows,
        "source: expected train.parquet or train.jsonl, found nothing",
    ),
]

test_files = check_case(CASES)
