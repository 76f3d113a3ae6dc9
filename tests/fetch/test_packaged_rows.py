"""Rows of packages: JSON that cannot be read or whose values are of wrong kinds."""

import json
import random

import pytest
from attacks import attack

from wspin.config.sources import PackagedRows
from wspin.errors import StudyError
from wspin.fetch import datasets, packages


@pytest.fixture
def extract(tmp_path, monkeypatch):
    """Reads the rows of a package's file of such bytes."""

    def run(content):
        (tmp_path / "rows.json").write_bytes(content)
        monkeypatch.setattr(packages, "extract_file", lambda package, folder: tmp_path / "rows.json")
        package = PackagedRows(name="texts", version="1.0", sha256="0" * 64, file="texts/rows.json", heldout=0.5)
        datasets.from_package(package, tmp_path)

    return run


@attack(
    "malformed",
    "JSON of a package that is no text or nested without end: `[` 200,000 times, bytes that are no UTF-8, `\\ud800`",
    "refused in one line that names the file",
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 200_000, "expected a JSON array, or one object a line, found brackets nested without end"),
        (b'{"a": ' * 200_000, "expected a JSON array, or one object a line, found brackets nested without end"),
        (b'["\xff"]', "expected a JSON array, or one object a line, found 'utf-8' codec can't decode"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected a JSON array, or one object a line, found Exceeds the limit"),
        (b"null", "expected rows with a prompt and an answer, found none in 1 rows"),
        (
            b'{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "\\ud800"}',
            r"row 2: expected text, found a lone surrogate (\ud800 to \udfff); take another file",
        ),
    ],
    ids=range(6),
)
def test_a_package_without_readable_rows_is_one_line(extract, content, message):
    with pytest.raises(StudyError) as error:
        extract(content)
    assert str(error.value).startswith(f"texts/rows.json: {message}")
    assert "\n" not in str(error.value)


@attack("malformed", "5,000 rows of keys and values of wrong kinds in a package's JSON", "passed over, and counted")
def test_rows_of_wrong_values_are_passed_over(extract, capsys):
    generator, words = random.Random(1), ["a", "user", "assistant", "system", "text", ""]
    forms = ["messages", "conversations", "real", "instruction", "output", "prompt", "response", "input", "system"]
    keys = ["role", "content", "from", "value", "type", "text"]

    def value(depth):
        kind = generator.randrange(9 if depth < 3 else 5)
        simple = [*words, None, True, 1, 2**70, 10**400, 1.5, float("nan"), float("inf"), [], {}]
        if kind < 5:
            return generator.choice(simple)
        size = generator.randrange(4)
        nested = [value(depth + 1) for _ in range(size)]
        return nested if kind < 7 else dict(zip(generator.sample(keys, size), nested, strict=True))

    rows = [{key: value(0) for key in generator.sample(forms, 3)} for _ in range(5000)]
    extract(json.dumps([*rows, {"prompt": "p", "response": "r"}]).encode())
    assert "without prompt or answer" in capsys.readouterr().out
