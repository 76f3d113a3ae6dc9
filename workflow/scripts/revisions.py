"""Pin what the study takes from the hub: write the commits of all names that have none into config/revisions.lock.yaml.

A name is asked for once; what the file holds stays as it is, until --renew names it. Needs the network.

    python workflow/scripts/revisions.py --configfile config/mine.yaml
    python workflow/scripts/revisions.py --renew Qwen/Qwen1.5-1.8B
"""

from pathlib import Path

from wspin import cli
from wspin.config.load import LOCK_FILE, merge_files, read_lock, unpinned
from wspin.fetch import hub
from wspin.storage.files import write_yaml


def main(argv=None):
    parser = cli.parser("revisions", __doc__)
    parser.add_argument("--configfile", nargs="*", default=[], help="overlays of config/config.yaml")
    parser.add_argument("--renew", nargs="*", default=[], metavar="NAME", help="names to ask for again")
    arguments = parser.parse_args(argv)
    merged = merge_files(["config/config.yaml", *arguments.configfile])
    pinned = read_lock(Path(LOCK_FILE))
    for kind, name in sorted(unpinned(merged)):
        if name in arguments.renew or name not in pinned.get(kind, {}):
            pinned.setdefault(kind, {})[name] = hub.commit(hub.Repository(name, kind, None))
            print(f"{kind} {name}: {pinned[kind][name]}")
    write_yaml(LOCK_FILE, pinned)
    print(f"{LOCK_FILE}: {sum(map(len, pinned.values()))} commits")


if __name__ == "__main__":
    cli.run(main)
