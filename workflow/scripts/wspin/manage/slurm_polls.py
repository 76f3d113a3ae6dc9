"""Whether SLURM's queue is polled before SLURM forgets a job that ended.

SLURM drops a job from its queue `MinJobAge` seconds after its end, and the plugin waits up to 180 s between two polls:
a job that ended and was dropped in between would be waited for without end.
"""

from snakemake_executor_plugin_slurm import job_status_query
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from wspin.errors import StudyError

SAFE_AGE = 240  # seconds: the plugin's longest pause, and a minute for a busy controller
FIRST = "slurm-init-seconds-before-status-checks"


def check_polls(first: int) -> str:
    """Shorten the pauses between polls where SLURM drops jobs sooner; returns a line on that, empty if none is due.

    `first`: seconds to the first poll. Raises `StudyError` if already that comes too late for the plugin, which then
    asks sacct, and that overlooks jobs that are cancelled.
    """
    age = job_status_query.get_min_job_age()
    if age is None:
        found = f"found none; where it is below {SAFE_AGE} s, the end of a job can be overlooked"
        return f"slurm: expected MinJobAge of `scontrol show config`, {found}"
    if age < 3 * first:
        found = f"found {age} s; set {FIRST}: {age // 3} in the profile, or have MinJobAge raised"
        raise StudyError(f"slurm: MinJobAge: expected {3 * first} s or more, three times {FIRST}, {found}")
    if age >= SAFE_AGE:
        return ""
    _limit_pauses(age // 2)
    return f"slurm: the queue is polled at least every {age // 2} s, as MinJobAge is only {age} s"


def _limit_pauses(seconds: int) -> None:
    """Of all executors from now on; the plugin has no setting for its longest pause."""
    pause = RemoteExecutor.next_seconds_between_status_checks
    RemoteExecutor.next_seconds_between_status_checks = property(
        pause.fget, lambda executor, value: pause.fset(executor, min(value, seconds))
    )
