"""What a run on SLURM checks before its first job: whether the queue is polled before SLURM forgets a job that ended.

SLURM drops a job from its queue `MinJobAge` seconds after its end, and the plugin waits up to 180 s between two polls:
a job that ended and was dropped in between would be waited for without end.
"""

import sys
from typing import Any

from wspin.errors import StudyError

SAFE_AGE = 240  # seconds: the plugin's longest pause, and a minute for a busy controller
FIRST = "slurm-init-seconds-before-status-checks"


def check_polls(settings: Any) -> None:
    """Shorten the pauses between polls where SLURM drops jobs sooner, and print a line on that.

    `settings`: the executor's; nothing is done for others than SLURM's. Raises `StudyError` if already the first poll
    comes too late for the plugin, which then asks sacct, and that overlooks jobs that are cancelled.
    """
    first = getattr(settings, "init_seconds_before_status_checks", None)
    if first is None or settings.status_command != "squeue":
        return
    from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age

    age = get_min_job_age()
    if age is None:
        found = f"found none; where it is below {SAFE_AGE} s, the end of a job can be overlooked"
        print(f"slurm: expected MinJobAge of `scontrol show config`, {found}", file=sys.stderr)
    elif age < 3 * first:
        found = f"found {age} s; set {FIRST}: {age // 3} in the profile, or have MinJobAge raised"
        raise StudyError(f"slurm: MinJobAge: expected {3 * first} s or more, three times {FIRST}, {found}")
    elif age < SAFE_AGE:
        _limit_pauses(age // 2)
        print(f"slurm: the queue is polled at least every {age // 2} s, as MinJobAge is only {age} s", file=sys.stderr)


def _limit_pauses(seconds: int) -> None:
    """Of all executors from now on; the plugin has no setting for its longest pause."""
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    pause = RemoteExecutor.next_seconds_between_status_checks
    RemoteExecutor.next_seconds_between_status_checks = property(
        pause.fget, lambda executor, value: pause.fset(executor, min(value, seconds))
    )
