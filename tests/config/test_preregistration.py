"""The file that names a family of tests."""

import re

import pytest
import workflow

from wspin.config.preregistration import read_preregistration
from wspin.errors import StudyError

TEXT = """\
level: 0.05
contrasts:
  - wspin - spin
  - kd - wspin.mean_one
tasks: [average]
iterations: [last, 0]
tests: [seeds]
"""


def written(folder, text):
    path = folder / "preregistration.yaml"
    path.write_text(text)
    return path


def test_the_family_is_that_of_the_file(tmp_path):
    family = read_preregistration(written(tmp_path, TEXT))
    assert family.pairs == [("wspin", "spin"), ("kd", "wspin.mean_one")]
    assert family.iterations == ["last", 0]
    assert (family.level, family.tasks, family.tests) == (0.05, ["average"], ["seeds"])
    assert family.seeds is None
    assert read_preregistration(written(tmp_path, f"{TEXT}seeds: [42, 43]\n")).seeds == [42, 43]


def test_a_name_that_ends_as_a_replicates_may_be_an_arms(tmp_path):
    path = written(tmp_path, TEXT.replace("wspin - spin", "wspin.s2 - spin.s43"))
    assert read_preregistration(path).pairs[0] == ("wspin.s2", "spin.s43")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("level: 0.05", "level: 5", 1, "level: expected a number below 1, found 5"),
        ("level: 0.05\n", "", "", "level: missing key; nothing is defaulted silently"),
        ("tests:", "test:", 7, "test: unknown key; did you mean `tests`?"),
        ("wspin - spin", "wspin-spin", 2, "contrasts.0: expected `arm - baseline` with blanks.*, found 'wspin-spin'"),
        ("wspin - spin", "spin - spin", 2, "contrasts.0: expected `arm - baseline`, two names, found 'spin - spin'"),
        ("wspin - spin", "wspin/ite3 - spin/ite3", 2, "contrasts.0: expected `arm - baseline`"),
        (
            "kd - wspin.mean_one",
            "wspin - spin",
            2,
            "contrasts: expected every entry once, found \\['wspin - spin', 'wspin - spin'\\]; remove",
        ),
        (
            "kd - wspin.mean_one",
            "spin - wspin",
            2,
            "contrasts: expected every two names once, found .*; remove one of `wspin - spin` and `spin - wspin`",
        ),
        (
            "kd - wspin.mean_one",
            "wspin.s43 - spin",
            2,
            "contrasts: expected arms and models, whose replicates belong to them, found .*; remove 'wspin.s43'",
        ),
        ("[seeds]", "[seeds]\nseeds: [42, 42]", 8, "seeds: expected every entry once, found"),
        ("[seeds]", "[seeds]\nseeds: []", 8, "seeds: expected 1 or more entries"),
        ("[average]", "[]", 5, "tasks: expected 1 or more entries"),
        ("[last, 0]", "[latest]", 6, "iterations.0: expected `last` or the number of an iteration, found 'latest'"),
        ("[last, 0]", "[-1]", 6, "iterations.0: expected `last` or the number of an iteration, found -1"),
        ("[last, 0]", "[true]", 6, "iterations.0: expected `last` or the number of an iteration, found true"),
        ("[seeds]", "[seed]", 7, "tests.0: expected 'mcnemar', 'documents' or 'seeds', found 'seed'; did you mean"),
        (
            "[seeds]",
            "[mcnemar]",
            7,
            "tests: expected tests of all `tasks`: mcnemar counts right and wrong answers, and `average` is a mean of",
        ),
        ("[seeds]", "[seeds", 8, "expected YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, old, new, line, message):
    path = written(tmp_path, TEXT.replace(old, new))
    with pytest.raises(StudyError) as error:
        read_preregistration(path)
    place = f"{path}:{line}" if line else f"{path}"
    assert re.match(rf"{re.escape(place)}: {message}", error.value.args[-1]), error.value


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StudyError, match="expected a configuration file, found none; correct its path"):
        read_preregistration(tmp_path / "none.yaml")


def test_an_empty_file_is_to_be_filled(tmp_path):
    with pytest.raises(StudyError, match="expected keys with values, found an empty file; write them, or do not name"):
        read_preregistration(written(tmp_path, "# nothing\n"))


@pytest.mark.parametrize(
    ("file", "count", "seeds"),
    [("preregistration", 8, [42, 43, 44, 45, 46]), ("preregistration_controls", 20, [42])],
)
def test_the_families_of_the_repository_are_valid(file, count, seeds):
    family = read_preregistration(workflow.ROOT / f"config/{file}.yaml")
    assert len(family.pairs) == count
    assert family.pairs[0] == ("wspin", "spin")
    assert family.seeds == seeds
