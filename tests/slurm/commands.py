#!/usr/bin/env python
"""In place of SLURM's commands, under each of their names: what is submitted is noted, and has ended at once.

Works in the folder that it lies in. `sbatch` adds a line to submitted.jsonl. A job is told to have succeeded, unless
its comment stands in the file `fails`: it has failed then, and is run when submitted again. With a file `run` all run.
`srun` adds a line to started.jsonl and starts one task on the spot. What a task starts with `accelerate` is noted too,
and is one process.
"""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.argv[0]).parent
SUBMITTED = FOLDER / "submitted.jsonl"
STARTED = FOLDER / "started.jsonl"
CONFIG = "MaxArraySize = 1001\nMinJobAge = 300 sec"  # unless a file `config` says otherwise


def submitted():
    return [json.loads(line) for line in SUBMITTED.read_text().splitlines()] if SUBMITTED.exists() else []


def sbatch(*words):
    """Note a job and its end, print its number."""
    *words, wrapped = words
    comment = words[words.index("--comment") + 1]
    with open(SUBMITTED, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two may be submitted at a time
        unlucky = comment in (FOLDER / "fails").read_text().split()
        if unlucky and not any(comment in job["words"] for job in submitted()):
            failed = True
        else:
            failed = (unlucky or (FOLDER / "run").exists()) and run(wrapped) != 0
        job = {"words": words, "command": wrapped.removeprefix("--wrap=")}
        file.write(json.dumps(job | {"state": "FAILED" if failed else "COMPLETED"}) + "\n")
        file.flush()
        print(len(submitted()))


def run(wrapped):
    """Exit code of a job, whose output goes to the file `log`."""
    command = ["sh", "-c", wrapped.removeprefix("--wrap=")]
    with open(FOLDER / "log", "a") as log:
        return subprocess.run(command, stdout=log, stderr=log, env={**os.environ, "SLURM_JOB_ID": "1"}).returncode


def squeue(*words):
    for number, job in enumerate(submitted(), 1):
        print(f"{number}|{job['state']}")


def srun(*words):
    note("srun", words)
    command = next(i for i, word in enumerate(words) if not word.startswith("-"))
    os.environ.update(SLURM_NODEID="0", PATH=os.pathsep.join([str(FOLDER), *os.get_exec_path()]))
    os.execvp(words[command], words[command:])


def accelerate(*words):
    note("accelerate", words)
    program = next(i for i, word in enumerate(words) if word.endswith(".py"))
    os.execvp("python", ["python", *words[program:]])


def note(name, words):
    with open(STARTED, "a") as file:
        file.write(json.dumps([name, *words]) + "\n")


def scontrol(*words):
    print((FOLDER / "config").read_text() if (FOLDER / "config").exists() else CONFIG)


def scancel(*words):
    pass


def fail(*words):
    """sinfo is not asked here; the others need accounting, which there is none."""
    sys.exit(1)


sinfo = sacct = sacctmgr = sshare = fail

if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](*sys.argv[1:])
