"""What `snakemake --profile slurm` submits, with stand-ins for SLURM's commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import workflow
import yaml

IMPATIENT = "tests/slurm/impatient.py"
PROFILES = ("--profile", "slurm", "--profile", "tests/slurm/site")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "sacct", "sacctmgr", "sshare", "accelerate")
STAGE = {  # of every rule that is submitted
    "data": "data",
    "data_preferences": "data",
    "train": "train",
    "generate": "generate",
    "generate_examples": "generate",
    "logprobs_reference": "logprobs",
    "logprobs_scorer": "logprobs",
    "logprobs_preferences": "logprobs",
    "weigh": "weigh",
    "eval": "eval",
}
LOCAL = {"fetch", "fetch_data", "fetch_tasks", "all"}  # and whatever begins with report_
UNLUCKY = "rule_train_wildcards_wspin_ite0"
SFT = "results/weighed/sft/model"
LAUNCHED = re.compile(r"^ +accelerate launch (.*?) workflow/scripts/train\.py ", re.MULTILINE)
LONGEST = 1000  # minutes of a training
VALUED = {"--job-name", "--output", "--comment", "-p", "-t", "--mem", "-D", "-A", "-C"}  # the value is the next word


@dataclass(frozen=True)
class Submitted:
    """The arguments of one sbatch by their names; those without a value have an empty one. And what it wraps."""

    given: dict[str, str]
    command: str

    @classmethod
    def of(cls, line):
        noted = json.loads(line)
        given, words = {}, iter(noted["words"])
        for word in words:
            name, _, value = word.partition("=")
            assert name not in given, name
            given[name] = next(words) if name in VALUED else value
        return cls(given, noted["command"])

    @property
    def comment(self):
        return self.given["--comment"]

    @property
    def rule(self):
        return self.comment.removeprefix("rule_").partition("_wildcards_")[0]

    @property
    def wildcards(self):
        return self.comment.partition("_wildcards_")[2]


@dataclass(frozen=True)
class Cluster:
    """A study whose programs are stubs, and a folder with stand-ins for SLURM's commands."""

    study: workflow.Repository
    folder: Path

    def run(self, *targets, profiles=PROFILES, options=(), fails="", really=False, config="", code=0):
        """Run Snakemake. The job of comment `fails` fails once; the others succeed at once or, `really`, are run.

        `config`: of SLURM, as scontrol shows it.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name in COMMANDS:
            shutil.copy(workflow.ROOT / "tests/slurm/commands.py", self.folder / name)
        (self.folder / "fails").write_text(fails)
        if really:
            (self.folder / "run").touch()
        if config:
            (self.folder / "config").write_text(config)
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
        assert done.returncode == code, done.stdout
        (self.folder / "told").write_text(done.stdout)
        return [Submitted.of(line) for line in self._lines("submitted.jsonl")]

    def told(self):
        """What the last run of Snakemake printed."""
        return (self.folder / "told").read_text()

    def started(self):
        """What srun and accelerate were given, their names first."""
        return [json.loads(line) for line in self._lines("started.jsonl")]

    def _lines(self, name):
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="session")
def cluster_of(tmp_path_factory):
    return lambda study: Cluster(study, tmp_path_factory.mktemp("commands") / "bin")


@pytest.fixture(scope="session")
def finished_cluster(weighed, tmp_path_factory, cluster_of):
    """Every output is there already, so that jobs that only say that they have succeeded are believed."""
    study = weighed.copy(tmp_path_factory.mktemp("submission") / "study")
    longest = {"train": {"max_runtime": LONGEST}}
    short = study.overlay({"iterations": 1, "arms": {"wspin.paper": None, "equal": None}, "resources": longest})
    short.make(*(f"results/weighed/{arm}/ite0/examples.parquet" for arm in ("spin", "wspin")))  # of last iterations
    return cluster_of(short)


@pytest.fixture(scope="session")
def run_of_all(finished_cluster):
    """All that is submitted for a whole study, of which one training fails at first; and what Snakemake prints."""
    return finished_cluster.run("all", options=["--forceall"], fails=UNLUCKY), finished_cluster.told()


@pytest.fixture(scope="session")
def submitted(run_of_all):
    return run_of_all[0]


def only(jobs, rule):
    """What all jobs of a rule have in common: name to the set of its values."""
    found = [job.given for job in jobs if job.rule == rule]
    assert found, rule
    return {name: {given.get(name) for given in found} for name in set().union(*found)}


def test_every_planned_job_is_submitted_once_but_for_the_local_ones(run_of_all):
    submitted, told = run_of_all
    rows = (row.split() for row in workflow.TABLE.search(told)["rows"].splitlines())
    planned = {rule: int(count) for rule, count in rows}
    local = {rule for rule in planned if rule in LOCAL or rule.startswith("report_")}
    assert len(local) > len(LOCAL)
    assert planned.keys() - local == STAGE.keys()
    assert Counter(job.rule for job in submitted) == Counter({rule: planned[rule] for rule in STAGE}) + Counter(train=1)
    assert Counter(job.comment for job in submitted) == Counter({job.comment for job in submitted}) + Counter([UNLUCKY])


def test_a_cluster_that_forgets_jobs_too_soon_is_refused_before_the_first(finished_cluster):
    options = ["--forceall", "--slurm-init-seconds-before-status-checks", "40"]
    assert finished_cluster.run("all", options=options, config="MinJobAge = 60 sec", code=1) == []
    (line,) = [line for line in finished_cluster.told().splitlines() if "slurm: MinJobAge: expected 120 s" in line]
    assert line.endswith(
        "found 60 s; set slurm-init-seconds-before-status-checks: 20 in the profile, or have MinJobAge raised"
    )


def test_a_job_runs_its_one_rule_in_the_folder_of_the_study(submitted, finished_cluster):
    for job in submitted:
        words = shlex.split(job.command)
        assert job.given["-D"] == str(finished_cluster.study.folder)
        assert f"{sys.executable} -m snakemake" in job.command
        assert words[words.index("--allowed-rules") + 1] == job.rule
        assert words[words.index("--executor") + 1] == "slurm-jobstep"


@pytest.mark.parametrize("rule", STAGE)
def test_a_job_asks_for_what_the_configuration_says(submitted, rule):
    asked = workflow.ROOT / "config/config.yaml"
    stage = yaml.safe_load(asked.read_text())["resources"][STAGE[rule]]
    stage |= {"gpu": 1} if rule == "train" else {}  # two_arms.yaml
    given = only(submitted, rule)
    assert given["--mem"] == {str(stage["mem_mb"])}
    assert given["--cpus-per-task"] == {str(stage["threads"])}
    longer = {str(LONGEST)} if rule == "train" else set()  # one training has failed
    assert given["-t"] == {str(stage["runtime"])} | longer
    assert given.get("--gpus") == ({str(stage["gpu"])} if "gpu" in stage else None)
    assert given["-p"] == ({"gpu"} if "gpu" in stage else {"cpu"})
    assert given["--nodes"] == {"1"}  # GPUs of one node
    assert "--ntasks-per-gpu" not in given  # one program a job
    assert given["--requeue"] == {""}


def test_a_job_that_failed_asks_for_more_time_up_to_its_stages_most(submitted):
    minutes = yaml.safe_load((workflow.ROOT / "config/config.yaml").read_text())["resources"]["train"]["runtime"]
    attempts = [job.given["-t"] for job in submitted if job.comment == UNLUCKY]
    assert minutes < LONGEST < 2 * minutes
    assert attempts == [str(minutes), str(LONGEST)]


def test_trainings_alone_are_warned_of_their_time_limit(submitted):
    assert only(submitted, "train")["--signal"] == {"URG@180"}
    assert [job.rule for job in submitted if "--signal" in job.given and job.rule != "train"] == []


def test_a_log_is_kept_for_every_job(submitted, finished_cluster):
    logs = finished_cluster.study.folder / "logs/slurm"
    for job in submitted:
        assert Path(job.given["--output"]) == logs / f"rule_{job.rule}" / job.wildcards / "%j.log"
    assert {job.wildcards for job in submitted if job.rule == "weigh"} == {"wspin_ite0_00"}


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


def test_a_dry_run_tells_what_would_be_asked_and_submits_nothing(finished_cluster):
    assert finished_cluster.run(SFT, options=["--force", "--dry-run"]) == []
    (line,) = re.findall(r"^rule train:\n(?:    .*\n)*?    resources: (.*)$", finished_cluster.told(), re.MULTILINE)
    expected = {"slurm_partition=gpu", "gpu=1", "nodes=1", "mem_mb=200000", "runtime=720"}
    assert expected | {"slurm_extra=--signal=URG@180"} <= set(line.split(", "))


def test_the_short_form_of_a_dry_run_is_counts_and_reasons(finished_cluster):
    """Without a line for a job, as docs/cluster.md says."""
    finished_cluster.run("all", options=["--forceall", "--dry-run"])
    long = finished_cluster.told()
    jobs = re.search(r"^total +(\d+)$", long, re.MULTILINE)[1]
    finished_cluster.run("all", options=["--forceall", "--dry-run", "--quiet", "rules", "host"])
    short = finished_cluster.told()
    assert 10 * short.count("\n") < long.count("\n")
    assert re.search(rf"^total +{jobs}$", short, re.MULTILINE)
    assert "Warning" not in short


def test_a_training_on_two_gpus_asks_for_both_and_starts_a_process_for_each(finished_cluster):
    gpus = ["--config", 'resources={"train": {"gpu": 2}}']
    (job,) = finished_cluster.run(SFT, options=["--force", *gpus])
    assert [job.given[name] for name in ("--gpus", "--nodes", "--cpus-per-task", "-p")] == ["2", "1", "16", "gpu"]
    assert job.given.keys().isdisjoint({"--ntasks", "--ntasks-per-gpu", "--gres"})
    (launched,) = LAUNCHED.findall(finished_cluster.told())
    assert launched.startswith("--multi_gpu --num_machines 1 --num_processes 2 --num_cpu_threads_per_process 8 ")
    finished_cluster.run(SFT, options=["--force", "--dry-run", *gpus])
    assert LAUNCHED.findall(finished_cluster.told()) == [launched]  # as it will be


def profile_of_the_manual(folder):
    """The profile that docs/cluster.md shows for a training over several nodes, as a file."""
    blocks = re.findall(r"```yaml\n(.*?)```", (workflow.ROOT / "docs/cluster.md").read_text(), re.DOTALL)
    (several,) = [block for block in blocks if "mpi: srun" in block]
    folder.mkdir()
    (folder / "config.yaml").write_text(several)
    return "--profile", str(folder)


def test_over_two_nodes_a_training_is_one_task_a_node(tmp_path, cluster_of):
    """From sbatch to the program: all jobs are run, but for the first of the training, which fails."""
    study = workflow.checkout(tmp_path / "study", workflow.TWO_ARMS)
    study.use_stubs()
    cluster = cluster_of(study)
    profiles = (*PROFILES, *profile_of_the_manual(tmp_path / "several"))
    model = "results/two/sft/model"
    data, first, again = cluster.run(model, profiles=profiles, fails="rule_train_wildcards_sft", really=True)
    assert [data.rule, first.rule, again.rule] == ["data", "train", "train"]
    asked = {"--nodes": "2", "--ntasks": "2", "--gres": "gpu:4", "--cpus-per-task": "16", "--signal": "URG@180"}
    for job in (first, again):
        assert asked.items() <= job.given.items()
        assert job.given.keys().isdisjoint({"--gpus", "--ntasks-per-gpu"})
    (of_data, of_train, launch) = cluster.started()
    assert {"-n1", "--nodes=1"} <= set(of_data)
    assert of_train[:6] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=4", "bash"]
    expected = {"num_machines": "2", "num_processes": "8", "machine_rank": "0", "main_process_port": "20001"}
    assert given_to(launch, *(f"--{name}" for name in expected)) == list(expected.values())
    made = (study.folder / model / "file").read_text().split(" ")
    assert given_to(made, "--processes", "--loss", "--output") == ["8", "sft", model]


def given_to(words, *names):
    """The words that follow some others."""
    return [words[words.index(name) + 1] for name in names]
