"""Tells how far a study is: a table with a row for each model, and what runs or was interrupted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wspin.config.load import read_study
from wspin.storage.text_tables import text_table
from wspin.study.jobs import COLUMNS, Job, other_jobs, rows
from wspin.study.paths import StudyPaths

from .job_state import Seen, Watch, saved_step, tail

THERE = ("done", "stale")
OPEN = ("running", "queued", "interrupted", "failed")


def show_progress(configfiles: Sequence[str]) -> str:
    """The table of the study that config/config.yaml and these overlays describe."""
    return table(StudyPaths(read_study(["config/config.yaml", *configfiles])))


def table(layout: StudyPaths) -> str:
    """The study as it is now, seen from the folder in which Snakemake runs."""
    watch, models, others = Watch(), rows(layout), other_jobs(layout)
    groups = [group for row in (*models.values(), others) for group in row.values()]
    seen = {job: watch.look(job) for job in dict.fromkeys(job for group in groups for job in group)}
    lines = [[model, *(cell([seen[job] for job in row[name]]) for name in COLUMNS)] for model, row in models.items()]
    told = [text_table(["model", *COLUMNS], lines, "l" * (1 + len(COLUMNS)), "simple"), ""]
    told += [f"{name}: {cell([seen[job] for job in group])}" for name, group in others.items()]
    told.append(summary(list(seen.values()), watch.alive))
    return "\n".join([*told, *(story(job, one) for job, one in seen.items() if one.word in OPEN)])


def cell(seen: Sequence[Seen]) -> str:
    """Jobs of one kind in a few words; `-` for none."""
    counts = Counter(one.word for one in seen)
    there = sum(counts[word] for word in THERE)
    words = [] if len(seen) == 1 or there == len(seen) or counts["missing"] == len(seen) else [f"{there}/{len(seen)}"]
    for word in OPEN:
        if counts[word]:
            words.append(word if counts[word] == 1 else f"{counts[word]} {word}")
        if word == "running" and (far := progress([one for one in seen if one.word == word])):
            words[-1] += f" {far}" if counts[word] == 1 else f", {far}"
    if not words:
        words = ["-" if not seen else "done" if there else "missing"]
    return ", ".join([*words, *(["stale"] if counts["stale"] else [])])


def progress(running: Sequence[Seen]) -> str:
    """How far they are: the share of one, the time left of the last of several."""
    left = [one.left for one in running if one.left is not None]
    share = f"{running[0].share:.0%}".replace("%", " %") if len(running) == 1 and running[0].share is not None else ""
    return ", ".join(part for part in (share, f"{span(max(left))} left" if left else "") if part)


def span(seconds: float) -> str:
    """Seconds to be read: `40 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def summary(seen: Sequence[Seen], alive: bool | None) -> str:
    counts = Counter(one.word for one in seen)
    there = sum(counts[word] for word in THERE)
    some = [f"{counts[word]} {word}" for word in (*OPEN, "stale") if counts[word]]
    told = [f"{there} of {len(seen)} jobs done", *some]
    snakemake = {True: "Snakemake is running here", False: "no Snakemake is running here", None: ""}[alive]
    return "; ".join(part for part in (", ".join(told), snakemake) if part)


def story(job: Job, seen: Seen) -> str:
    """One line on a job that is neither done nor missing: how far it is, and where to read on."""
    if seen.word == "interrupted":
        step = saved_step(job.states) if job.states else None
        more = "starts anew" if step is None else f"saved at step {step}"
    elif seen.word == "failed":
        more = tail(job.log).rstrip().rpartition("\n")[2]
    elif seen.word == "running":
        age = "" if seen.age is None else f"last word {span(seen.age)} ago"
        more = ", ".join(part for part in (progress([seen]), age) if part)
    else:
        more = ""
    return f"{seen.word}: {job.outputs[0]}{more and f': {more}'} ({job.log})"
