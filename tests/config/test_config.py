"""Configuration files: validity, mistakes with their lines, merging."""

import json
import re

import jsonschema
import pytest
import yaml
from configuration import BASE, CONFIG, line_of, load, merged, refusal

from wspin.config.load import load_study
from wspin.config.study import merge
from wspin.errors import StudyError

OVERLAYS = sorted((CONFIG / "overlays").rglob("*.yaml"))


DEMO, FINDINGS = CONFIG / "overlays/demo.yaml", CONFIG / "overlays/findings.yaml"
BELOW = {"everything.yaml": [DEMO], "findings.yaml": [DEMO], "findings_words.yaml": [DEMO, FINDINGS]}


def below(overlay):
    """What an overlay is laid over, beside the study: in the papers' as the command in its first lines has it."""
    command = re.search(r"--configfile (.+)", overlay.read_text())
    named = [CONFIG.parent / name for name in command[1].split() if name.endswith(".yaml")] if command else []
    return BELOW.get(overlay.name) or (named[:-1] if named and named[-1] == overlay else [])


# Configuration files


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: path.name if path else BASE.name)
def test_every_configuration_file_is_valid(overlay):
    files = [BASE, *below(overlay), overlay] if overlay else [BASE]
    study = load_study(merged(*(yaml.safe_load(file.read_text()) for file in files[1:])), files)
    assert study.arms


@pytest.mark.parametrize("file", [BASE, *OVERLAYS], ids=lambda path: path.name)
def test_every_configuration_file_fits_the_schema_for_editors(file):
    checker = jsonschema.Draft202012Validator(json.loads((CONFIG / "schema.json").read_text()))
    given = yaml.safe_load(file.read_text())
    assert [error.message for error in checker.iter_errors(given)] == []
    for mistake in (
        {"trian": {}},
        {"arms": {"x": {"train": {"bta": 1}}}},
        {"train": {"learning_rate": "5e-7"}},
        {"seed": []},
    ):
        assert list(checker.iter_errors({**given, **mistake})), mistake


# Mistakes in files


def test_trap_08_unknown_keys_are_named_with_line_and_nearest_key(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "seed: 1\ntrain:\n  bta: 0.3\n  schedule: {wramup: 0.2}\n"
        "arms:\n  spin: {trian: {}}\nmodels:\n  base:\n    revison: x\n"
    )
    with pytest.raises(StudyError) as error:
        load_study(merged(yaml.safe_load(overlay.read_text())), [BASE, overlay])
    assert sorted(str(error.value).splitlines()) == [
        f"{overlay}:3: train.bta: unknown key; did you mean `beta`?",
        f"{overlay}:4: train.schedule.wramup: unknown key; did you mean `warmup`?",
        f"{overlay}:6: arms.spin.trian: unknown key; did you mean `train`?",
        f"{overlay}:9: models.base.revison: unknown key; did you mean `revision`?",
    ]


def test_duplicate_keys_are_refused_with_their_line(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("seed: 1\ntrain:\n  beta: 0.1\n  epochs: 2\n  beta: 0.5\n")
    with pytest.raises(StudyError, match=f"{file}:5: train.beta: the key is given twice"):
        load_study(merged(yaml.safe_load(file.read_text())), [BASE, file])


def test_values_from_the_command_line_are_placed_too():
    assert refusal({"train": {"bta": 0.3}}).startswith(f"{line_of('train:')}: train.bta: ")
    assert refusal({"trian": {}}) == "config: trian: unknown key; did you mean `train`?"


# Merging


def test_null_deletes_an_inherited_key():
    study = load({"models": {"dpo": None}, "eval": {"models": ["base"]}, "report": {"published": None}})
    assert list(study.models) == ["base", "sft", "teacher"]
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": None, "c": [3]}, "d": None}) == {"a": {"c": [3]}}


def test_overrides_of_trainings_merge_in_their_order():
    study = load(
        {
            "train": {"dpo": {"epochs": 3, "beta": 0.2}},
            "models": {"dpo": {"train": {"beta": "0.3", "schedule": {"warmup": 0}}}},
        }
    )
    train = study.model_train("dpo")
    assert (train.loss, train.epochs, train.beta, train.learning_rate) == ("dpo", 3, 0.3, 5e-7)
    assert (train.schedule.warmup, train.schedule.decay) == (0.0, "linear")
    arm = load({"arms": {"spin": {"train": {"schedule": {"decay": "constant"}}}}}).arm_train("spin")
    assert (arm.loss, arm.schedule.warmup, arm.schedule.decay, arm.epochs) == ("spin", 0.1, "constant", 2)


def test_texts_from_the_command_line_become_numbers():
    study = load({"train": {"beta": "0.3", "epochs": "3"}, "iterations": "4", "dialogue": {"eos_on_cut": "true"}})
    assert (study.train.beta, study.train.epochs, study.iterations, study.dialogue.eos_on_cut) == (0.3, 3, 4, True)
    assert load({"arms": {"spin": {"train": {"beta": "0.3"}}}}).arm_train("spin").beta == 0.3


def test_trap_31_the_teacher_is_the_published_runs():
    """Its branch on the hub holds another model by now; the start of SPIN's own study is the same commit."""
    pinned = ("alignment-handbook/zephyr-7b-sft-full", "ac6e600eefcce74f5e8bae1035d4f66019e93190")
    teacher = load({}).models["teacher"]
    assert (teacher.hub, teacher.revision) == pinned
