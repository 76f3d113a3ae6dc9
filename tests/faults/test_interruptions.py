"""Signals, two programs at once, and wrong clocks: afterwards a run ends with the files of an undisturbed one."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.points import SCRIPTS, TESTS, Point, Program
from faults.stages import Job, Study
from runs import Run

from wspin.interruption import KEPT

pytestmark = pytest.mark.faults

YEARS = 20 * 365.25 * 86400  # s
SLOW = "import time\ntime.sleep(600)\n"


@pytest.fixture
def seen(request):
    """What the user sees, of the test's row in docs/robustness.md."""
    return request.node.get_closest_marker("fault").args[-1].strip("`")


@pytest.fixture
def fresh(tiny):
    """Removes what a job has made, and all states; returns what there was."""

    def removed(job):
        whole = tiny.published()
        tiny.reset(job)
        return whole

    return removed


def middle(study: Study, job: Job, number: signal.Signals) -> Point:
    """In the midst of a job's operations."""
    operations = study.run(job).operations
    study.reset(job)
    return Point(len(operations) // 2, signal=number)


@pytest.mark.fault(
    "interruptions",
    "SIGTERM to a program",
    "it ends at once; the next start resumes, and ends with the same files",
    "nothing",
)
@pytest.mark.parametrize("name", ["data", "train", "generate", "eval", "report_scores"])
def test_sigterm_to_a_program(tiny, fresh, name):
    job = tiny.job(name)
    whole = fresh(job)
    assert tiny.run(job, middle(tiny, job, signal.SIGTERM)).code == -signal.SIGTERM
    assert tiny.damaged(job, whole) == []
    assert tiny.run(job).code == 0
    assert tiny.published() == whole


def run_in_an_interpreter(program: Program, point: Point) -> subprocess.CompletedProcess:
    code = "import pickle, sys; program, point = pickle.load(sys.stdin.buffer); program.run_here(point)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, SCRIPTS)))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=pickle.dumps((program, point)), env=environment, capture_output=True)


@pytest.mark.fault(
    "interruptions",
    "Ctrl-C in a program",
    "it ends at once by the signal, without a traceback; the next start resumes",
    f"`{KEPT}`",
)
@pytest.mark.parametrize("name", ["train", "generate", "eval"])
def test_ctrl_c_in_a_program(tiny, fresh, name, seen):
    job = tiny.job(name)
    whole = fresh(job)
    done = run_in_an_interpreter(tiny.program(job), middle(tiny, job, signal.SIGINT))
    assert done.returncode == -signal.SIGINT
    assert done.stderr.decode().splitlines()[-1].endswith(f": {seen}")
    assert "Traceback" not in done.stderr.decode()
    assert tiny.damaged(job, whole) == []
    assert tiny.run(job).code == 0
    assert tiny.published() == whole


@pytest.mark.fault(
    "interruptions",
    "SIGURG to a training, as SLURM sends it before the time is up",
    "it saves its state after the step and stops; the next start goes on from there",
    "`stop requested (SIGURG): saved at step 2 of 4; run again to continue`",
)
def test_sigurg_to_a_training(tiny, fresh, seen):
    job = tiny.job("train")
    whole = fresh(job)
    paths = [operation.path for operation in tiny.run(job).operations]
    fresh(job)
    first_save = next(i for i, path in enumerate(paths, 1) if path.endswith("/checkpoint-1"))
    stopped = tiny.run(job, Point(first_save, signal=signal.SIGURG))
    assert stopped.code == 1
    assert seen in stopped.output.splitlines()[-1], stopped.output
    again = tiny.run(job)
    assert again.code == 0
    assert ", resumed" in again.output
    assert tiny.published() == whole


@pytest.mark.fault(
    "interruptions",
    "two programs make the same output at once",
    "the second waits until the first has ended, or writes the same whole file",
    "the outputs of one",
)
@pytest.mark.parametrize("name", ["data", "train", "generate", "eval", "weigh"])
def test_two_programs_at_once(tiny, fresh, name):
    job = tiny.job(name)
    whole = fresh(job)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda program: program.run(), [tiny.program(job)] * 2)
    assert (first.code, second.code) == (0, 0), first.output + second.output
    assert tiny.published() == whole
    assert tiny.damaged(job, whole) == []


@pytest.mark.fault(
    "interruptions",
    "the clock is set back or forward by 20 years between a kill and the next start, and the files' times lie apart",
    "no state and no lock depends on a time; the files are the same",
    "nothing",
)
@pytest.mark.parametrize("years", [-1, 1])
@pytest.mark.parametrize("name", ["train", "generate", "eval"])
def test_a_clock_that_is_set(tiny, fresh, name, years):
    job = tiny.job(name)
    whole = fresh(job)
    assert tiny.run(job, middle(tiny, job, signal.SIGKILL)).code == -signal.SIGKILL
    for path in (tiny.results / ".state").rglob("*"):
        os.utime(path, (time.time() - years * YEARS,) * 2)
    assert tiny.program(job, clock=years * YEARS).run().code == 0
    assert tiny.published() == whole


@pytest.mark.fault(
    "interruptions",
    "a second Snakemake in the folder of one that runs",
    "it ends at once; the first goes on",
    "`Error: Directory cannot be locked.`",
)
def test_two_snakemakes_in_a_folder(study, seen):
    model = Path("results/two/spin/ite3/model")
    shutil.rmtree(study.folder / model)
    (study.folder / "workflow/scripts/train.py").write_text(SLOW)
    run = Run(study.folder, study.command(str(model)))
    try:
        run.wait_for(lambda: run.members("workflow/scripts/train.py"))
        second = study.run(str(model))
        assert second.returncode == 1
        assert seen in second.stdout
        assert run.members("workflow/scripts/train.py")
    finally:
        run.kill()
