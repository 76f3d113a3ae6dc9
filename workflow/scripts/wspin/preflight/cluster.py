"""What a SLURM cluster would refuse or leave waiting."""

from collections.abc import Iterator, Sequence

from wspin.config.study import Study
from wspin.study.profile import asked_of_slurm, read_profile
from wspin.study.slurm import Limit, known_cluster, too_many


def find_cluster_complaints(study: Study, profiles: Sequence[str]) -> Iterator[str]:
    """A line for each partition or QOS that SLURM refuses, each run time over a limit, and too many jobs at a time.

    `profiles`: folders of Snakemake's profiles, a later one over those before it. Nothing without SLURM's commands.
    Raises `StudyError` for a folder without a profile.
    """
    profile, cluster = read_profile(profiles), known_cluster()
    asked = list(dict.fromkeys(asked_of_slurm(study, profile)))
    for one in asked:
        yield from cluster.unknown(one)
        yield from cluster.too_long(one)
    if isinstance(jobs := profile.get("jobs"), int):
        yield from too_many(jobs, min(map(cluster.most_jobs, asked), default=Limit()))
