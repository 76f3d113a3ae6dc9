"""Who starts a study's jobs, and which of them wait in SLURM's queue, as `status` tells it."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
from unfinished import MODEL, SHARD, SHARD_LOG, last_line, mark, remove, run_began, sample_a_shard, told, write

from wspin.manage import job_state, slurm_queue, slurm_watch
from wspin.storage.locks import show_alive, show_driver

# Who starts the jobs


def test_a_job_within_a_cluster_is_no_driver(here):
    """Snakemake runs in every job of a cluster too: that one shows `.snakemake/alive`, and may outlive the driver."""
    sample_a_shard()
    with contextlib.closing(show_alive()):
        assert last_line() == (
            ", 1 running; no Snakemake is running here: it was killed, but 1 of its jobs run on: "
            "wait for them or cancel them before you start it again"
        )


@pytest.mark.parametrize(
    ("began", "process", "text"),
    [
        (True, "4711 on login-2", "whether Snakemake still runs on login-2 (process 4711) cannot be seen from here"),
        (False, "4711 on login-2", "no Snakemake is running here"),
        (True, f"4711 on {os.uname().nodename}", "no Snakemake is running here: it was killed"),
        (True, "4711 on \x1b[2J", r"whether Snakemake still runs on \x1b[2J (process 4711) cannot be seen from here"),
    ],
)
def test_a_driver_of_another_host_may_not_be_visible(here, began, process, text):
    write(job_state.DRIVER, process)
    if began:
        run_began(ago=60)
    assert last_line() == f"; {text}"


def test_a_driver_of_another_host_whose_lock_is_seen_runs_there(here):
    with contextlib.closing(show_driver()):
        write(job_state.DRIVER, "4711 on login-2")
        assert last_line() == "; Snakemake is running on login-2"


# In SLURM's queue


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A stand-in for squeue that prints a file's lines and notes how it was called."""

    def answer(lines, code=0, errors=""):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "lines").write_text(lines)
        (tmp_path / "errors").write_text(errors)
        program = tmp_path / "bin/squeue"
        script = f'echo "$@" >> {tmp_path}/calls; cat {tmp_path}/errors >&2; cat {tmp_path}/lines; exit {code}'
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "calls"

    return answer


def submit(output, number, ago=50):
    path = mark(output, ago)
    return write(path, json.dumps({"external_jobid": number}), ago)


def test_a_pending_job_tells_why_it_waits(here, squeue):
    remove(SHARD)
    calls = squeue("47|PENDING|Resources\n48|RUNNING|None\n")
    run_began(ago=60)
    submit(SHARD, "47")
    with contextlib.closing(show_driver()):
        rows, below = told()
    assert rows["spin/ite2"]["generations"] == "1/2, queued"
    words = "it waits for free GPUs, processors or memory (Resources)"
    assert below[4:] == [f"queued: {SHARD}: {words}, SLURM job 47 ({SHARD_LOG})"]
    assert "--jobs=47" in calls.read_text().split()


def test_a_pending_job_of_a_killed_driver_waits_on(here, squeue):
    remove(SHARD)
    squeue("47|PENDING|(Priority)\n")
    submit(SHARD, "47")
    assert last_line().startswith(", 1 queued; no Snakemake is running here, but 1 of its jobs run on: ")


def test_a_job_that_slurm_has_started_runs(here, squeue):
    remove(SHARD)
    squeue("47|RUNNING|None\n")
    submit(SHARD, "47")
    assert told()[0]["spin/ite2"]["generations"] == "1/2, running"


@pytest.mark.parametrize("marked", [True, False])
def test_a_requeued_job_waits_again(here, squeue, marked):
    """Snakemake within the job has taken the number from its mark, or the mark, if it had time for that.

    The log of the first attempt begins with the number.
    """
    remove(SHARD)
    calls = squeue("47|PENDING|BeginTime\n")
    run_began(ago=60)
    if marked:
        write(mark(SHARD, ago=40), json.dumps({"external_jobid": None}), ago=40)
    write(SHARD_LOG, "generate.py: SLURM job 47 on node1\ngenerate: 1 of 8 answers\n", ago=30)
    with contextlib.closing(show_driver()):
        rows, below = told()
    assert rows["spin/ite2"]["generations"] == "1/2, queued"
    assert below[4].endswith(f"starts a requeued job again (BeginTime), SLURM job 47 ({SHARD_LOG})")
    squeue("47|RUNNING|None\n")
    assert told()[0]["spin/ite2"]["generations"] == "1/2, running 12 %"
    squeue("")
    assert "--jobs=47" in calls.read_text().split()


