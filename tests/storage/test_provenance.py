"""Records of how a result was made."""

import subprocess

import pytest
from attacks import attack

from wspin.storage import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, whose code is taken for the study's."""
    scripts = tmp_path / "study/workflow/scripts"
    scripts.mkdir(parents=True)
    (scripts / "train.py").touch()
    for profile in ("slurm", "local"):
        (tmp_path / "study" / profile).mkdir()
        (tmp_path / "study" / profile / "config.yaml").write_text("executor: slurm")
    monkeypatch.setattr(provenance, "SCRIPTS", scripts)
    for command in ("init --quiet", "add .", "-c user.name=a -c user.email=a commit --quiet -m first"):
        subprocess.run(["git", "-C", scripts.parents[1], *command.split()], check=True)
    return scripts.parents[1]


def test_the_commit_is_recorded_and_whether_files_differ_from_it(repository):
    commit = provenance._commit()
    assert len(commit) == 40
    for profile in ("slurm", "local"):  # which says where jobs run
        (repository / profile / "config.yaml").write_text("executor: local")
    assert provenance._commit() == commit
    (repository / "workflow/scripts/train.py").write_text("changed")
    assert provenance._commit() == f"{commit}-dirty"


@attack(
    "shared folders",
    "a checkout of another user, whose git configuration names a program that `git describe` would run",
    "git does not read it: the commit is `unknown`, a line in the log says why, and the hash of the code is recorded",
)
def test_the_configuration_of_anothers_repository_runs_nothing(repository, monkeypatch, capsys):
    hook = repository / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {repository}/harm\n")
    hook.chmod(0o755)
    subprocess.run(["git", "-C", repository, "config", "core.fsmonitor", hook], check=True)
    assert provenance._commit() != "unknown"
    assert (repository / "harm").exists(), "git runs it in a repository of one's own"
    (repository / "harm").unlink()

    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert provenance._commit() == "unknown"
    assert not (repository / "harm").exists()
    assert capsys.readouterr().out.startswith(f"commit: unknown, git does not read {repository} (fatal: ")


def test_a_machine_without_git_costs_no_result(repository, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert provenance._commit() == "unknown"
    assert "([Errno 2] No such file or directory: 'git')" in capsys.readouterr().out
