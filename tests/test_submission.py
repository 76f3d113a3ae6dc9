"""pytest tests/test_submission.py: what `snakemake --profile slurm` submits, with stand-ins for SLURM's commands."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import workflow
import yaml

IMPATIENT = "tests/slurm/impatient.py"
PROFILES = ("--profile", "slurm", "--profile", "tests/slurm/site")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "sacct", "sacctmgr", "sshare")
STAGE = {  # of every rule that is submitted
    "data": "data",
    "data_preferences": "data",
    "train": "train",
    "generate": "generate",
    "logprobs_reference": "logprobs",
    "logprobs_teacher": "logprobs",
    "logprobs_preferences": "logprobs",
    "weigh": "weigh",
    "eval": "eval",
}
VALUED = {"--job-name", "--output", "--comment", "-p", "-t", "--mem", "-D", "-A", "-C"}  # the value is the next word


@dataclass(frozen=True)
class Submitted:
    """The arguments of one sbatch by their names; those without a value have an empty one."""

    given: dict[str, str]

    @classmethod
    def of(cls, words):
        given, words = {}, iter(words)
        for word in words:
            name, _, value = word.partition("=")
            given[name] = next(words) if name in VALUED else value
        return cls(given)

    @property
    def rule(self):
        return self.given["--comment"].removeprefix("rule_").partition("_wildcards_")[0]


@dataclass(frozen=True)
class Cluster:
    """A study whose programs are stubs, and a folder with stand-ins for SLURM's commands."""

    study: workflow.Repository
    folder: Path

    def run(self, *targets, profiles=PROFILES, options=(), fails="", really=False):
        """Run Snakemake. The job of comment `fails` fails once; the others succeed at once or, `really`, are run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name in COMMANDS:
            shutil.copy(workflow.ROOT / "tests/slurm/commands.py", self.folder / name)
        (self.folder / "fails").write_text(fails)
        if really:
            (self.folder / "run").touch()
        environment = workflow.environment()
        environment["PATH"] = os.pathsep.join([str(self.folder), environment["PATH"]])
        done = subprocess.run(
            [sys.executable, IMPATIENT, *profiles, *targets, *options, "--configfile", *self.study.configfiles],
            cwd=self.study.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        lines = (self.folder / "submitted.jsonl").read_text().splitlines()
        return [Submitted.of(json.loads(line)["words"]) for line in lines]


@pytest.fixture(scope="session")
def cluster_of(tmp_path_factory):
    return lambda study: Cluster(study, tmp_path_factory.mktemp("commands") / "bin")


@pytest.fixture(scope="session")
def finished_cluster(weighed, tmp_path_factory, cluster_of):
    """Every output is there already, so that jobs that only say that they have succeeded are believed."""
    return cluster_of(weighed.copy(tmp_path_factory.mktemp("submission") / "study"))


@pytest.fixture(scope="session")
def submitted(finished_cluster):
    """All that is submitted for an iteration and a baseline, of which one training fails at first."""
    targets = ("results/weighed/wspin/ite0", "results/weighed/dpo/model")
    return finished_cluster.run(*targets, options=["--forceall"], fails="rule_train_wildcards_wspin_ite0")


def only(jobs, rule):
    """What all jobs of a rule have in common: name to the set of its values."""
    found = [job.given for job in jobs if job.rule == rule]
    assert found, rule
    return {name: {given.get(name) for given in found} for name in set().union(*found)}


def test_local_rules_are_not_submitted(submitted):
    assert {job.rule for job in submitted} == set(STAGE)


@pytest.mark.parametrize("rule", STAGE)
def test_a_job_asks_for_what_the_configuration_says(submitted, rule):
    asked = workflow.ROOT / "config/config.yaml"
    stage = yaml.safe_load(asked.read_text())["resources"][STAGE[rule]]
    stage |= {"gpu": 1} if rule == "train" else {}  # two_arms.yaml
    given = only([job for job in submitted if job.rule != "train" or "sft" in job.given["--comment"]], rule)
    assert given["--mem"] == {str(stage["mem_mb"])}
    assert given["--cpus-per-task"] == {str(stage["threads"])}
    assert given["-t"] == {str(stage["runtime"])}
    assert given.get("--gpus") == ({str(stage["gpu"])} if "gpu" in stage else None)
    assert given["-p"] == ({"gpu"} if "gpu" in stage else {"cpu"})
    assert given["--nodes"] == {"1"}  # GPUs of one node
    assert "--ntasks-per-gpu" not in given  # one program a job
    assert given["--requeue"] == {""}


def test_a_job_that_failed_asks_for_more_time(submitted):
    minutes = yaml.safe_load((workflow.ROOT / "config/config.yaml").read_text())["resources"]["train"]["runtime"]
    attempts = [job.given["-t"] for job in submitted if job.given["--comment"] == "rule_train_wildcards_wspin_ite0"]
    assert attempts == [str(minutes), str(2 * minutes)]


def test_trainings_alone_are_warned_of_their_time_limit(submitted):
    assert only(submitted, "train")["--signal"] == {"URG@180"}
    assert [job.rule for job in submitted if "--signal" in job.given and job.rule != "train"] == []


def test_a_log_is_kept_for_every_job(submitted, finished_cluster):
    logs = finished_cluster.study.folder / "logs/slurm"
    assert {job.given["--output"] for job in submitted if job.rule == "weigh"} == {
        f"{logs}/rule_weigh/wspin_0_00/%j.log"
    }
    assert all(job.given["--output"].startswith(f"{logs}/rule_{job.rule}/") for job in submitted)


def test_a_site_lays_its_own_profile_over(finished_cluster):
    site = finished_cluster.study.folder / "mysite"
    site.mkdir()
    own = {"default-resources": {"slurm_partition": "thin", "nodes": 1, "mem_mb": 500, "runtime": 9, "qos": "low"}}
    own["set-resources"] = {"train": {"slurm_partition": "fat", "tasks_per_gpu": 0, "constraint": "a100"}}
    (site / "config.yaml").write_text(yaml.safe_dump(own))
    targets = ("results/weighed/data/prompts.parquet", "results/weighed/sft/model")
    jobs = finished_cluster.run(*targets, profiles=(*PROFILES, "--profile", "mysite"), options=["--force"])
    data, train = only(jobs, "data"), only(jobs, "train")
    assert (data["-p"], data["--qos"], train["-p"], train["-C"]) == ({"thin"}, {"low"}, {"fat"}, {"a100"})
    assert "--signal" not in train  # a key is replaced whole


def test_resources_are_set_on_the_command_line(finished_cluster):
    """Which replaces a profile's whole key too, so that jobs on GPUs need their partition again."""
    options = ["--force", "--set-resources", "train:slurm_partition=fat", "train:runtime=7", "--default-resources"]
    targets = ("results/weighed/data/prompts.parquet", "results/weighed/sft/model")
    jobs = finished_cluster.run(*targets, options=[*options, "slurm_partition=thin"])
    data, train = only(jobs, "data"), only(jobs, "train")
    assert (data["-p"], train["-p"], train["-t"]) == ({"thin"}, {"fat"}, {"7"})
    assert "--signal" not in train


def test_an_array_asks_for_a_gpu_for_each_of_its_shards(finished, tmp_path, cluster_of):
    shards = [f"results/two/sft/generations/{shard}.parquet" for shard in ("00", "01")]
    cluster = cluster_of(finished.copy(tmp_path / "study"))
    (array,) = cluster.run(*shards, options=["--force", "--slurm-array-jobs", "generate"])
    given = [array.given[name] for name in ("--array", "--gpus", "--nodes", "-p")]
    assert given == ["1-2", "1", "1", "gpu"]


def test_a_study_is_made_by_what_is_submitted(weighed, tmp_path, cluster_of):
    """The wrapped commands work: outputs appear, and one that fails at first is made by its second job."""
    study = workflow.checkout(tmp_path / "study", *weighed.configfiles)
    study.use_stubs()
    cluster = cluster_of(study)
    jobs = cluster.run("results/weighed/sft/model", fails="rule_train_wildcards_sft", really=True)
    assert [job.rule for job in jobs] == ["data", "train", "train"]
    assert "train.py" in (study.folder / "results/weighed/sft/model/file").read_text()
