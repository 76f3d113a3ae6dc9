"""What a SLURM cluster allows, beside what the jobs of a study ask for: minutes, and jobs in the queue at a time.

It is asked by its own commands. Where one is not installed or gives no answer, or there is no accounting, nothing is
known, and so nothing is limited.
"""

import getpass
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

PATIENCE = 20.0  # seconds for an answer of a busy controller
# Words of AccountingStorageEnforce, with which the limits of accounts and QOS hold, and their lists of QOS
LIMITS_HOLD, QOS_HOLD = {"limits", "safe", "all"}, {"qos", "all"}
SHOWN = 10  # names in a message
TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,6}):(\d\d):(\d\d)")  # days-hours:minutes:seconds


class Asked(NamedTuple):
    """What the jobs of a rule or a stage ask for; `partition` may be several, separated by commas.

    `account` (`first_account`) and `qos` are in lower case, as SLURM keeps them.
    """

    name: str
    partition: str
    minutes: int
    account: str = ""
    qos: str = ""


class Limit(NamedTuple):
    """A number, infinite without a limit, and what sets it."""

    number: float = math.inf
    source: str = ""


class Rules(NamedTuple):
    """What a partition, an account or a QOS limits for one user. None: nothing, so that another may."""

    name: str
    jobs: int | None = None
    minutes: int | None = None
    qos: str = ""  # of a partition; the default one of an account
    partition: str = ""  # for which alone those of an account hold


@dataclass(frozen=True)
class Cluster:
    """The limits of a cluster for this user."""

    partitions: dict[str, Rules] = field(default_factory=dict)
    accounts: list[Rules] = field(default_factory=list)
    default_account: str = ""
    qos: dict[str, Rules] = field(default_factory=dict)
    own_qos: set[str] = field(default_factory=set)  # that this user may have; empty: any

    def unknown(self, asked: Asked) -> Iterator[str]:
        """A line for each partition that does not exist, and each QOS that this user may not have."""
        for kind, names, known in (("partition", asked.partition, self.partitions), ("QOS", asked.qos, self.own_qos)):
            for name in filter(None, names.split(",") if known else ()):
                if name not in known:
                    some = ", ".join([*sorted(known)[:SHOWN], *["..."] * (len(known) > SHOWN)])
                    found = f"expected one of {some}, found {name!r}, which SLURM refuses"
                    yield f"{asked.name}: {kind}: {found}; correct the profile"

    def too_long(self, asked: Asked) -> Iterator[str]:
        """A line if the jobs ask for more minutes than they may."""
        limit = max(min(self._own(name), self._first("minutes", name, asked)) for name in asked.partition.split(","))
        if asked.minutes > limit.number:
            found = f"found {asked.minutes} minutes, expected at most {limit.number:.0f}, the limit of {limit.source}"
            remedy = "lower runtime and max_runtime in `resources`, or name another partition in the profile"
            yield f"{asked.name}: {found}: its jobs may wait for ever; {remedy}"

    def most_jobs(self, asked: Asked) -> Limit:
        """The most jobs like these that this user may have in the queue."""
        return max(self._first("jobs", name, asked) for name in asked.partition.split(","))

    def _own(self, partition: str) -> Limit:
        minutes = self.partitions.get(partition, Rules(partition)).minutes
        return Limit() if minutes is None else Limit(minutes, f"partition {partition!r}")

    def _first(self, name: str, partition: str, asked: Asked) -> Limit:
        """The limit that counts: SLURM heeds the first that is set."""
        found = ((getattr(rules, name), source) for source, rules in self._rules(partition, asked))
        return next((Limit(number, source) for number, source in found if number is not None), Limit())

    def _rules(self, partition: str, asked: Asked) -> Iterator[tuple[str, Rules]]:
        """(name in messages, rules) of the partition's QOS, the job's QOS and its account, in SLURM's order."""
        name = asked.account or self.default_account
        rows = [row for row in self.accounts if row.name == name and row.partition in ("", partition)]
        own = max(rows, key=lambda row: row.partition, default=Rules(name))
        for qos in (self.partitions.get(partition, Rules(partition)).qos, asked.qos or own.qos):
            if qos in self.qos:
                yield f"QOS {qos!r}", self.qos[qos]
        yield f"account {name!r}", own


