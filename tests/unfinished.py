"""A study in the current folder in which jobs run, wait or have ended, and what `status` tells of it."""

import base64
import os
import re
import shutil
import time
from pathlib import Path

import workflow

from wspin.config.load import read_study
from wspin.manage.status import table
from wspin.study import jobs
from wspin.study.paths import StudyPaths

MODEL = "results/two/spin/ite1/model"
LOG = "results/two/logs/train/spin/ite1.log"
STATE = "results/two/.state/train/spin/ite1/0123456789abcdef"
SHARD = "results/two/spin/ite2/generations/00.parquet"
SHARD_LOG = "results/two/logs/generate/spin/ite2/00.log"


def layout(*overlays):
    return StudyPaths(read_study(["config/config.yaml", *overlays]))


def told(*overlays):
    """(model -> its row's cells, the lines below the table)"""
    lines = table(layout(*(overlays or (workflow.TWO_ARMS,)))).splitlines()
    end = lines.index("")
    header, rows = lines[0], lines[2:end]
    starts = [header.index(name) for name in ("model", *jobs.COLUMNS[:4])]
    starts += [header.index("model", starts[-1]), header.index("scores")]
    pieces = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in rows]
    return {model: dict(zip(jobs.COLUMNS, cells, strict=True)) for model, *cells in pieces}, lines[end + 1 :]


def remove(*paths):
    for path in map(Path, paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def mark(output, ago=0.0):
    """Snakemake's marker of an output that is being made since so many seconds."""
    pieces = re.findall(r".{1,254}", base64.urlsafe_b64encode(output.encode()).decode())
    place = Path(".snakemake/incomplete", *(f"@{piece}" for piece in pieces[:-1]), pieces[-1])
    return write(place, '{"external_jobid": null}', ago)


def run_began(ago):
    return write(".snakemake/locks/0.output.lock", "", ago)


def write(path, text, ago=0.0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - ago,) * 2)
    return path


def last_line(*overlays):
    """What stands behind the number of finished jobs."""
    return told(*overlays)[1][3].rpartition(" jobs done")[2]


def sample_a_shard():
    """A shard whose answers are being sampled, by a run that began a minute ago."""
    remove(SHARD)
    run_began(ago=60)
    mark(SHARD, ago=50)
    write(SHARD_LOG, "generate: 120 of 1200 answers  4.0/s  310 s left\n", ago=10)
