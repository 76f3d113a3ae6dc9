"""Configuration files as they are read: before Snakemake reads them, with their lines, and nothing misread."""

import os
import shutil

import pytest
import workflow
from attacks import attack
from configuration import BASE
from inputs import run

from wspin.config.load import read_results, read_study
from wspin.config.reader import read_plain
from wspin.errors import StudyError


def refusal(folder, text, command_line=None):
    (folder / "study.yaml").write_text(text)
    with pytest.raises(StudyError) as error:
        read_study([BASE, folder / "study.yaml"], command_line)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def test_the_study_reads_its_configuration_before_snakemake_does(tmp_path):
    study = workflow.checkout(tmp_path)
    (tmp_path / "config/config.yaml").write_text("seed: 1\nseed: 2\nresults: [\n")
    done = study.run("all", "--dry-run", "--config", "seed=x")
    assert done.returncode == 1
    assert "config/config.yaml:4: expected YAML" in done.stdout
    (tmp_path / "config/config.yaml").write_text(BASE.read_text())
    done = study.run("all", "--dry-run", "--config", "seed=x")
    assert done.stdout.splitlines()[-1] == "--config: seed: expected a whole number, found 'x'"
    assert "Traceback" not in done.stdout


def test_mistakes_of_all_files_come_together(tmp_path):
    assert refusal(tmp_path, "seed: 010\ntrain: {beta: 1, beta: 2}\narms: {on: {}}\n") == [
        "study.yaml:1: seed: found 010, which YAML reads in base 8; remove the leading zero, or quote text",
        "study.yaml:2: train.beta: the key is given twice; remove one of them",
        "study.yaml:3: arms.on: expected a name, found `on`, which YAML reads as a truth value; quote it",
    ]


def test_a_null_deletes_something_or_is_refused(tmp_path):
    (line,) = refusal(tmp_path, "arms:\n  mine:\n")
    assert line.startswith("study.yaml:2: arms.mine: null deletes an inherited key, and none is inherited")
    (tmp_path / "study.yaml").write_text("arms: {wspin: null, mine: {}}\n")
    (tmp_path / "again.yaml").write_text("arms: {wspin: null}\nteacher: null\n")
    study = read_study([BASE, tmp_path / "study.yaml", tmp_path / "again.yaml"], {"arms": {"wspin.paper": None}})
    assert (list(study.arms), study.teacher) == (["spin", "mine"], None)


def test_keys_merged_from_an_anchor_have_its_lines(tmp_path):
    text = "arms:\n  mine: &mine {train: {beta: 0.2}}\n  other:\n    <<: *mine\n    seed: 3\n"
    (tmp_path / "study.yaml").write_text(text)
    assert read_study([BASE, tmp_path / "study.yaml"]).arm_train("other").beta == 0.2
    assert refusal(tmp_path, text.replace("beta", "bta")) == [
        "study.yaml:2: arms.mine.train.bta: unknown key; did you mean `beta`?",
        "study.yaml:2: arms.other.train.bta: unknown key; did you mean `beta`?",
    ]


@pytest.mark.parametrize("number", ["1e-7", "'1e-7'", "1.0e-7", ".0000001", "+1e-07"])
def test_a_number_is_the_same_in_every_spelling(tmp_path, number):
    (tmp_path / "study.yaml").write_text(f"train: {{learning_rate: {number}}}\n")
    assert read_study([BASE, tmp_path / "study.yaml"]).train.learning_rate == 1e-7


def test_a_command_line_replaces_the_files(tmp_path):
    (tmp_path / "study.yaml").write_text("seed: 3\ntrain: {beta: 0.2, epochs: 1}\n")
    study = read_study([BASE, tmp_path / "study.yaml"], {"seed": "5", "train": {"beta": "0.3"}})
    assert (study.seed, study.train.beta, study.train.epochs) == (5, 0.3, 1)
    assert refusal(tmp_path, "seed: 3\n", {"iteratons": 3}) == [
        "--config: iteratons: unknown key; did you mean `iterations`?"
    ]


# Files of a shared folder: the resolved study beside results, which anybody may have replaced