def test_a_number_in_the_log_of_an_earlier_run_is_not_looked_up(here, squeue):
    """Another cluster's may be somebody else's job here."""
    remove(SHARD)
    calls = squeue("47|RUNNING|None\n")
    run_began(ago=60)
    write(SHARD_LOG, "generate.py: SLURM job 47 on node1\n", ago=90)
    assert told()[0]["spin/ite2"]["generations"] == "1/2"
    assert not calls.exists()


def test_a_programs_log_begins_with_its_number_in_slurm(root, tmp_path):
    """Where a rule's shell sends what it prints to the log, and to SLURM's."""
    log = tmp_path / "log"
    shell = f"exec &> >(tee -i {log})\n{sys.executable} workflow/scripts/weigh.py --help"
    job = {"SLURM_JOB_ID": "49", "SLURM_ARRAY_JOB_ID": "47", "SLURM_ARRAY_TASK_ID": "3", "WSPIN_SUBMITTED": "1"}
    done = subprocess.run(["bash", "-c", shell], cwd=root, env=os.environ | job, text=True, capture_output=True)
    assert done.stdout == log.read_text()
    assert done.stdout.startswith(f"weigh.py: SLURM job 47_3 on {os.uname().nodename}\nusage: ")
    assert job_state.logged_id(str(log)) == "47_3"


def test_a_program_in_an_allocation_of_the_users_tells_no_number(root):
    """Nor does one that a local run of Snakemake starts there."""
    command = [sys.executable, "workflow/scripts/weigh.py", "--help"]
    done = subprocess.run(command, cwd=root, env=os.environ | {"SLURM_JOB_ID": "49"}, text=True, capture_output=True)
    assert done.stdout.startswith("usage: ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("lines", "code", "errors"),
    [
        ("", 0, ""),
        ("47|COMPLETED|None\n", 0, ""),
        ("", 1, "slurm_load_jobs error: Invalid job id specified"),
        ("", 1, "down"),
    ],
)
def test_a_job_that_has_left_the_queue_does_not_wait(here, squeue, lines, code, errors):
    remove(SHARD)
    squeue(lines, code, errors)
    submit(SHARD, "47")
    assert told()[0]["spin/ite2"]["generations"] == "1/2, interrupted"


def test_the_queue_is_not_asked_for_what_is_no_number(here, squeue):
    calls = squeue("")
    remove(SHARD)
    submit(SHARD, "--help; touch x")
    write(mark(MODEL), "[" * 5000)
    told()
    assert not calls.exists()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "QOSMaxGRESPerUser",
            "a limit of its QOS is reached: it starts when other jobs end, unless it alone asks for ",
        ),
        ("AssocGrpGRES", "a limit of its account is reached: it starts when other jobs end, unless it alone asks "),
        ("AssocGrpCPURunMinutesLimit", "a limit of its account is reached: it starts when other jobs end"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "the nodes that it needs are down, or reserved for maintenance ("),
        ("Priority", "jobs of higher priority are before it (Priority)"),
        ("SomethingNew", "SomethingNew"),
        ("a\x1b[2J", r"a\x1b[2J"),
    ],
)
def test_reasons_that_pass_are_in_words(reason, words):
    assert slurm_queue.in_words(reason).startswith(words)
    assert not slurm_queue.lasts(reason)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PartitionTimeLimit", "it asks for more minutes than its partition allows; lower `runtime` of its stage"),
        ("PartitionNodeLimit", "it asks for more nodes than its partition has; correct the profile"),
        ("QOSMaxWallDurationPerJobLimit", "its account or QOS does not allow so many minutes; lower `runtime`"),
        ("QOSMaxGRESPerJob", "its account or QOS allows no such job; correct `resources` or the profile"),
        ("AssocMaxCpuPerJobLimit", "its account or QOS allows no such job; correct `resources` or the profile"),
        ("QOSMinGRES", "its account or QOS allows no such job; correct `resources` or the profile"),
        ("AssocGrpCPUMinutesLimit", "what is left of the hours of its account or QOS does not cover it; lower `run"),
        ("BadConstraints", "no node has what it asks for; correct `resources` or the profile"),
        ("InvalidAccount", "its account is not valid; correct `slurm_account`"),
        ("InvalidQOS", "its QOS is not valid; correct the profile"),
        ("ReservationDeleted", "its reservation is gone; correct the profile"),
        ("JobHeldUser", "it is held; scontrol release it"),
        ("launch_failed_requeued_held", "its start failed on a node and SLURM holds it; scontrol release it ("),
    ],
)
def test_reasons_that_last_say_so_and_what_to_do(reason, words):
    assert slurm_queue.in_words(reason).startswith(f"it will not start by itself: {words}")
    assert slurm_queue.in_words(reason).endswith(f" ({reason})")
    assert slurm_queue.lasts(reason)


