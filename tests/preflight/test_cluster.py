"""What a study and its profile ask of a SLURM cluster, as preflight tells it."""

import pytest
import slurm_answers
import workflow
import yaml
from configuration import load

from wspin.errors import StudyError
from wspin.preflight import cluster as preflight
from wspin.study.slurm import Cluster, Rules, known_cluster


@pytest.fixture
def complaints(monkeypatch):
    """Lines about a study and these profiles on a cluster."""
    monkeypatch.chdir(workflow.ROOT)

    def of(cluster, *profiles, **changes):
        monkeypatch.setattr(preflight, "known_cluster", lambda: cluster)
        return list(preflight.find_cluster_complaints(load(changes), ["slurm", *map(str, profiles)]))

    return of


def narrow(minutes):
    return Cluster({"cpu": Rules("cpu"), "gpu": Rules("gpu", minutes=minutes)})


def test_the_study_fits_a_cluster_without_limits(complaints):
    assert complaints(narrow(None)) == complaints(Cluster()) == []


def test_stages_whose_minutes_exceed_their_partition_are_named(complaints):
    lines = complaints(narrow(130))
    assert [line.partition(":")[0] for line in lines] == ["resources.train", "resources.generate"]
    assert lines[0].startswith("resources.train: found 720 minutes, expected at most 130, the limit of partition 'gpu'")


def test_the_minutes_of_the_last_attempt_count(complaints):
    longer = {"eval": {"runtime": 60, "max_runtime": 170}}
    assert complaints(narrow(720), resources=longer) == []
    (line,) = [line for line in complaints(narrow(160), resources=longer) if "eval" in line]
    assert line.startswith("resources.eval: found 170 minutes, expected at most 160")


def test_another_profile_lies_over_the_repositorys(complaints, tmp_path):
    """With partitions, minutes and a QOS of its own."""
    own = {
        "default-resources": {"slurm_partition": "thin", "slurm_account": "lab"},
        "set-resources": {"train": {"slurm_partition": "fat", "runtime": 2000, "qos": "short"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(own))
    thin, fat = Rules("thin", minutes=1000), Rules("fat", minutes=3000)
    cluster = Cluster({"thin": thin, "fat": fat}, qos={"short": Rules("short", minutes=1500)})
    (line,) = complaints(cluster, tmp_path)
    assert line.startswith("resources.train: found 2000 minutes, expected at most 1500, the limit of QOS 'short'")


def test_partitions_that_the_cluster_lacks_are_named(complaints):
    lines = complaints(Cluster({"batch": Rules("batch")}))
    assert len(lines) == 6
    assert lines[0] == (
        "resources.data: partition: expected one of batch, found 'cpu', which SLURM refuses; correct the profile"
    )


def test_more_jobs_than_an_account_may_have_are_a_line(complaints, tmp_path, monkeypatch):
    slurm_answers.install(tmp_path / "bin", monkeypatch)
    assert [line for line in complaints(known_cluster()) if line.startswith("jobs: ")] == [
        "jobs: found 100 at a time, expected at most 4: account 'lab' gives you 4 places in the queue, and SLURM "
        "refuses others until their retries are used up; give --jobs 4"
    ]


def test_a_profile_that_is_not_there_is_a_line(complaints, tmp_path):
    with pytest.raises(StudyError, match=f"{tmp_path}/none/config.yaml: expected a configuration file, found none"):
        complaints(Cluster(), tmp_path / "none")
