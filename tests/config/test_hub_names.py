"""Names on the hub are accepted as the hub's own library accepts them."""

import shutil

import pytest
from attacks import attack
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from wspin.config.base import Hub, PushTo
from wspin.config.load import read_study
from wspin.errors import StudyError
from wspin.manage.revisions import pin

CHARACTERS = st.sampled_from(["a", "B", "7", "_", "-", ".", "--", "..", ".git", "/", "é", " ", "\n", "a" * 47])


def is_accepted(kind, name):
    try:
        TypeAdapter(kind).validate_python(name)
    except ValidationError:
        return False
    return True


def is_valid(name):
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@given(st.lists(CHARACTERS, min_size=1, max_size=7).map("".join))
@example("a/" + "b" * 96)
@example("a/" + "b" * 97)
@example("a/b.git\n")
@settings(max_examples=1000)
def test_the_hubs_rule(name):
    assert is_accepted(Hub, name) == is_valid(name)
    assert is_accepted(PushTo, name) == (is_valid(name) and "/" in name)


@attack(
    "paths",
    "`hub: ../../api/whoami-v2` in a config without a commit, and `manage.py revisions`",
    "model '../../api/whoami-v2': expected a name on the hub, `owner/name`; a local folder is given as `path`",
)
def test_revisions_looks_up_no_other_name(root, tmp_path, monkeypatch, outcome):
    shutil.copytree(root / "config", tmp_path / "config")
    (tmp_path / "study.yaml").write_text("models: {base: {hub: ../../api/whoami-v2, revision: null}}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as error:
        list(pin(["study.yaml"], []))
    assert str(error.value) == outcome


@attack(
    "malformed",
    "`push: {model: base, to: me/base..git}`",
    "study.yaml:1: push.to: expected a name without `--`, `..` and a `.git` at its end, as on the hub, found "
    "'me/base..git'; correct it",
)
def test_push_is_refused_before_the_export(root, tmp_path, monkeypatch, outcome):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("push: {model: base, to: me/base..git}\n")
    with pytest.raises(StudyError) as error:
        read_study([root / "config/config.yaml", "study.yaml"])
    assert str(error.value) == outcome
