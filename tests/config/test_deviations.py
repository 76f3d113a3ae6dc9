"""The page of deviations: paper, released code, this study."""

import copy

import pytest
import update
import workflow
from configuration import BASE, load, merged

from wspin.config import document
from wspin.config.deviations import Setting, deviations, read_settings
from wspin.config.load import load_study
from wspin.config.study import Study
from wspin.errors import StudyError

SETTINGS = read_settings(workflow.ROOT / "config/published/settings.yaml")
KEYS = [key for setting in SETTINGS for key in setting.keys]
CHANGES = {
    "train.beta": {"train": {"beta": 0.3}},
    "train.epochs": {"train": {"epochs": [1, 1, 2, 2]}},
    "weigh.mu_rejected": {"weigh": {"mu_rejected": 1.0}},
    "data.sft.prompts": {"data": {"sft": {"prompts": 14000}}},
    "generate.temperature": {"generate": {"temperature": 0.7}},
    "dialogue.template": {"dialogue": {"template": "instruction-response"}},
    "seed": {"seed": 43},
    "data_window": {"data_window": 1},
    "eval.suites": {"eval": {"suites": {"arc": {"arc_challenge": 0}}}},
}


def changed_lines(before, after):
    """The lines that differ, each before and after."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [line for pair in pairs if pair[0] != pair[1] for line in pair]


def test_the_page_is_that_of_the_configuration():
    """`python tests/update.py` renews it."""
    page = (workflow.ROOT / "docs/deviations.md").read_text()
    assert page == update.deviations_page()
    assert page.count("\n| ") == len(SETTINGS) + 1 >= 30


@pytest.mark.parametrize("key", CHANGES)
def test_an_edit_of_a_key_changes_its_line_alone(key):
    before, after = (deviations(SETTINGS, study) for study in (load(), load_study(merged(CHANGES[key]), [BASE])))
    removed, added = changed_lines(before, after)
    assert f"`{key}`: " in removed and f"`{key}`: " in added


def test_every_value_of_the_page_changes_one_line():
    """Also of the keys that no single edit may change: the study is valid no more, but the page is made."""
    values = load().model_dump(mode="json", by_alias=True)
    before = deviations(SETTINGS, load())
    for key in KEYS:
        edited = copy.deepcopy(values)
        *above, name = key.split(".")
        section = edited
        for part in above:
            section = section[part]
        section[name] = "EDITED"
        after = deviations(SETTINGS, Resolved(edited))
        assert [f"`{key}`: `EDITED`" in line for line in changed_lines(before, after)] == [False, True], key


class Resolved:
    """In place of a study: its values."""

    def __init__(self, values):
        self.values = values

    def model_dump(self, **_):
        return self.values


def test_every_key_is_a_key_and_shown_once():
    paths = [key.path for key in document.leaves()]
    fits = [
        any(all(a in (b, "<name>", "<stage>") for a, b in zip(path, key.split("."), strict=False)) for path in paths)
        for key in KEYS
    ]
    assert [key for key, known in zip(KEYS, fits, strict=True) if not known] == []
    assert len(set(KEYS)) == len(KEYS)


def test_a_key_that_is_none_or_twice_is_refused():
    wrong = {"point": "beta", "paper": {"SPIN": 0.1}, "code": {"SPIN": 0.1}, "reason": "SPIN's"}
    study: Study = load()
    with pytest.raises(StudyError, match=r"beta: expected a key of the configuration, found 'train\.bta'; correct it"):
        deviations([Setting(**wrong, keys=["train.bta"])], study)
    twice = Setting(**wrong, keys=["train.beta"])
    with pytest.raises(StudyError, match=r"beta: expected keys of no other point, found train\.beta"):
        deviations([twice, twice], study)
