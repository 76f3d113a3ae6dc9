"""The jobs of a study in SLURM's queue: which of them wait, and why, in plain words."""

import re
import subprocess
from collections.abc import Iterable

from wspin.escaping import one_line

JOB_ID = re.compile(r"\d{1,12}(_\d{1,9})?")
PATIENCE = 20.0  # seconds for an answer of a busy controller
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL")
ENDED += ("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")

# Patterns of the beginning of squeue's reason, the first that fits: https://slurm.schedmd.com/job_reason_codes.html
LASTING = {  # these do not pass by themselves: what is wrong, and what to do
    "PartitionTimeLimit": "it asks for more minutes than its partition allows; lower `runtime` of its stage",
    "PartitionNodeLimit": "it asks for more nodes than its partition has; correct the profile",
    "BadConstraints": "no node has what it asks for; correct `resources` or the profile",
    "InvalidAccount|AccountNotAllowed": "its account is not valid; correct `slurm_account`",
    "InvalidQOS|QOSNotAllowed": "its QOS is not valid; correct the profile",
    "ReservationDeleted": "its reservation is gone; correct the profile",
    "(QOS|Assoc)MaxWallDuration": "its account or QOS does not allow so many minutes; lower `runtime` of its stage",
    r"(QOS|Assoc)M(ax|in)\w*(PerJob|PerNode|NotSatisfied)|QOSMin": (
        "its account or QOS allows no such job; correct `resources` or the profile"
    ),
    r"(QOS|Assoc)(?!\w*Run)\w*Minutes|(QOS|Assoc)GrpWall": (
        "what is left of the hours of its account or QOS does not cover it; lower `runtime`, or take another account"
    ),
    "JobHeldUser": "it is held; scontrol release it",
    "JobHeldAdmin": "an administrator holds it; ask why",
    "launch failed requeued held": "its start failed on a node and SLURM holds it; scontrol release it",
}
PASSING = {
    "None": "SLURM has not looked at it yet",
    "Priority": "jobs of higher priority are before it",
    "Resources": "it waits for free GPUs, processors or memory",
    "BeginTime": "SLURM waits before it starts a requeued job again",
    "Dependency": "it waits for another job",
    "PartitionDown": "its partition is closed",
    "PartitionInactive": "its partition is closed",
    "ReqNodeNotAvail": "the nodes that it needs are down, or reserved for maintenance",
    "Nodes required": "the nodes that it needs are down, or reserved for maintenance",
    "Reservation": "it waits for its reservation",
    "JobArrayTaskLimit": "the limit of its job array is reached",
    "Licenses": "it waits for a licence",
    "QOS": "a limit of its QOS is reached: it starts when other jobs end, unless it alone asks for more",
    "Assoc|Max": "a limit of its account is reached: it starts when other jobs end, unless it alone asks for more",
}
NEVER = "it will not start by itself: "


def queued_jobs(ids: Iterable[str]) -> dict[str, str] | None:
    """Of the SLURM jobs that are in the queue, squeue's reason why they wait, by id; empty for those that have started.

    None if squeue gives no answer.
    """
    known = sorted(filter(JOB_ID.fullmatch, ids))
    if not known:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(known)}"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=PATIENCE, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:  # one id alone that has left the queue is an error
        return {} if "Invalid job id" in done.stderr else None
    lines = [line.strip().split("|", 2) for line in done.stdout.splitlines()]
    found = {fields[0]: fields[1:] for fields in lines if len(fields) == 3 and fields[0] in known}
    live = {number: fields for number, fields in found.items() if fields[0] not in ENDED}
    return {number: reason.strip("() ") if state in WAITING else "" for number, (state, reason) in live.items()}


def lasts(reason: str) -> bool:
    """Whether a reason of squeue's does not pass by itself."""
    return bool(_words(reason, LASTING))


def in_words(reason: str) -> str:
    """A reason of squeue's in words, with the reason itself for SLURM's manual; what to do if it does not pass."""
    lasting = _words(reason, LASTING)
    words = f"{NEVER}{lasting}" if lasting else _words(reason, PASSING)
    return f"{words} ({one_line(reason)})" if words else one_line(reason)


def _words(reason: str, known: dict[str, str]) -> str:
    plain = reason.replace("_", " ")
    return next((words for pattern, words in known.items() if re.match(pattern, plain)), "")
