"""What is told before the first job of a run on SLURM."""

import logging
from types import SimpleNamespace

import pytest
import slurm_answers

from wspin.errors import StudyError
from wspin.manage import slurm_limits


@pytest.fixture
def start(tmp_path, monkeypatch, caplog):
    """Warnings at the start of a run of these (rule, resources), and whether the queue is watched from then on."""
    slurm_answers.install(tmp_path / "bin", monkeypatch)
    watched = []
    monkeypatch.setattr(slurm_limits, "watch_queue", watched.append)

    def of(*jobs, executor="slurm", status="squeue", qos=None, nodes=100, local=(), first=40):
        planned = [
            SimpleNamespace(rule=SimpleNamespace(name=rule), resources=resources, threads=4, is_local=rule in local)
            for rule, resources in jobs
        ]
        workflow = SimpleNamespace(
            executor_plugin=SimpleNamespace(name=executor),
            executor_settings=SimpleNamespace(status_command=status, qos=qos, init_seconds_before_status_checks=first),
            resource_settings=SimpleNamespace(nodes=nodes),
            dag=SimpleNamespace(needrun_jobs=lambda: planned),
        )
        slurm_limits.start_on_slurm(workflow, logging.getLogger("start"))
        return [record.message for record in caplog.records], bool(watched)

    return of


CPU = ("weigh", {"slurm_partition": "cpu", "runtime": 30})
GPU = {"slurm_partition": "gpu", "runtime": 30, "gpu": 1, "nodes": 1}


def test_a_run_within_all_limits_starts_in_silence(start):
    assert start(CPU, ("train", GPU), ("report", {"slurm_partition": "none"}), local=("report",)) == ([], True)


def test_a_run_elsewhere_is_not_looked_at(start):
    assert start(("train", GPU | {"gres": "gpu"}), executor="local", status=None) == ([], False)


@pytest.mark.parametrize("status", ["sacct", None])
def test_a_status_command_that_overlooks_cancelled_jobs_is_told(start, status):
    (line,), _ = start(CPU, status=status)
    assert line == (
        f"slurm-status-command: expected squeue, found {status}, which overlooks cancelled jobs: the run would wait "
        "for them without end; set it in the profile"
    )


def test_a_queue_that_forgets_too_soon_stops_the_run(start):
    with pytest.raises(StudyError, match=r"slurm: MinJobAge: expected 303 s or more, .*, found 300 s"):
        start(CPU, first=101)


def test_jobs_that_may_wait_for_ever_are_a_warning_for_each_rule(start):
    lines, watched = start(CPU, ("train", GPU | {"runtime": 40}), ("train", GPU | {"runtime": 40}))
    assert [line.partition(":")[0] for line in lines] == ["train"]
    assert "found 40 minutes, expected at most 30, the limit of partition 'gpu'" in lines[0]
    assert watched


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"slurm_partition": "h100"}, "partition: expected one of cpu, gpu, long, found 'h100'"),
        ({"qos": "shrot"}, "QOS: expected one of normal, short, found 'shrot'"),
    ],
)
def test_what_sbatch_would_refuse_stops_the_run(start, asked, line):
    """Each attempt of each job would be refused within a second."""
    with pytest.raises(StudyError, match=f"^train: {line}, which SLURM refuses; correct the profile$"):
        start(CPU, ("train", GPU | asked))


def test_accounts_and_qos_are_known_in_any_letters(start):
    assert start(("train", GPU | {"slurm_account": "Lab, other", "qos": "Normal"})) == ([], True)


def test_jobs_of_another_cluster_are_not_measured_by_this_one(start):
    assert start(("train", GPU | {"slurm_partition": "h100", "cluster": "other"})) == ([], True)


def test_more_jobs_at_a_time_than_slurm_takes_stop_the_run(start):
    with pytest.raises(
        StudyError, match="jobs: found 5 at a time, expected at most 4: account 'lab' gives you 4 places"
    ):
        start(*[CPU] * 5)
    assert start(*[CPU] * 5, nodes=4)[1]
    with pytest.raises(StudyError, match="jobs: found 4 at a time, expected at most 3: QOS 'short' gives you 3 places"):
        start(*[CPU] * 5, nodes=4, qos="short")


def test_gpus_that_cannot_be_counted_stop_the_run_before_its_first_job(start):
    with pytest.raises(
        StudyError, match="train: expected resources gres: 'gpu:N' and gpu: 0, or gpu alone, found gres"
    ):
        start(CPU, ("train", GPU | {"gres": "gpu:4", "gpu": 8}))
