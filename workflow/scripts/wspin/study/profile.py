"""What a study asks SLURM for by Snakemake's profiles."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wspin.config.reader import read_layer
from wspin.config.study import Study

from .slurm import Asked, first_account, is_elsewhere

STAGES = ("data", "train", "generate", "logprobs", "weigh", "eval")  # whose jobs are submitted


def read_profile(folders: Sequence[str]) -> dict[str, Any]:
    """The keys of profiles, a later one over those before it. Raises `StudyError` for a folder that is none."""
    profile: dict[str, Any] = {}
    for folder in folders:
        profile |= read_layer(Path(folder) / "config.yaml").values
    return profile


def asked_of_slurm(study: Study, profile: dict[str, Any]) -> Iterator[Asked]:
    """What the last attempts of each stage's jobs ask for. The names of a stage's rules begin with its own."""
    defaults, own = _mapping(profile.get("default-resources")), _mapping(profile.get("set-resources"))
    retries = profile.get("retries")
    for stage in STAGES:
        job = getattr(study.resources, stage)
        last = {"runtime": job.minutes(1 + (retries if isinstance(retries, int) else 0))}
        for rule in [name for name in own if name.split("_")[0] == stage] or [stage]:
            given = defaults | last | _mapping(own.get(rule))
            if is_elsewhere(given):
                continue
            minutes = given["runtime"] if isinstance(given["runtime"], int) else 0  # Snakemake takes 12h too
            keys = ("slurm_partition", "slurm_account", "qos")
            partition, account, qos = (str(given.get(key) or "") for key in keys)
            qos = str(profile.get("slurm-qos") or qos)
            yield Asked(f"resources.{stage}", partition, minutes, first_account(account), qos.lower())


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
