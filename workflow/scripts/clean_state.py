"""Remove the resumable states that no process holds: what an interrupted job would have continued from.

A state is the folder beside a lock file, `<state>/{stage}/{model}/{fingerprint}/`. One that a running job holds is left
alone and named. Results are never touched.

    python workflow/scripts/clean_state.py --state results/.state
"""

import os
from pathlib import Path

from wspin import cli
from wspin.storage.locks import remove_state


def main(argv=None):
    parser = cli.parser("clean_state", __doc__)
    parser.add_argument("--state", required=True, help="folder of the states, `<results>/.state`")
    freed = []
    for folder in states(parser.parse_args(argv).state):
        size = remove_state(folder)
        if size < 0:
            print(f"{folder}: held by a running process; left alone")
        elif size:
            freed.append(size)
    print(f"states removed: {len(freed)} ({sum(freed) / 1e6:.1f} MB)")


def states(root):
    """The state folders below `root`, known by the lock file beside each; nothing inside a state is looked at."""
    for place, folders, files in os.walk(root):
        locks = [file for file in files if file.endswith(".lock")]
        folders[:] = [folder for folder in folders if f"{folder}.lock" not in locks]
        yield from (Path(place) / lock.removesuffix(".lock") for lock in sorted(locks))


if __name__ == "__main__":
    cli.run(main)
