"""The last lines on the screen of a run that failed or was interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import workflow

from wspin.interruption import KEPT
from wspin.manage import job_state
from wspin.manage.ending import ABSENT, SILENT, failures

SHARDS = [f"results/two/spin/ite2/generations/0{i}.parquet" for i in range(2)]
LOGS = [f"results/two/logs/generate/spin/ite2/0{i}.log" for i in range(2)]
FAILING = """
import sys
print("generate: 300 of 1200 answers  4.0/s  90 s left")
sys.exit(f"generate.py: error: {sys.argv[sys.argv.index('--prompts') + 1]}: expected rows, found none; fetch again")
"""
SLOW = """
import sys, time
from pathlib import Path
sys.path.append(str(Path(__file__).parent))
import wspin
print("generate: 300 of 1200 answers  4.0/s  90 s left", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(1)  # programs with torch take as long to end; Snakemake has noticed the signal by then
    raise
"""


def job(tmp_path, text, rule="train", outputs=("results/spin/ite0/model",), group=None):
    (tmp_path / "log").write_text(text)
    log = [str(tmp_path / "log")] if text is not None else []
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule), output=list(outputs), log=log, jobs=group, is_group=lambda: group is not None
    )


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("train: 1 of 2 steps\ntrain.py: error: a: expected b, found c\n", "train.py: error: a: expected b, found c"),
        ("train.py: error: first\ntrain.py: error: second\nexit status 1\n", "train.py: error: second"),
        ('Traceback (most recent call last):\n  File "x"\nValueError: y\n', "ValueError: y"),
        ("train: 1 of 2 steps\n", SILENT),
        ("", SILENT),
        ("train.py: error: \x1b[2J" + "x" * 3000, (r"train.py: error: \x1b[2J" + "x" * 3000)[:500] + " [...]"),
    ],
)
def test_a_failed_job_is_one_line(tmp_path, log, error):
    assert list(failures([job(tmp_path, log)])) == [
        f"failed: train: results/spin/ite0/model (log: {tmp_path}/log): {error}"
    ]


def test_a_job_that_never_started_has_no_log(tmp_path):
    """As where sbatch refuses it."""
    failed = job(tmp_path, "")
    (tmp_path / "log").unlink()
    assert list(failures([failed])) == [f"failed: train: results/spin/ite0/model (log: {tmp_path}/log): {ABSENT}"]


def test_of_a_group_the_job_with_the_error_failed(tmp_path):
    (tmp_path / "good").mkdir()
    group = [job(tmp_path / "good", "weigh: 3 pairs\n"), job(tmp_path, "weigh.py: error: a\n", "weigh", ["w"])]
    assert list(failures([job(tmp_path / "good", "", group=group)])) == [
        f"failed: weigh: w (log: {tmp_path}/log): weigh.py: error: a"
    ]


SWALLOWED = """
import logging, os, signal, sys, time
from wspin.manage.ending import Ending

class Handler(logging.Handler):
    def emit(self, record):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)
        except KeyboardInterrupt:
            print("dropped")

logger = logging.getLogger("run")
logger.addHandler(Handler())
Ending(logger)
logger.warning("a line")
try:
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interruption_while_snakemake_writes_a_line_comes_after_it(root):
    """Snakemake's handler of records drops a KeyboardInterrupt."""
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], cwd=root / "workflow/scripts", text=True, capture_output=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.fixture
def here(study, monkeypatch):
    """A finished study as the current folder, without two shards of answers."""
    monkeypatch.chdir(study.folder)
    for shard in SHARDS:
        Path(shard).unlink()
    return study


def test_the_errors_of_failed_jobs_are_the_last_lines(here):
    Path("workflow/scripts/generate.py").write_text(FAILING)
    done = here.run(*SHARDS)
    assert done.returncode == 1
    error = "generate.py: error: results/two/data/prompts.parquet: expected rows, found none; fetch again"
    assert done.stdout.splitlines()[-3:] == [
        "2 jobs failed; correct the cause and give the same command again: what is finished and saved is kept",
        *(f"failed: generate: {shard} (log: {log}): {error}" for shard, log in zip(SHARDS, LOGS, strict=True)),
    ]


@pytest.mark.fault("interruptions", "Ctrl-C in Snakemake", "it ends its jobs, which keep their states", f"`{KEPT}`")
def test_ctrl_c_ends_in_one_sentence(here):
    """The signal reaches the whole group of processes, as that of a terminal."""
    Path("workflow/scripts/generate.py").write_text(SLOW)
    with open("run.log", "w") as log:
        run = subprocess.Popen(
            here.command(SHARDS[0]), env=workflow.environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            while "300" not in job_state.tail(LOGS[0]) and run.poll() is None:
                time.sleep(0.05)
            os.killpg(run.pid, signal.SIGINT)
            assert run.wait(120) == 1
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    screen = Path("run.log").read_text()
    assert screen.splitlines()[-1] == KEPT
    ended = screen.split("300 of 1200")[1]
    assert f"generate.py: {KEPT}" in ended.splitlines()
    assert "Traceback" not in ended and "Error in rule" not in ended and "Shell" not in ended
    assert Path(LOGS[0]).read_text().endswith(f"generate.py: {KEPT}\n")


STOPPED = """
import os, signal, sys
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

finish_jobs = JobScheduler._finish_jobs

def stopped(self):
    if self._tofinish:
        os.kill(os.getpid(), signal.SIGTERM)
    finish_jobs(self)

JobScheduler._finish_jobs = stopped
main()
"""


@pytest.mark.fault(
    "interruptions",
    "SIGTERM to Snakemake, also while it looks at what a job has made",
    "it starts no more jobs, and ends with those that run",
    f"`{KEPT.replace('interrupted', 'ended before all jobs were done')}`",
)
def test_sigterm_ends_a_run_also_while_it_holds_snakemakes_lock(here):
    """Snakemake holds it while it looks at what a job has made."""
    command = [sys.executable, "-c", STOPPED, *here.command(*SHARDS)[3:]]
    done = subprocess.run(
        command, cwd=here.folder, env=workflow.environment(), text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == KEPT.replace("interrupted", "ended before all jobs were done")
    assert sum(Path(shard).exists() for shard in SHARDS) > 0
