"""Polls of SLURM's queue and the time for which it keeps jobs."""

from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm import job_status_query
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from wspin.errors import StudyError
from wspin.manage.slurm_polls import check_polls


@pytest.fixture
def pauses(monkeypatch):
    """What an executor waits between polls after having been given pauses."""
    monkeypatch.setattr(RemoteExecutor, "next_seconds_between_status_checks", plain := pause())

    def given(*seconds):
        executor = SimpleNamespace()
        found = []
        for number in seconds:
            RemoteExecutor.next_seconds_between_status_checks.fset(executor, number)
            found.append(plain.fget(executor))
        return found

    return given


def pause():
    return property(lambda executor: executor.value, lambda executor, value: setattr(executor, "value", value))


def check(monkeypatch, age, first=40):
    monkeypatch.setattr(job_status_query, "get_min_job_age", lambda: age)
    return check_polls(first)


@pytest.mark.parametrize("age", [240, 300, 3600])
def test_where_slurm_keeps_jobs_long_enough_nothing_changes(monkeypatch, pauses, age):
    assert check(monkeypatch, age) == ""
    assert pauses(40, 180) == [40, 180]


def test_where_it_drops_them_sooner_polls_are_more_frequent(monkeypatch, pauses):
    line = check(monkeypatch, 130)
    assert pauses(40, 50, 60, 70, 180) == [40, 50, 60, 65, 65]
    assert line == "slurm: the queue is polled at least every 65 s, as MinJobAge is only 130 s"


def test_a_first_poll_that_comes_too_late_is_refused(monkeypatch, pauses):
    with pytest.raises(StudyError) as error:
        check(monkeypatch, 60)
    name = "slurm-init-seconds-before-status-checks"
    expected = f"expected 120 s or more, three times {name}, found 60 s; set {name}: 20 in the profile"
    assert str(error.value) == f"slurm: MinJobAge: {expected}, or have MinJobAge raised"
    check(monkeypatch, 60, first=20)
    assert pauses(20, 40) == [20, 30]


def test_a_controller_without_an_answer_is_no_error(monkeypatch, pauses):
    assert check(monkeypatch, None).startswith("slurm: expected MinJobAge of `scontrol show config`, found none; ")
    assert pauses(180) == [180]
