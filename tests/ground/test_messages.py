"""Messages of errors: every line is one of the program's own, whatever foreign text stands in it."""

import pickle
import re
import sys

import pytest
from attacks import attack
from hypothesis import given
from hypothesis import strategies as st
from inputs import run

from wspin import cli
from wspin.errors import StudyError, first_line
from wspin.escaping import LONGEST

FORGED = "x\nreport.py: error: all is well\x1b[2J\x1b]0;title\x07\r\u202egnp.exe\u200b"
SHOWN = r"x\nreport.py: error: all is well\x1b[2J\x1b]0;title\x07\r\u202egnp.exe\u200b"


def ended(main, capsys, monkeypatch):
    """What a program ends with on standard error."""
    monkeypatch.setattr(sys, "argv", ["report.py"])
    with pytest.raises(SystemExit) as end:
        cli.run(main)
    return end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_every_argument_is_one_printable_line(lines):
    shown = str(StudyError(*lines)).split("\n")
    assert len(shown) == len(lines)
    assert all(line.isprintable() for line in shown)
    assert str(StudyError(*shown)) == "\n".join(shown)


@attack(
    "display",
    "a name with a line break and an error of its own, with codes that clear the screen, set the title or turn text",
    r"one line, with the codes as text: report.py: error: x\nreport.py: error: all is well\x1b[2J",
)
def test_a_name_forges_no_line(capsys, monkeypatch):
    def main():
        raise StudyError(f"file: expected a name, found {FORGED}; rename it")

    assert ended(main, capsys, monkeypatch) == f"report.py: error: file: expected a name, found {SHOWN}; rename it"


def test_the_first_line_of_a_message_is_not_blank():
    """Those of transformers about missing packages begin with a line break."""
    assert (
        first_line(ImportError("\n  \nLlamaTokenizer requires sentencepiece\n"))
        == "LlamaTokenizer requires sentencepiece"
    )
    assert first_line(ImportError("\n")) == "ImportError"


def test_several_mistakes_are_several_lines(capsys, monkeypatch):
    def main():
        raise StudyError("a: expected b", "c: expected d")

    assert ended(main, capsys, monkeypatch) == "report.py: error: a: expected b\nreport.py: error: c: expected d"


@attack("display", "a key or an exception's text of ten megabytes", "2,000 characters of it and a mark")
def test_a_long_line_is_cut():
    (line,) = str(StudyError("x" * 10**7)).split("\n")
    assert line == "x" * LONGEST + " [...]"


@attack("display", "codes of a terminal in the error of a library", "shown as text, in the traceback too")
def test_a_traceback_moves_no_cursor(capsys, monkeypatch):
    def main():
        raise KeyError(FORGED)

    shown = ended(main, capsys, monkeypatch)
    assert shown.startswith("Traceback (most recent call last):\n")
    assert all(line.isprintable() for line in shown.rstrip("\n").split("\n"))


def test_a_first_line_is_short_too():
    assert first_line(ValueError("x" * 10**7)) == "x" * LONGEST + " [...]"
    assert first_line(ValueError()) == "ValueError"


def test_an_error_survives_a_process():
    assert str(pickle.loads(pickle.dumps(StudyError("a\n", "b")))) == "a\\n\nb"


def test_a_folder_that_is_none_is_named_on_one_line():
    code, _, message = run("manage", ["stale", "--results", "no\nsuch\x1b[2J"])
    assert (code, message) == (
        1,
        r"no\nsuch\x1b[2J: expected a folder of results, found none; give the config's `results`",
    )


def test_mistakes_are_arguments_and_json_is_parsed_in_one_place(root):
    """A joined text would be one line; what `json.loads` reads elsewhere is the program's own, or checked beside it."""
    texts = {path: path.read_text() for path in (root / "workflow/scripts").rglob("*.py")}
    assert not [path for path, text in texts.items() if re.search(r'StudyError\(\s*"\\n"\.join', text)]
    own = {"fetch.py", "fetch/readers.py", "train/journal.py", "data/reserved.py", "storage/strict_json.py"}
    readers = {str(path.relative_to(root / "workflow/scripts")) for path, text in texts.items() if "json.loads" in text}
    assert {name.removeprefix("wspin/") for name in readers} <= own


def test_the_help_shows_the_lines_of_a_command_apart():
    """As the program's docstring has them: Python joins lines that end in a backslash."""
    joined = "Do it.\n\n    python do.py --flag value         --output file\n\nMore.\n"
    shown = cli.program_parser("do", joined).format_help()
    assert "    python do.py --flag value \\\n        --output file\n" in shown
