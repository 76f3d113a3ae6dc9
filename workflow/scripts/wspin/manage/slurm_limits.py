"""A run on SLURM: what the cluster would refuse or leave waiting is told before the first job."""

import logging
from typing import Any

from wspin.errors import StudyError
from wspin.study.launch import Launch
from wspin.study.slurm import Asked, Limit, first_account, is_elsewhere, known_cluster, too_many

from .slurm_watch import watch_queue

STATUS = (
    "slurm-status-command: expected squeue, found {}, which overlooks cancelled jobs: the run would wait for them "
    "without end; set it in the profile"
)


def start_on_slurm(workflow: Any, logger: logging.Logger) -> None:
    """Before the first job of a run: check what it asks SLURM for, and watch the queue from then on.

    Nothing if its jobs do not go to SLURM. Raises `StudyError` for what SLURM would refuse until the retries of a job
    are used up, and for a training whose GPUs cannot be counted. What may wait for ever is a warning.
    """
    if workflow.executor_plugin.name != "slurm":
        return
    from .slurm_polls import check_polls  # which imports the plugin

    settings = workflow.executor_settings
    if settings.status_command != "squeue":
        logger.warning(STATUS.format(settings.status_command))
    elif line := check_polls(settings.init_seconds_before_status_checks):
        logger.warning(line)
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    rules = {job.rule.name: job for job in jobs}  # one job of each
    if "train" in rules:
        Launch.of(rules["train"].resources, rules["train"].threads)
    here = {name: job.resources for name, job in rules.items() if not is_elsewhere(job.resources)}
    asked = [asked_for(name, resources, settings.qos) for name, resources in here.items()]
    cluster = known_cluster()
    limit = min(map(cluster.most_jobs, asked), default=Limit())
    refused = [line for one in asked for line in cluster.unknown(one)]
    if refused := [*refused, *too_many(min(workflow.resource_settings.nodes or len(jobs), len(jobs)), limit)]:
        raise StudyError(*refused)
    for line in (line for one in asked for line in cluster.too_long(one)):
        logger.warning(line)
    watch_queue(logger.warning)


def asked_for(rule: str, resources: Any, qos: str | None) -> Asked:
    """What the jobs of a rule ask for at first; `qos`: the run's, which sbatch gets behind their own."""
    partition, account, own = (str(resources.get(key) or "") for key in ("slurm_partition", "slurm_account", "qos"))
    minutes = resources.get("runtime")
    whole = minutes if isinstance(minutes, int) else 0
    return Asked(rule, partition, whole, first_account(account), (qos or own).lower())
