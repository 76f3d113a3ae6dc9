"""Commands of other users: two who share a study's group, and a reader who does not.

Their ids are numbers without an entry in /etc/passwd. Each command has a user's rights alone, and runs in a mount
namespace in which this Python can be read even if it lies in root's closed home.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import workflow

GROUP = 7000  # of the study

# COMMAND with folders laid open: `UMASK CLOSED FOLDER ... -- COMMAND`. An empty folder takes the place of each closed
# one, which holds the folder alone.
LAID_OPEN = """
umask "$1"; shift
declare -A closed; folders=() handles=()
while [ "$1" != -- ]; do
    exec {handle}<"$2"; closed[$1]=1 folders+=("$2") handles+=("$handle"); shift 2
done
shift
for folder in "${!closed[@]}"; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
for i in "${!folders[@]}"; do
    mkdir -p "${folders[i]}"; mount --no-canonicalize --bind "/proc/self/fd/${handles[i]}" "${folders[i]}"
    exec {handles[i]}<&-
done
exec "$@"
"""


@dataclass(frozen=True)
class User:
    """A user with a home of their own."""

    name: str
    uid: int
    home: Path
    umask: str = "002"
    group: int = GROUP

    def command(self, *command: str | Path) -> list[str]:
        """The command as root gives it, to run as this user."""
        ids = [f"--reuid={self.uid}", f"--regid={self.group}", "--clear-groups", "--inh-caps=-all", "--no-new-privs"]
        namespace = ["unshare", "--mount", "--propagation", "private", "bash", "-ec", LAID_OPEN, "bash", self.umask]
        return [*namespace, *_closed_folders(), "--", "setpriv", *ids, *map(str, command)]

    def environment(self) -> dict[str, str]:
        """A user's shell in their own home."""
        variables = {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "XDG_CACHE_HOME": self.home / ".cache"}
        return {**workflow.environment(), **{name: str(value) for name, value in variables.items()}}

    def run(self, folder: Path, *command: str | Path) -> subprocess.CompletedProcess:
        """Run a command in a folder; its output and errors come back together."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return subprocess.run(self.command(*command), cwd=folder, env=self.environment(), text=True, **pipes)

    def make(self, folder: Path, *command: str | Path) -> str:
        """Run a command that succeeds; returns its output."""
        done = self.run(folder, *command)
        assert done.returncode == 0, done.stdout
        return done.stdout


def _closed_folders() -> list[str]:
    """(closed folder, folder below it that has to be read), one after the other, of this Python."""
    pairs: list[str] = []
    for folder in dict.fromkeys(map(os.path.realpath, (sys.base_prefix, sys.prefix))):
        above = reversed(Path(folder).parents)
        if closed := next((parent for parent in above if not parent.stat().st_mode & 0o001), None):
            pairs += [str(closed), folder]
    return pairs


@contextlib.contextmanager
def shared_place() -> Iterator[tuple[Path, User, User, User]]:
    """A folder that all can enter, and three users: two of the study's group, one of another. Skips without the rights.

    Folders of pytest's are closed to other users.
    """
    if os.geteuid():
        pytest.skip("only root can run commands as other users")
    place = Path(tempfile.mkdtemp(prefix="users-"))
    try:
        place.chmod(0o755)
        users = [User(name, 7001 + i, place / "home" / name) for i, name in enumerate(("anna", "ben"))]
        users.append(User("guest", 7003, place / "home/guest", umask="022", group=7003))
        for user in users:
            user.home.mkdir(parents=True)
            os.chown(user.home, user.uid, user.group)
        if (trial := users[0].run(place, sys.executable, "-c", "")).returncode:
            pytest.skip(f"no command runs as another user here: {trial.stdout.strip()}")
        yield (place, *users)
    finally:
        shutil.rmtree(place)


def share(folder: Path, owner: User) -> None:
    """Give a folder and all below it to a user and the study's group, whose members may write in it."""
    subprocess.run(["chown", "-R", f"{owner.uid}:{owner.group}", folder], check=True)
    subprocess.run(["chmod", "-R", "u+rwX,g+rwX,o+rX", folder], check=True)
    subprocess.run(["find", folder, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"], check=True)
