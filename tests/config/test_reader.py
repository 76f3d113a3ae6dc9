"""Configuration files as they are read: before Snakemake reads them, with their lines, and nothing misread."""

import pytest
import workflow
from configuration import BASE

from wspin.config.load import read_study
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
