"""kill -9 at every kind of moment: the program, started again, ends with the files of an uninterrupted run."""

import random
import signal

import pytest
from faults.points import Point, points
from faults.stages import Job, Study

pytestmark = pytest.mark.faults

STAGES = ("fetch", "data", "train", "generate", "logprobs", "weigh", "eval", "report", "exchange", "manage")
POINTS = {"train": 70, "eval": 50, "generate": 30, "report": 5}  # of a job, drawn by chance if it has more
OTHERS = 16


def drawn(job: Job, found: list[Point]) -> list[Point]:
    number = min(POINTS.get(job.stage, OTHERS), len(found))
    return sorted(random.Random(job.name).sample(found, number), key=lambda point: point.operation)


def lost(study: Study, job: Job, point: Point, whole: dict[str, str], states: set[str]) -> str:
    """What a kill at the point has cost; empty if nothing."""
    study.reset(job)
    if (killed := study.run(job, point)).code != -signal.SIGKILL:
        return f"ended with {killed.code}: {killed.output}"
    if damaged := study.damaged(job, whole):
        return f"damaged: {damaged}"
    if point.operation % 2 or job.stage == "exchange":  # as Snakemake does; by hand they stay, `exchange` replaces none
        study.remove(job)
    if (again := study.run(job)).code != 0:
        return f"not to be started again: {again.output}"
    if (found := study.published()) != whole:
        return f"other results: {dict(found.items() ^ whole.items())}"
    if (left := study.states()) != states:
        return f"other states: {left ^ states}"
    return ""


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_program_loses_nothing(tiny, stage, record_property):
    killed, losses = 0, []
    for job in (job for job in tiny.jobs() if job.stage == stage):
        tiny.reset(job)
        whole_run = tiny.run(job)
        assert whole_run.code == 0, whole_run.output
        whole, states = tiny.published(), tiny.states()
        for point in drawn(job, points(whole_run.operations)):
            killed += 1
            if loss := lost(tiny, job, point, whole, states):
                at = whole_run.operations[point.operation - 1]
                losses.append(f"{job.name} at {point} ({at.kind} {at.path}): {loss}")
    record_property("kill points", (stage, killed, len(losses)))
    assert losses == []
