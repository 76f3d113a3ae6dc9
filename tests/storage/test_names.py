"""Paths from foreign names: a safe name stays below its folder, any other is refused."""

import ast
import os
from pathlib import Path

import pytest
import structure
from attacks import attack
from hypothesis import given
from hypothesis import strategies as st

from wspin.errors import StudyError
from wspin.storage.names import check_distinct, path_below

FIXED = (ast.Constant, ast.BinOp, ast.operator)  # nodes of an expression without names
PARTS = st.sampled_from(["..", ".", "", "a", "data", ".git", "C:", "~", "\\", "x\\..\\y", "a\n", "\u202e", "b ", "\0"])
NAMES = st.one_of(st.text(), st.lists(st.one_of(PARTS, st.text(max_size=5)), max_size=6).map("/".join))


@given(NAMES)
def test_a_path_stays_below_its_folder(name):
    folder = Path("/results/fetched")
    try:
        path = path_below(folder, name)
    except StudyError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).isprintable()
    else:
        assert Path(os.path.normpath(path)).is_relative_to(folder)
        assert os.path.normpath(path) != str(folder)
        assert path.relative_to(folder).as_posix() == name  # it is that file, not one with a similar name


@attack(
    "paths",
    "file names of a hub: `/etc/passwd`, `../x`, `a/../../x`, `.git/hooks/post-checkout`, `a\\..\\b`, `C:x`",
    "refused before any path is made of it",
)
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("/etc/passwd", "an absolute path"),
        ("C:/x", "an absolute path"),
        ("../x", "`..`"),
        ("data/../../x", "`..`"),
        ("a//b", "an empty part"),
        ("a/", "an empty part"),
        ("", "no name"),
        (".git/hooks/post-checkout", "a hidden file or folder"),
        ("./a", "a hidden file or folder"),
        ("a\\..\\b", "a backslash"),
        ("ab:c", "a colon"),
        ("a\x1b[2J", "an invisible character"),
        ("train\u202eteuqrap", "an invisible character"),
        ("a ", "a part that ends in a dot or blank"),
        ("a" * 256, "a part of more than 255 bytes"),
        (None, "a NoneType"),
        (7, "a int"),
    ],
)
def test_an_unsafe_name_is_refused(name, found):
    with pytest.raises(StudyError, match="expected the name of a file below its folder") as refused:
        path_below("out", name)
    assert f", found {found}; " in str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "data/train-00000-of-00002.parquet", "übung.json", "a b", "a..b"])
def test_a_safe_name_is_a_path(name):
    assert path_below("out", name) == Path("out") / name


@pytest.mark.parametrize("pair", [("Config.json", "config.json"), ("caf\u00e9", "cafe\u0301"), ("a", "a")])
def test_names_that_collide_are_refused(pair):
    with pytest.raises(StudyError, match=r"found .* too, which is the same name on some file systems"):
        check_distinct(pair)


def test_a_file_is_no_folder_of_another():
    with pytest.raises(StudyError, match=r"^A/b: expected its folder, found the file a; use no such files"):
        check_distinct(["A/b", "a"])


def test_names_that_differ_are_accepted():
    check_distinct(["a", "b", "data/a"])


TRUSTED = {  # what fetches join to a folder besides constants: where these names come from
    "cards.CARD": "a constant",
    "f'{split}.parquet'": "the config, as its pattern admits it",
    "f'{split}.{suffix}'": "the config, as its pattern admits it",
    "file.checksum": "the hub's metadata, hex digits as its form admits them",
    "file.relative_to(source)": "a folder on this disk",
    "path": "a snapshot, which has checked it",
    "path_below(folder, package.file).name": "the last part of a checked path",
    "re.sub('[^\\\\w.-]+', '--', f'{repository.kind}-{repository}-{digest([*patterns])[:8]}')": "config, no `/`",
    "source.hub": "the config, as its pattern admits it",
}


def test_fetches_join_no_other_name():
    joined = set()
    for file in (structure.LIBRARY / "fetch").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                joined.add(node.right)
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Path", "join", "joinpath"):
                joined |= {*node.args[1:]}
    names = {node for node in joined if any(not isinstance(part, FIXED) for part in ast.walk(node))}
    assert {ast.unparse(node) for node in names} == TRUSTED.keys()
