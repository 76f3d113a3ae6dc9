"""Studies on a real SLURM cluster, by the real programs.

The marker `faults` is on all but the first, which is a part of `make test`: there iteration 0 stands for the others.
"""

import contextlib
import re
import shutil
import subprocess
import tempfile
from itertools import combinations
from pathlib import Path

import cluster as slurm
import pytest
from conftest import DEMO, FIRST, LAST
from runs import results

TARGET = f"{DEMO}/{LAST}"


def wspin(folder):
    """Hashes of what the targets `wspin/ite0` and `wspin/ite1` leave."""
    own = ("base/", "data/", "fetched/", "sft/", "wspin/", "logprobs/")
    return {name: digest for name, digest in results(folder).items() if name.startswith(own)}


def running(study, rule="train"):
    """The one job of a rule that runs."""
    (job,) = [job for job in study.jobs(rule) if job.fields["JobState"] == "RUNNING"]
    return job


def resumed_at(study, model):
    """The step at which the last attempt of the training began."""
    return int(study.log("train", model).split("train: ")[1].split(" ")[0])


def assert_ends_the_same(study, local, began, model=LAST):
    """The last attempt began at such a step, the curve has each step once, every file is as without the fault."""
    assert resumed_at(study, model) == began > 0
    assert study.steps(model) == list(range(1, len(study.steps(model)) + 1))
    assert wspin(study.folder) == wspin(local)


def at_the_same_time(jobs):
    """Pairs of jobs that ran at the same time, as far as SLURM's whole seconds tell. Its times sort as text."""
    for one, other in combinations(jobs, 2):
        if max(job.fields["StartTime"] for job in (one, other)) < min(job.fields["EndTime"] for job in (one, other)):
            yield one, other


def nodes(jobs):
    return {job.fields["NodeList"] for job in jobs}


def test_an_iteration_on_the_cluster_equals_the_local_one(started, first):
    """Jobs on either node, with a GPU where they need one; a training that is cancelled goes on in another."""
    run = started.start(f"{DEMO}/{FIRST}")
    started.suspended_training(run, FIRST)
    saved = started.saved(FIRST)
    slurm.run("scancel", running(started).fields["JobId"])
    run.finish()
    assert_ends_the_same(started, first, saved, FIRST)

    jobs = started.jobs()
    counts = {rule: len(started.jobs(rule)) for rule in {job.rule for job in jobs}}
    expected = {"generate": 2, "logprobs_reference": 2, "logprobs_scorer": 4, "weigh": 2, "train": 2, "eval": 1}
    assert counts == expected  # and what is local was not submitted
    assert {(job.rule, job.gpus) for job in jobs} == {(rule, int(rule != "weigh")) for rule in expected}
    assert nodes(jobs) <= {"node0", "node1"}
    shared = [pair for pair in at_the_same_time(job for job in jobs if job.gpus) if len(nodes(pair)) < 2]
    assert shared == []  # a node has memory for one of them
    assert {(job.rule == "weigh", job.fields["Partition"]) for job in jobs} == {(True, "cpu"), (False, "gpu")}
    assert {job.fields["NumNodes"] for job in jobs} == {"1"}


# Trainings that are stopped


@pytest.mark.faults
def test_asked_by_a_signal_a_training_saves_and_the_next_attempt_goes_on_from_there(unfinished, local):
    """SLURM looks every 30 s: the signal, and one to go on for whom is stopped, comes 45 to 75 s ahead of the end."""
    run = unfinished.start(TARGET, options=train_with("runtime=2", "slurm_extra=--signal=URG@45"))
    unfinished.suspended_training(run)
    steps = len(unfinished.curve_so_far())
    run.finish()
    (saved,) = re.findall(r"stop requested \(SIGURG\): saved at step (\d+) of ", unfinished.slurm_log("train"))
    assert steps <= int(saved) <= steps + 2
    assert_ends_the_same(unfinished, local, int(saved))


def train_with(*resources):
    """Options that give a training other resources; they replace the profile's."""
    given = ("slurm_partition=gpu", "tasks_per_gpu=0", *resources)
    return ["--set-resources", *(f"train:{one}" for one in given)]


@pytest.mark.faults
def test_out_of_time_without_a_signal_at_most_one_save_interval_is_lost(unfinished, local):
    minutes = 'resources={"train": {"runtime": 1, "max_runtime": 4}}'
    run = unfinished.start(TARGET, options=[*train_with(), "--config", minutes])
    unfinished.suspended_training(run)
    saved = unfinished.saved()
    run.finish()
    first, second = unfinished.jobs("train")[:2]
    assert first.fields["JobState"] == "TIMEOUT"
    assert [job.fields["TimeLimit"] for job in (first, second)] == ["00:01:00", "00:02:00"]
    assert_ends_the_same(unfinished, local, saved)


@pytest.mark.faults
def test_a_dead_nodes_job_starts_again_elsewhere_and_waits_for_the_orphan(cluster, unfinished, local):
    """The node's daemon is gone, so nobody ends the training that runs there: it must not have a second writer."""
    run = unfinished.start(TARGET)
    orphan = unfinished.suspended_training(run)
    job = running(unfinished).fields
    with node_down(cluster, job["NodeList"]):
        waits = f"held by process {orphan.pid}"
        run.wait_for(lambda: waits in unfinished.log("train", LAST), seconds=300)
        orphan.resume()
        run.finish()
    again = [one.fields for one in unfinished.jobs("train") if one.fields["JobId"] == job["JobId"]]
    assert [(one["Restarts"], one["NodeList"] != job["NodeList"]) for one in again] == [("1", True)]
    assert not orphan.is_running()
    assert_ends_the_same(unfinished, local, len(unfinished.steps(LAST)))


