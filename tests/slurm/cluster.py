"""A real SLURM cluster on this machine: munge, one controller, two nodes with stand-in GPUs, all on loopback.

    python tests/slurm/cluster.py up /tmp/cluster        its nodes are idle when this returns
    python tests/slurm/cluster.py down /tmp/cluster      stops the daemons that `up` has started, by their process ids

Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. SLURM's commands and the steps inside jobs
look for their configuration in /etc/slurm, so that is where it goes; one that was not written here is never touched.
There can be one such cluster at a time: `up` stops what an earlier one has left, and `alone` keeps two runs apart.
A GPU is a link to /dev/null: SLURM counts it, hands it out and sets CUDA_VISIBLE_DEVICES, and no program can use it.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

ETC = Path("/etc/slurm")
MARK = "# written by tests/slurm/cluster.py; safe to remove\n"
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
FILES = ("slurm.conf", "gres.conf", "cgroup.conf", "slurmdbd.conf")


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in NEEDED if not shutil.which(name, path=search_path())]
    if absent:
        return f"no SLURM on this machine: {', '.join(absent)} not found (Debian: slurmctld slurmd slurm-client munge)"
    if os.geteuid():
        return "SLURM's daemons need root to run jobs"
    if foreign():
        return f"{ETC}/slurm.conf is another cluster's"
    return None


def foreign() -> bool:
    file = ETC / "slurm.conf"
    return file.exists() and not file.read_text().startswith(MARK)


def present() -> "Cluster | None":
    """The cluster to which the configuration belongs, alive or not, if it was written here."""
    file = ETC / "slurm.conf"
    found = (
        None if foreign() or not file.exists() else re.search(r"^StateSaveLocation=(.+)/state$", file.read_text(), re.M)
    )
    return Cluster(Path(found[1])) if found else None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait for other runs that have a cluster; within, there are none. A run that was killed is none."""
    path = Path(tempfile.gettempdir()) / "stand-in-slurm.lock"
    with open(path, "a", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def search_path() -> str:
    """PATH with the folders of system daemons."""
    return os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/sbin"])


class Node(NamedTuple):
    """What SLURM takes a node for, memory in MB."""

    cpus: int
    memory: int
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """A cluster whose files lie in `folder`, whose path must be short: sockets allow about 100 characters."""

    folder: Path
    nodes: int = 2
    gpus: int = 4  # of a node
    cpus: int = 16  # of a node; more than the machine has, as its GPUs are
    memory: int = 32000  # MB
    settings: dict[str, str] = field(default_factory=dict)  # more lines of slurm.conf
    longest: str = "INFINITE"  # MaxTime of the partitions
    port: int = 16817

    @property
    def machines(self) -> list[Node]:
        return [Node(self.cpus, self.memory, self.gpus)] * self.nodes

    @property
    def names(self) -> list[str]:
        return [f"node{number}" for number in range(len(self.machines))]

    def up(self) -> Self:
        """Start the daemons; returns when all nodes are idle. Raises `RuntimeError` if they are not within 30 s."""
        if reason := missing():
            raise RuntimeError(reason)
        if left := present():
            left.down()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("run", "log", "state", "dev", *(f"spool/{node}" for node in self.names)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(max(node.gpus for node in self.machines)):
            (self.folder / f"dev/nvidia{number}").symlink_to("/dev/null")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        ETC.mkdir(exist_ok=True)
        for name, text in self._configuration().items():
            (ETC / name).touch(mode=0o600 if name == "slurmdbd.conf" else 0o644)  # slurmdbd reads no other
            (ETC / name).write_text(MARK + text)
        files = {name: self.folder / f"run/munge.{name}" for name in ("socket", "pid", "seed")}
        where = [f"--{name}{'' if name == 'socket' else '-file'}={path}" for name, path in files.items()]
        run("munged", "--force", f"--key-file={key}", f"--log-file={self.folder}/log/munged.log", *where)
        self._start_accounting()
        run("slurmctld")
        for node in self.names:
            self.start(node)
        self.wait_until_idle()
        return self

    def _start_accounting(self) -> None:
        """There is none."""

    @contextlib.contextmanager
    def forgetting(self, seconds: int) -> Iterator[None]:
        """Within, jobs leave the controller's memory so long after their end."""
        file = ETC / "slurm.conf"
        before = file.read_text()
        try:
            file.write_text(re.sub("(?m)^MinJobAge=.*", f"MinJobAge={seconds}", before))
            run("scontrol", "reconfigure")
            yield
        finally:
            file.write_text(before)
            run("scontrol", "reconfigure")

    def start(self, node: str) -> None:
        """Start the daemon of one node."""
        run("slurmd", "-N", node)

    def daemon(self, node: str) -> int:
        """Process id of a node's daemon."""
        return int((self.folder / f"run/slurmd-{node}.pid").read_text())

    def wait_until_idle(self, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while run("sinfo", "--noheader", "--format=%t", check=False).split() != ["idle"]:
            if time.monotonic() > end:
                told = (self.folder / "log/slurmctld.log").read_text().splitlines()[-1:]
                raise RuntimeError(f"nodes not idle within {seconds:.0f} s; the controller's last word: {told}")
            time.sleep(0.1)

    def down(self) -> None:
        """Cancel what runs, stop the daemons that were started here, remove their configuration."""
        found = present()
        ours = found is not None and found.folder == self.folder
        if ours and self._pids():
            run("scancel", "--user=root", check=False)
            end = time.monotonic() + 15
            while run("squeue", "--noheader", check=False).strip() and time.monotonic() < end:
                time.sleep(0.2)
        for pid in self._pids():
            stop(pid)
        for name in FILES if ours else ():
            (ETC / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pids(self) -> list[int]:
        """Processes of our daemons, the controller first and munge last."""
        files = [self.folder / "run/slurmctld.pid", *sorted(self.folder.glob("run/slurmd-*.pid"))]
        found = []
        for file in (*files, *(self.folder / f"run/{name}.pid" for name in ("slurmdbd", "mariadbd", "munge"))):
            with contextlib.suppress(FileNotFoundError, ValueError):
                pid = int(file.read_text())
                if Path(f"/proc/{pid}/comm").read_text().strip() in DAEMONS:
                    found.append(pid)
        return found

    def _configuration(self) -> dict[str, str]:
        """Name of a file to its text."""
        gres = (
            f"NodeName={name} Name=gpu File={self.folder}/dev/nvidia[0-{node.gpus - 1}]\n"
            for name, node in zip(self.names, self.machines, strict=True)
            if node.gpus
        )
        return {
            "slurm.conf": self._slurm_conf(),
            "gres.conf": "".join(gres),
            "cgroup.conf": "CgroupAutomount=no\n",
        }

    def _accounting(self) -> dict[str, str]:
        return {"AccountingStorageType": "accounting_storage/none"}

    def _slurm_conf(self) -> str:
        host, folder = socket.gethostname().partition(".")[0], self.folder
        settings = {
            "ClusterName": "stand-in",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": self.port,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/run/munge.socket,cred_expire=10",  # a requeued job waits so long
            "CredType": "cred/munge",
            "StateSaveLocation": f"{folder}/state",
            "SlurmdSpoolDir": f"{folder}/spool/%n",
            "SlurmctldPidFile": f"{folder}/run/slurmctld.pid",
            "SlurmdPidFile": f"{folder}/run/slurmd-%n.pid",
            "SlurmctldLogFile": f"{folder}/log/slurmctld.log",
            "SlurmdLogFile": f"{folder}/log/slurmd-%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            **self._accounting(),
            "JobCompType": "jobcomp/none",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0",
            "MinJobAge": 3600,
            "ReturnToService": 2,
            "KillWait": 5,
            "UnkillableStepTimeout": 20,
            "InactiveLimit": 0,
            "SlurmctldTimeout": 30,
            "SlurmdTimeout": 30,
            "SlurmdParameters": "config_overrides",  # more CPUs and memory than the machine has
            "GresTypes": "gpu",
            **self.settings,
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        for number, (name, node) in enumerate(zip(self.names, self.machines, strict=True)):
            place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 10 + number}"
            gres = f"Gres=gpu:{node.gpus} " if node.gpus else ""
            lines.append(f"NodeName={name} {place} CPUs={node.cpus} RealMemory={node.memory} {gres}State=UNKNOWN")
        for partition, default in (("cpu", "YES"), ("gpu", "NO")):
            lines.append(f"PartitionName={partition} Nodes=ALL Default={default} MaxTime={self.longest} State=UP")
        return "".join(f"{line}\n" for line in lines)


def run(*command: str, check: bool = True) -> str:
    """What a command prints. Raises `RuntimeError` with its errors if it fails and `check` is on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(command, env=environment | {"PATH": search_path()}, text=True, capture_output=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def start(*command: str) -> None:
    """A daemon that does not leave its starter by itself; what it prints is lost."""
    subprocess.Popen(command, env=os.environ | {"PATH": search_path()}, start_new_session=True, **QUIET)


def stop(pid: int, seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL for whom that does not end in time."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)
        end = time.monotonic() + seconds
        while lives(pid) and time.monotonic() < end:
            time.sleep(0.05)
        if not lives(pid):
            return


def lives(pid: int) -> bool:
    """Whether a process has not ended; it may still be listed, until its parent has asked how."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


if __name__ == "__main__":
    action, place = sys.argv[1:]
    getattr(Cluster(Path(place)), {"up": "up", "down": "down"}[action])()
    print(run("sinfo", "--Node", "--format=%N %P %t %c %m %G") if action == "up" else "stopped")
