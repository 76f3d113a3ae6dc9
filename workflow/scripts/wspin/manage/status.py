"""The progress of a study: a table with a row for each model, and the jobs that run or were interrupted."""

from collections import Counter
from collections.abc import Sequence

from wspin.config.load import read_study
from wspin.escaping import one_line
from wspin.progress import span
from wspin.storage.text_tables import text_table
from wspin.study.jobs import COLUMNS, Job, other_jobs, rows
from wspin.study.paths import StudyPaths

from .job_state import JobState, Snapshot, saved, tail

FINISHED = ("done", "stale")
LONGEST_LINE = 500  # characters of a failed job's last line
OPEN = ("running", "queued", "interrupted", "failed")


def show_progress(configfiles: Sequence[str]) -> str:
    """The table of the study that config/config.yaml and these overlays describe."""
    return table(StudyPaths(read_study(["config/config.yaml", *configfiles])))


def table(paths: StudyPaths) -> str:
    """The study as it is now, seen from the folder in which Snakemake runs."""
    snapshot, models, others = Snapshot(), rows(paths), other_jobs(paths)
    groups = [group for row in (*models.values(), others) for group in row.values()]
    states = {job: snapshot.state(job) for job in dict.fromkeys(job for group in groups for job in group)}
    lines = [[model, *(cell([states[job] for job in row[name]]) for name in COLUMNS)] for model, row in models.items()]
    return "\n".join(
        [
            text_table(["model", *COLUMNS], lines, "l" * (1 + len(COLUMNS)), "simple"),
            "",
            *(f"{name}: {cell([states[job] for job in group])}" for name, group in others.items()),
            summary(list(states.values()), snapshot.alive),
            *(details(job, state) for job, state in states.items() if state.word in OPEN),
        ]
    )


def cell(states: Sequence[JobState]) -> str:
    """Jobs of one kind in a few words; `-` for none."""
    counts = Counter(state.word for state in states)
    finished = sum(counts[word] for word in FINISHED)
    uniform = len(states) == 1 or len(states) in (finished, counts["missing"])
    words = [] if uniform else [f"{finished}/{len(states)}"]
    for word in OPEN:
        if counts[word]:
            words.append(word if counts[word] == 1 else f"{counts[word]} {word}")
        if word == "running" and (share := progress([state for state in states if state.word == word])):
            words[-1] += f" {share}" if counts[word] == 1 else f", {share}"
    if not words:
        words = ["-" if not states else "done" if finished else "missing"]
    return ", ".join([*words, *(["stale"] if counts["stale"] else [])])


def progress(running: Sequence[JobState]) -> str:
    """The progress of running jobs: the share that a single one has done, the longest time left of several."""
    left = [state.left for state in running if state.left is not None]
    share = f"{running[0].share:.0%}".replace("%", " %") if len(running) == 1 and running[0].share is not None else ""
    return ", ".join(part for part in (share, f"{span(max(left))} left" if left else "") if part)


def summary(states: Sequence[JobState], alive: bool | None) -> str:
    counts = Counter(state.word for state in states)
    done = f"{sum(counts[word] for word in FINISHED)} of {len(states)} jobs done"
    others = [f"{counts[word]} {word}" for word in (*OPEN, "stale") if counts[word]]
    snakemake = {True: "; Snakemake is running here", False: "; no Snakemake is running here", None: ""}[alive]
    return ", ".join([done, *others]) + snakemake


def details(job: Job, state: JobState) -> str:
    """One line on a job that is neither done nor missing: its progress, and its log."""
    more = ""
    if state.word == "interrupted":
        more = saved(job.states) or "starts anew"
    elif state.word == "failed":
        more = one_line(tail(job.log).rstrip().rpartition("\n")[2], LONGEST_LINE)
    elif state.word == "running":
        age = "" if state.age is None else f"last line {span(state.age)} ago"
        more = ", ".join(part for part in (progress([state]), age) if part)
    return f"{state.word}: {job.outputs[0]}{more and f': {more}'} ({job.log})"