@contextlib.contextmanager
def node_down(cluster, node):
    """A node whose daemon has died, as SLURM finds out."""
    slurm.stop(cluster.daemon(node))
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        yield
    finally:
        cluster.start(node)
        slurm.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        cluster.wait_until_idle()


# The workflow is killed


@pytest.mark.faults
@pytest.mark.parametrize("cancelled", [True, False])
def test_killed_snakemake_goes_on_when_it_is_started_again(unfinished, local, cancelled):
    """Its job is cancelled first, as docs/cluster.md says, or runs on and is waited for."""
    run = unfinished.start(TARGET)
    orphan = unfinished.suspended_training(run)
    saved, job = unfinished.saved(), running(unfinished).fields
    run.kill()
    assert "LockException" in unfinished.refused(TARGET)
    if cancelled:
        slurm.run("scancel", f"--name={job['JobName']}")
        orphan.wait(60)
    unfinished.unlock()
    again = unfinished.start(TARGET)
    if not cancelled:
        again.wait_for(lambda: f"held by process {orphan.pid}" in unfinished.log("train", LAST), seconds=300)
        orphan.resume()
    again.finish()
    assert_ends_the_same(unfinished, local, saved if cancelled else len(unfinished.steps(LAST)))


# Disks and files


@pytest.mark.faults
def test_a_full_disk_ends_a_training_in_one_line_and_with_room_it_goes_on(unfinished, local):
    """The states of the last training lie on a disk that holds one state and not two."""
    state = unfinished.folder / DEMO / ".state/train" / LAST
    with small_disk(state, unfinished.size_of_a_state() * 3 // 2):
        run = unfinished.start(TARGET, options=["--retries", "0"])
        run.finish(expect=1)
        lines = [line for line in unfinished.slurm_log("train").splitlines() if line.startswith("train.py: error: ")]
        assert len(set(lines)) == 1
        assert "is the disk full?" in lines[0] or "No space left on device" in lines[0]
        assert not (unfinished.folder / TARGET / "model").exists()
        saved = unfinished.saved()
        kept = shutil.copytree(state, state.with_name("kept"))
    state.rmdir()
    kept.rename(state)  # there is room now
    unfinished.start(TARGET).finish()
    assert_ends_the_same(unfinished, local, saved)


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.faults
def test_a_broken_shard_is_named_and_made_again(unfinished, local):
    shard = unfinished.folder / TARGET / "generations/01.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    (unfinished.folder / TARGET / "reference/01.parquet").unlink()
    run = unfinished.start(TARGET, options=["--retries", "0"])
    run.finish(expect=1)
    name = shard.relative_to(unfinished.folder)
    assert f"logprobs.py: error: {name}: expected " in run.told()  # a parquet file, or the bytes of its checksum
    shard.unlink()
    unfinished.start(TARGET).finish()
    assert wspin(unfinished.folder) == wspin(local)


# All of it


@pytest.mark.faults
def test_the_whole_study_on_the_cluster_equals_the_local_one(fresh, finished):
    """Both arms to their tables, shards as job arrays."""
    sharded = "generate,logprobs_reference,logprobs_scorer,weigh"
    fresh.start("all", options=["--slurm-array-jobs", sharded]).finish()
    assert {"tables/scores.md", "spin/ite1/manifest.json", "wspin/ite1/scores/demo.json"} <= set(results(fresh.folder))
    assert results(fresh.folder) == results(finished)
    arrays = {job.rule for job in fresh.jobs() if "ArrayTaskId" in job.fields}
    assert {"generate"} <= arrays <= set(sharded.split(","))  # of shards that are ready at one time


# Trainings on several GPUs


@pytest.mark.faults
@pytest.mark.parametrize(
    ("nodes", "asked"),
    [(1, ()), (1, ("gpu=0", "gres=gpu:2")), (2, ("nodes=2", "mpi=srun", "tasks=2", "gpu=0", "gres=gpu:1"))],
)
def test_a_training_on_two_gpus_is_the_same_on_one_node_and_on_two(unfinished, local, nodes, asked):
    """A process for each; across nodes by srun. Like one process but for rounding."""
    unfinished.set_gpus(2)
    unfinished.start(f"{TARGET}/manifest.json", options=train_with(*asked)).finish()
    (job,) = unfinished.jobs("train")
    assert (job.gpus * nodes, job.fields["NumNodes"]) == (2, str(nodes))
    assert "--num_processes 2" in unfinished.slurm_log("train")
    losses, expected = unfinished.losses(), unfinished.losses(local)
    assert losses[0] == pytest.approx(expected[0], rel=1e-6)
    assert losses[:20] == pytest.approx(expected[:20], rel=1e-5)


# The cluster itself


@pytest.mark.faults
def test_what_a_killed_run_has_left_is_stopped(cluster):
    """The same daemons on the same ports, from another folder."""
    pids = [cluster.daemon(node) for node in cluster.names]
    other = slurm.Cluster(Path(tempfile.mkdtemp(prefix="slurm-")))
    try:
        other.up()
        assert [pid for pid in pids if slurm.lives(pid)] == []
        assert not cluster.folder.exists()
    finally:
        cluster.up()
    assert slurm.present().folder == cluster.folder
    assert not other.folder.exists()
