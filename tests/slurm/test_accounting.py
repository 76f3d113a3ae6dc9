"""Studies on a real SLURM with accounting: unlike nodes, partitions of 30 minutes, and few places in the queue."""

import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import accounting
import cluster as slurm
import pytest
from conftest import CONFIG, DEMO, LAST
from runs import results

from wspin.manage.slurm_queue import in_words

pytestmark = pytest.mark.faults
TARGET = f"{DEMO}/{LAST}"
ACCOUNT = f"slurm_account={accounting.ACCOUNT}"
ON_CPUS = ("--default-resources", "slurm_partition=cpu", ACCOUNT, "nodes=1", "mem_mb=2000", "runtime=10")


@pytest.fixture(scope="module")
def cluster():
    """Three unlike nodes, one without a GPU, whose users may have four jobs in the queue."""
    if reason := accounting.missing():
        pytest.skip(reason)
    made = accounting.AccountedCluster(Path(tempfile.mkdtemp(prefix="slurm-")))
    with slurm.alone():
        try:
            made.up()
        except RuntimeError as error:
            made.down()
            pytest.skip(f"no SLURM with accounting can be started here: {error}")
        try:
            yield made
        finally:
            made.down()


def train_with(*resources):
    return ["--set-resources", *(f"train:{one}" for one in ("slurm_partition=gpu", "tasks_per_gpu=0", *resources))]


def test_the_whole_study_with_as_many_jobs_as_the_account_allows_equals_the_local_one(fresh, finished):
    places = accounting.PLACES
    told = fresh.refused("all")
    assert f"expected at most {places}: account '{accounting.ACCOUNT}' gives you {places} places in the queue" in told
    assert fresh.jobs() == []
    fresh.start("all", options=["--jobs", str(places), *ON_CPUS]).finish()
    assert results(fresh.folder) == results(finished)
    jobs = [job.fields for job in fresh.jobs()]
    assert {job["Account"] for job in jobs} == {accounting.ACCOUNT}
    assert len({job["NodeList"] for job in jobs}) > 1
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}


@pytest.mark.parametrize(
    ("asked", "reason", "warning"),
    [
        (("runtime=31",), "PartitionTimeLimit", "found 31 minutes, expected at most 30, the limit of partition 'gpu'"),
        (
            ("runtime=20", f"qos={accounting.SHORT}"),
            "QOSMaxWallDurationPerJobLimit",
            f"found 20 minutes, expected at most 10, the limit of QOS '{accounting.SHORT}'",
        ),
        (("runtime=20", f"qos={accounting.NARROW}", "cpus_per_task=4"), "QOSMaxCpuPerUserLimit", ""),
    ],
)
def test_a_training_that_would_wait_for_ever_is_told(unfinished, asked, reason, warning):
    """At the start, if it can be known; by the run; and by status."""
    run = unfinished.start(TARGET, options=["--jobs", "2", *train_with(*asked)])
    run.wait_for(lambda: f" waits: {in_words(reason)}" in run.told(), seconds=120)
    (job,) = [job.fields["JobId"] for job in unfinished.jobs("train")]
    start, _, later = run.told().partition(f"SLURM job {job} ({TARGET}/m")
    assert later
    assert warning in start and bool(warning) == ("minutes, expected at most" in start)
    assert f"{in_words(reason)}, SLURM job {job}" in status(unfinished)


def test_a_qos_that_is_not_the_users_stops_the_run(unfinished):
    told = unfinished.refused(TARGET, options=["--jobs", "2", *train_with("qos=shrot")])
    assert f"train: QOS: expected one of {accounting.NARROW}, normal, {accounting.SHORT}, found 'shrot'" in told
    assert unfinished.jobs() == []


def test_a_queue_that_forgets_ended_jobs_is_polled_more_often_or_stops_the_run(cluster, unfinished, local):
    with cluster.forgetting(5):
        told = unfinished.refused(TARGET, options=["--jobs", "2"])
        assert "slurm: MinJobAge: expected 6 s or more" in told and "found 5 s" in told
        assert unfinished.jobs() == []
    with cluster.forgetting(100):
        run = unfinished.start(TARGET, options=["--jobs", "2"])
        run.finish()
        assert "slurm: the queue is polled at least every 50 s, as MinJobAge is only 100 s" in run.told()
    assert results(unfinished.folder) == results(local)


def test_a_requeued_job_is_shown_as_waiting_and_a_killed_run_as_killed(unfinished, local):
    run = unfinished.start(TARGET, options=["--jobs", "2"])
    unfinished.suspended_training(run)
    (number,) = [job.fields["JobId"] for job in unfinished.jobs("train")]
    assert "1 running" in status(unfinished) and "1 queued" not in status(unfinished)
    slurm.run("scontrol", "requeue", number)
    run.wait_for(lambda: f"starts a requeued job again (BeginTime), SLURM job {number}" in status(unfinished))
    run.kill()
    assert "it was killed, but 1 of its jobs run on" in status(unfinished)
    slurm.run("scancel", number)
    unfinished.unlock()
    unfinished.start(TARGET, options=["--jobs", "2"]).finish()
    assert results(unfinished.folder) == results(local)


def test_a_signal_in_the_first_second_of_a_program_is_heeded(unfinished, local):
    """It has not yet imported what loads a model."""
    run = unfinished.start(TARGET, options=["--jobs", "2"])
    run.wait_for(lambda: "train.py: SLURM job" in unfinished.log("train", LAST))
    unfinished.training().send_signal(signal.SIGURG)
    run.finish()
    assert re.findall(r"stop requested \(SIGURG\): saved at step (\d+) of ", unfinished.slurm_log("train")) == ["1"]
    assert results(unfinished.folder) == results(local)


def status(study):
    """What `make status` prints."""
    command = [sys.executable, "workflow/scripts/manage.py", "status", "--configfile", *CONFIG]
    return subprocess.run(command, cwd=study.folder, text=True, capture_output=True, check=True).stdout
