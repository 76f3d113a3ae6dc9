"""Malformed and hostile JSON: a `ValueError` of one line, one message of a program, and no traceback."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks import attack
from hypothesis import example, given
from hypothesis import strategies as st

from wspin.errors import StudyError
from wspin.report.samples import _value
from wspin.storage import files, provenance, tables
from wspin.storage.strict_json import DEEPEST, parse, parse_exact

DEEP = "[" * 200_000 + "]" * 200_000
VALUES = st.recursive(
    st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(), st.lists
)


def refusal(read, *arguments):
    """The one line with which a text or file is refused."""
    with pytest.raises((ValueError, StudyError)) as refused:
        read(*arguments)
    assert str(refused.value).isprintable()
    return str(refused.value)


@attack(
    "malformed",
    "JSON of 200,000 brackets, numbers of thousands of digits, keys given twice, lone surrogates",
    "refused in one line with the file's name, wherever the study reads JSON",
)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (DEEP, "brackets inside each other without end"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "brackets inside each other more than 100 times"),
        ("9" * 5000, "a number of thousands of digits"),
        ('{"a\\n": 1, "a\\n": 2}', r"the key 'a\n' twice"),
        (r'"\ud800"', r"a lone surrogate (\ud800 to \udfff)"),
        (r'{"\udfff": 1}', r"a lone surrogate (\ud800 to \udfff)"),
        (b'"\xed\xa0\x80"', r"a lone surrogate (\ud800 to \udfff)"),
    ],
    ids=["brackets", "deep", "digits", "twice", "surrogate", "surrogate key", "surrogate bytes"],
)
def test_what_is_not_read_alike_is_refused(tmp_path, text, problem):
    assert refusal(parse_exact, text) == problem
    file = tmp_path / "record.json"
    file.write_bytes(b'{"a": %s}' % (text if isinstance(text, bytes) else text.encode()))
    shown = refusal(files.read_json, file, "a record", "make it again")
    assert shown == f"{file}: expected a record, found no JSON ({problem}); make it again"


def test_a_key_given_twice_is_looked_for_once():
    """In a file of 4 MB; counting each of its keys would take hours."""
    keys = ",".join(f'"{i}": 0' for i in range(300_000))
    assert refusal(parse, f'{{{keys}, "299999": 0}}') == "the key '299999' twice"


@given(VALUES)
@example({"a": [1, {"b": "\U0001f600"}]})
def test_what_json_can_say_is_read(value):
    try:
        text = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert parse_exact(text) == parse(text) == value


@pytest.mark.parametrize("text", [DEEP, "9" * 5000], ids=["brackets", "digits"])
def test_metadata_and_metrics_are_refused_too(tmp_path, text):
    table = pa.table({"x": [1]}).replace_schema_metadata({"wspin": f'{{"a": {text}}}'})
    pq.write_table(table, tmp_path / "x.parquet")
    assert "metadata: expected a JSON object under `wspin`, found " in refusal(
        tables.read_parquet, tmp_path / "x.parquet"
    )
    shown = refusal(_value, Path("x"), "task", 0, "acc", f'{{"acc": {text}}}')
    assert shown.startswith("x: task, document 0: metrics: expected a number under 'acc', found '{\"acc\": ")
    assert len(shown) < 300


@attack(
    "malformed",
    "a record with a command, versions, inputs or GPUs of other types, NaN or numbers without end",
    "refused in one line that names the entry",
)
@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"command": [["a"]]}, "command: expected a text, found ['a']"),
        ({"inputs": {"a": {}}}, "inputs: expected a text, found {}"),
        ({"versions": {"torch": 2}}, "versions: expected a text, found 2"),
        ({"gpus": {"count": "2"}}, "gpus: count: expected a number, found '2'"),
        ({"gpus": {"name": ["\x1b[2J"]}}, r"gpus: name: expected a text, found ['\x1b[2J']"),
        ({"seconds": float("nan")}, "seconds: expected a number, found nan"),
        ({"gpus": {"count": float("inf")}}, "gpus: count: expected a number, found inf"),
        ({"seconds": 10**400}, f"seconds: expected a number, found {'1' + '0' * 59}"),
    ],
)
def test_a_record_has_entries_of_its_types(tmp_path, entry, problem):
    file = tmp_path / "a.provenance.json"
    file.write_text(json.dumps({"program": "train", "code": "0", **entry}))
    assert refusal(provenance.read_record, file) == f"{file}: {problem}; make the result again"
