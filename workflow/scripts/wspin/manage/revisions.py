"""Pins what a study takes from the hub to commits."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from wspin.config.base import hub_name
from wspin.config.load import LOCK_FILE, merge_files, read_lock, unpinned
from wspin.errors import StudyError
from wspin.fetch import hub
from wspin.storage.files import write_yaml


def pin(configfiles: Sequence[str], renew: Sequence[str]) -> Iterator[str]:
    """Write the commit of every unpinned name into the lock file; yields a line for each.

    A commit that the file holds already is kept, unless `renew` names its repository. Needs the network. Raises
    `StudyError` for a name that is none on the hub.
    """
    commits = read_lock(Path(LOCK_FILE))
    for kind, name in sorted(unpinned(merge_files(["config/config.yaml", *configfiles]))):
        try:
            hub_name(name)
        except ValueError as error:
            raise StudyError(f"{kind} {name!r}: {error}") from None
        if name in renew or name not in commits.get(kind, {}):
            commits.setdefault(kind, {})[name] = hub.repository_info(hub.Repository(name, kind, None)).sha
            yield f"{kind} {name}: {commits[kind][name]}"
    write_yaml(LOCK_FILE, commits)
    yield f"{LOCK_FILE}: {sum(map(len, commits.values()))} commits"