def first_account(names: str) -> str:
    """The one that Snakemake's plugin takes of several, as SLURM keeps it."""
    return next(filter(None, re.split(r"[,\s]+", names.lower())), "")


def is_elsewhere(resources: Any) -> bool:
    """Whether jobs go to another cluster, which the SLURM of this one knows."""
    return any(resources.get(name) for name in ("cluster", "clusters", "slurm_cluster"))


def too_many(jobs: int, limit: Limit) -> Iterator[str]:
    """A line if a run has more jobs at a time than this user may add to the queue."""
    if jobs > limit.number:
        waiting = len(_told("squeue", "--me", "--noheader", "--array", "--format=%i").split())
        room = limit.number - waiting
        there = f" ({waiting} are taken)" if waiting else ""
        places = f"{limit.source} gives you {limit.number:.0f} places in the queue{there}"
        remedy = f"give --jobs {room:.0f}" if room > 0 else "wait for those jobs, or cancel them"
        found = f"found {jobs} at a time, expected at most {max(room, 0):.0f}: {places}"
        yield f"jobs: {found}, and SLURM refuses others until their retries are used up; {remedy}"


def known_cluster() -> Cluster:
    """The cluster whose commands are installed here, without limits if none are."""
    partitions = {one.name: one for one in _partitions(_told("scontrol", "--all", "--oneliner", "show", "partition"))}
    config = dict(re.findall(r"^(\w+) *= (.*)$", _told("scontrol", "show", "config"), re.MULTILINE))
    enforced = set(config.get("AccountingStorageEnforce", "").lower().split(","))
    if not partitions or enforced.isdisjoint(LIMITS_HOLD | QOS_HOLD):
        return Cluster(partitions)
    user = ("user", f"name={getpass.getuser()}", "withassoc", f"cluster={config.get('ClusterName', '')}")
    own = _table(*user, "format=DefaultAccount,Account,MaxSubmit,MaxWall,DefaultQOS,Partition,QOS")
    names = {name for row in own for name in row[6].split(",") if name}
    known = Cluster(partitions, own_qos=set() if enforced.isdisjoint(QOS_HOLD) else names)
    if enforced.isdisjoint(LIMITS_HOLD):
        return known
    accounts = [Rules(row[1], _count(row[2]), _minutes(row[3]), *row[4:6]) for row in own]
    qos = _table("qos", "format=Name,MaxSubmitPU,MaxWall")
    of_qos = {row[0]: Rules(row[0], _count(row[1]), _minutes(row[2])) for row in qos}
    return replace(known, accounts=accounts, default_account=own[0][0] if own else "", qos=of_qos)


def _partitions(told: str) -> Iterator[Rules]:
    for line in told.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in fields:
            qos = fields.get("QoS", "N/A").replace("N/A", "")
            yield Rules(fields["PartitionName"], minutes=_minutes(fields.get("MaxTime", "")), qos=qos)


def _table(*what: str) -> list[list[str]]:
    """Rows of `sacctmgr show`."""
    told = _told("sacctmgr", "--noheader", "--parsable2", "show", *what)
    columns = what[-1].count(",") + 1
    return [row for row in (line.split("|") for line in told.splitlines()) if len(row) == columns]


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _minutes(text: str) -> int | None:
    """Whole minutes in SLURM's notation; None for UNLIMITED or nothing."""
    found = TIME.fullmatch(text)
    days, hours, minutes = (int(part or 0) for part in found.groups()[:3]) if found else (0, 0, 0)
    return 1440 * days + 60 * hours + minutes if found else None


def _told(*command: str) -> str:
    """What a command prints; nothing if it is not there, fails, or gives no answer."""
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=PATIENCE, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout
