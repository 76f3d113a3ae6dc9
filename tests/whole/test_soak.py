"""A small study from nothing again and again, killed in every way at random times: each ends as an uninterrupted one.

It takes the minutes of SOAK_MINUTES, 20 by default; SOAK_SEED draws other kills. `-s` shows the counts as they grow.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter

import psutil
import pytest
from runs import Run, results, small_demo

pytestmark = pytest.mark.soak

MINUTES, SEED = (float(os.environ.get(name, default)) for name, default in (("SOAK_MINUTES", 20), ("SOAK_SEED", 0)))
SHORTEST, LONGEST = 3.0, 40.0  # seconds between a start or a kill and the next kill
SHARE = 0.25  # of a study's own time: the longest gap, where that is longer, so that kills come in all of its stages
MOST = 12  # kills of a study; then it runs to its end
PATIENCE = 1800  # seconds for what has been told to end, and for a whole start, on a busy machine

# What happens to a run; all but the death of one job end it.
KINDS = ("kill all", "kill the driver", "kill a job", "terminate the driver", "Ctrl-C")


def interrupt(run, kind, rng):
    """Whether there was something to interrupt."""
    drivers, members = run.members("--profile"), run.members()
    jobs = [process for process in members if "workflow/scripts/" in " ".join(_command(process))]
    targets = {"kill a job": jobs, "kill all": members, "Ctrl-C": members}.get(kind, drivers)
    if not targets:
        return False
    try:
        if kind == "kill all":
            run.kill()
        elif kind == "Ctrl-C":
            os.killpg(run.process.pid, signal.SIGINT)  # as a terminal: everything in the foreground
        else:
            target = rng.choice(targets) if kind == "kill a job" else targets[0]
            target.send_signal(signal.SIGTERM if kind == "terminate the driver" else signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):  # it has just ended
        return False
    return True


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def start(folder, gaps, rng, kills, runs):
    """Start the study once; whether it finished. What ends without having been interrupted is a fault."""
    run = Run(folder, ["make", "--old-file=setup", "demo"])
    runs.append(run)
    interrupted = False
    while True:
        gap = gaps() if sum(kills.values()) < MOST else None
        try:
            code = run.process.wait(timeout=gap or PATIENCE)
        except subprocess.TimeoutExpired:
            assert gap, f"{folder} does not end: {run.told()}"
        else:
            assert code == 0 or interrupted, f"{folder} ended without a reason, after {dict(kills)}: {run.told()}"
            return code == 0
        kind = rng.choice(KINDS)
        if not interrupt(run, kind, rng):
            continue
        kills[kind] += 1
        interrupted = True
        if kind != "kill a job":
            code = run.process.wait(timeout=PATIENCE)
            if kind != "kill the driver":  # whose jobs live on
                _, alive = psutil.wait_procs(run.members(), timeout=PATIENCE)
                assert alive == [], f"{folder}: {kind}: {run.told()}"
            return code == 0


def finish(folder, gaps, rng):
    """Run a study from nothing until it is finished; (kills by kind, starts).

    `gaps`: the seconds before the next kill; None if there is to be none.
    """
    kills, runs = Counter(), []
    try:
        small_demo(folder)
        while not start(folder, gaps, rng, kills, runs):
            pass
        for run in runs:
            psutil.wait_procs(run.members(), timeout=PATIENCE)  # jobs of killed drivers
        return kills, len(runs)
    finally:
        for run in runs:
            run.kill()


def test_every_killed_study_ends_as_an_uninterrupted_one(tmp_path, capsys):
    rng, total, studies, starts, began = random.Random(SEED), Counter(), 0, 0, time.monotonic()
    finish(tmp_path / "uninterrupted", lambda: None, rng)
    expected, longest = results(tmp_path / "uninterrupted"), max(LONGEST, SHARE * (time.monotonic() - began))
    assert {"spin/ite1/model/model.safetensors", "wspin/ite1/weights/00.parquet", "tables/scores.md"} <= set(expected)
    end = time.monotonic() + 60 * MINUTES

    def gaps():
        return rng.uniform(SHORTEST, longest) if time.monotonic() < end else None

    while time.monotonic() < end:
        folder = tmp_path / f"killed-{studies}"
        kills, count = finish(folder, gaps, rng)
        found = results(folder)
        differ = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        assert differ == [], f"{folder}: others than without {dict(kills)}"
        shutil.rmtree(folder)
        total, studies, starts = total + kills, studies + 1, starts + count
        seconds = time.monotonic() - end + 60 * MINUTES
        counts = ", ".join(f"{total[kind]} x {kind}" for kind in KINDS)
        with capsys.disabled():
            print(
                f"\nsoak: {studies} studies in {starts} starts, {seconds:.0f} s, seed {SEED:.0f}; {counts}", flush=True
            )