def refused_results(folder):
    """The lines with which a folder's `config.yaml` is refused."""
    with pytest.raises(StudyError) as error:
        read_results(folder)
    return str(error.value).replace(f"{folder}/", "").splitlines()


MOST = "config.yaml:1: expected at most 20000 keys and values, found {} behind aliases; write them out"
NESTED = "config.yaml: expected sections a few levels deep, found brackets nested without end"
TAG = "config.yaml:1: a: expected plain values, found the tag !!python/object/apply:os.system; remove it"


def nines(first, form):
    """Six sections, each with the one before it nine times."""
    return f"a: &a {first}\n" + "".join(
        f"{name}: &{name} {form % ', '.join(9 * ['*' + before])}\n"
        for before, name in ("ab", "bc", "cd", "de", "ef", "fg")
    )


@attack(
    "malformed",
    "aliases or merges that multiply, aliases of themselves, 100,000 brackets, tags that run code, in a `config.yaml`",
    "refused in one line, before anything is expanded or constructed",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (nines("[x]", "[%s]"), MOST.format("1.27e+06")),
        (nines("{x: 1}", "{<<: [%s]}"), MOST.format("2.02e+06")),
        ("a: &a [*a]\n", MOST.format("no end of them")),
        ("a: &a\n  <<: *a\n", MOST.format("no end of them")),
        ("a: " + "[" * 100_000, NESTED),
        ("a: " + "{b: " * 50_000, NESTED),
        ("a: !!python/object/apply:os.system ['touch harmed']\n", TAG),
    ],
    ids=["aliases", "merges", "self", "merge of itself", "brackets", "braces", "tag"],
)
def test_a_resolved_study_expands_nothing(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert refused_results(tmp_path) == [message]
    assert os.listdir() == ["config.yaml"]


@attack(
    "malformed",
    "`manage.py status --configfile` of an overlay whose aliases multiply (a YAML bomb)",
    "bomb.yaml:1: expected at most 20000 keys and values, found 1.27e+06 behind aliases; write them out",
)
@pytest.mark.parametrize("command", ["status", "revisions", "adopt"])
def test_an_overlay_expands_nothing(tmp_path, monkeypatch, command, outcome):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    shutil.copyfile(BASE, "config/config.yaml")
    (tmp_path / "bomb.yaml").write_text(nines("[x]", "[%s]"))
    assert run("manage", [command, "--configfile", "bomb.yaml"]) == (1, "", outcome)
    assert sorted(os.listdir()) == ["bomb.yaml", "config"]


@attack("malformed", "a `config.yaml` of thousands of unknown keys", "100 of the mistakes, and how many more there are")
def test_mistakes_without_number_are_not_all_explained(tmp_path):
    (tmp_path / "config.yaml").write_text("".join(f"key{i}: 1\n" for i in range(3000)))
    lines = refused_results(tmp_path)
    assert len(lines) == 101
    assert lines[-1] == "100 more lines like these"


@attack(
    "shared folders",
    "a `config.yaml` that is a pipe, a link to a device without end, or larger than 1 MB",
    "refused without reading it",
)
def test_what_is_no_configuration_file_is_not_read(tmp_path):
    file = tmp_path / "config.yaml"
    for make in (lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero")):
        make()
        assert refused_results(tmp_path) == [
            "config.yaml: expected a configuration file, found a pipe or device; name a file"
        ]
        file.unlink()
    with open(file, "wb") as large:
        large.truncate(10**9)
    found = "expected a configuration file of at most 1 MB, found 1000.0 MB; name another file"
    assert refused_results(tmp_path) == [f"config.yaml: {found}"]


@pytest.mark.parametrize(
    "value", ["!!timestamp x", "!!bool x", "!!int ''", "!!int x", "0x" + "f" * 5000, "1" + ":9" * 5000]
)
def test_values_of_foreign_yaml_that_are_not_of_their_kind(value):
    with pytest.raises(StudyError) as error:
        read_plain(f"configs: {value}", "README.md", most=10)
    assert str(error.value).startswith("README.md: expected YAML, found ")
    assert len(error.value.args[0]) < 200
