"""The stand-in cluster with accounting: slurmdbd beside it, and a MariaDB of its own behind that.

    python tests/slurm/accounting.py up /tmp/cluster        three unlike nodes, 30 minutes and four jobs at most
    python tests/slurm/accounting.py down /tmp/cluster

Needs Debian's packages slurmdbd and mariadb-server too. The database lies in the cluster's folder and listens on a port
of its own on loopback; one of the system is neither used nor touched.
"""

import secrets
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cluster as slurm
from cluster import Cluster, Node

NEEDED = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
ACCOUNT = "lab"
SHORT, NARROW = "short", "narrow"  # QOS
PLACES = 4  # in the queue, for a user of the account
MACHINES = [Node(cpus=16, memory=8000, gpus=2), Node(cpus=8, memory=3900, gpus=1), Node(cpus=4, memory=3000, gpus=0)]


def missing() -> str | None:
    """Why no such cluster can be started here, or None."""
    absent = [name for name in NEEDED if not shutil.which(name, path=slurm.search_path())]
    if absent:
        return f"no accounting on this machine: {', '.join(absent)} not found (Debian: slurmdbd mariadb-server)"
    return slurm.missing()


@dataclass(frozen=True)
class AccountedCluster(Cluster):
    """A cluster that holds its users to the limits of their account, and knows QOS of shorter and of smaller jobs."""

    longest: str = "00:30:00"

    @property
    def machines(self) -> list[Node]:
        return MACHINES

    def _start_accounting(self) -> None:
        """MariaDB, slurmdbd, and in it the cluster, the account, the QOS and their limits."""
        password, data = (self.folder / "password").read_text(), self.folder / "database"
        first = self.folder / "first.sql"
        first.write_text(  # a statement a line
            "CREATE DATABASE slurm_acct_db;\n"
            f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n"
        )
        here = ("--no-defaults", f"--datadir={data}", "--user=root")
        slurm.run("mariadb-install-db", *here, "--skip-test-db", "--auth-root-authentication-method=normal")
        files = {"socket": "run/mariadb.socket", "pid-file": "run/mariadbd.pid", "log-error": "log/mariadb.log"}
        places = (f"--{name}={self.folder}/{file}" for name, file in files.items())
        small = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--skip-log-bin", "--skip-name-resolve")
        slurm.start(
            "mariadbd",
            *here,
            *places,
            *small,
            "--bind-address=127.0.0.1",
            f"--port={self.port + 3}",
            f"--init-file={first}",
        )
        self._wait_for(self.port + 3)
        slurm.run("slurmdbd")
        self._wait_for(self.port + 2)
        for words in (
            "add cluster stand-in",
            f"add qos {SHORT} set maxwall=00:10:00",
            f"add qos {NARROW} set maxtresperuser=cpu=2",
            f"add account {ACCOUNT} cluster=stand-in",
            f"add user root account={ACCOUNT} cluster=stand-in",
            f"modify user root where account={ACCOUNT} set maxsubmitjobs={PLACES} defaultaccount={ACCOUNT}",
            f"modify user root where account={ACCOUNT} set qos+={SHORT},{NARROW}",
        ):
            slurm.run("sacctmgr", "--immediate", *words.split())

    def _wait_for(self, port: int, seconds: float = 30.0) -> None:
        """Raises `RuntimeError` if nothing listens there within the time."""
        end = time.monotonic() + seconds
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError as error:
                if time.monotonic() > end:
                    raise RuntimeError(f"port {port}: nothing listens there after {seconds:.0f} s") from error
                time.sleep(0.1)

    def _accounting(self) -> dict[str, str]:
        return {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": str(self.port + 2),
            "AccountingStoragePass": f"{self.folder}/run/munge.socket",
            "AccountingStorageEnforce": "associations,limits,qos",
        }

    def _configuration(self) -> dict[str, str]:
        password = secrets.token_hex()
        (self.folder / "password").write_text(password)
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/run/munge.socket",
            "DbdHost": socket.gethostname().partition(".")[0],
            "DbdAddr": "127.0.0.1",
            "DbdPort": self.port + 2,
            "SlurmUser": "root",
            "PidFile": f"{self.folder}/run/slurmdbd.pid",
            "LogFile": f"{self.folder}/log/slurmdbd.log",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": self.port + 3,
            "StorageUser": "slurm",
            "StoragePass": password,
        }
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        return super()._configuration() | {"slurmdbd.conf": lines}


if __name__ == "__main__":
    action, place = sys.argv[1:]
    getattr(AccountedCluster(Path(place)), {"up": "up", "down": "down"}[action])()
    print(slurm.run("sinfo", "--Node", "--format=%N %P %t %c %m %G %l") if action == "up" else "stopped")