# While a run goes on


@pytest.fixture
def watch():
    told = []
    return slurm_watch.QueueWatch(told.append), told


def test_a_job_that_will_not_start_is_told_once(here, squeue, watch):
    queue, told = watch
    submit(SHARD, "47")
    squeue("47|PENDING|PartitionTimeLimit\n48|PENDING|BadConstraints\n")
    queue.look()
    queue.look()
    words = "it asks for more minutes than its partition allows; lower `runtime` of its stage (PartitionTimeLimit)"
    assert told == [
        f"SLURM job 47 ({SHARD}) waits: it will not start by itself: {words}; correct that, then Ctrl-C and the same "
        "command again: what is finished and saved is kept"
    ]


@pytest.mark.parametrize("lines", ["47|PENDING|(Resources)\n", "47|PENDING|Priority\n", "47|RUNNING|None\n", ""])
def test_a_job_that_waits_its_turn_is_not_told(here, squeue, watch, lines):
    queue, told = watch
    submit(SHARD, "47")
    squeue(lines)
    queue.look()
    assert told == []


def test_a_held_job_need_not_be_submitted_again(here, squeue, watch):
    queue, told = watch
    submit(SHARD, "47")
    squeue("47|PENDING|launch failed requeued held\n")
    queue.look()
    assert [line.partition(" waits: ")[2] for line in told] == [slurm_queue.in_words("launch failed requeued held")]


@pytest.mark.parametrize(
    ("reason", "sharing"),
    [
        ("QOSMaxGRESPerUser", "--me"),
        ("AssocMaxJobsLimit", "--me"),
        ("AssocGrpGRES", "--account=lab"),
        ("QOSGrpCpuLimit", "--qos=lab"),
    ],
)
def test_a_limit_is_told_if_no_job_runs_that_shares_it(here, squeue, watch, reason, sharing):
    """The job alone asks for more than it; of one that runs, the end may make room."""
    queue, told = watch
    submit(SHARD, "47")
    program = squeue("").parent / "bin/squeue"
    answers = {"--states=all": f"47|PENDING|{reason}", f"{sharing} --states=running": "48", "--format=%": "lab"}
    program.write_text(script(answers))
    queue.look()
    assert told == []
    program.write_text(script(answers | {f"{sharing} --states=running": ""}))
    queue.look()
    queue.look()
    assert told == [f"SLURM job 47 ({SHARD}) waits: {slurm_queue.in_words(reason)}"]


def script(answers):
    """A program that prints the answer to what it is asked."""
    lines = (f'case "$*" in *"{words}"*) echo "{answer}"; exit ;; esac' for words, answer in answers.items())
    return "\n".join(["#!/bin/sh", *lines, "exit 1", ""])


def test_jobs_that_wait_for_the_same_are_one_line(here, squeue, watch):
    queue, told = watch
    for number, output in enumerate((SHARD, MODEL), 47):
        submit(output, str(number))
    squeue("47|PENDING|BadConstraints\n48|PENDING|BadConstraints\n")
    queue.look()
    queue.look()
    assert [line.partition(": ")[0] for line in told] == [f"SLURM job 47 ({SHARD}) and 1 more wait"]


def test_without_squeue_nothing_is_told(here, watch, monkeypatch, tmp_path):
    queue, told = watch
    submit(SHARD, "47")
    monkeypatch.setenv("PATH", str(tmp_path))
    queue.look()
    assert told == []
