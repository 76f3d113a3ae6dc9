"""What the commands of a SLURM with accounting print, that of tests/slurm/accounting.py; and stand-ins for them."""

import os

PARTITIONS = (
    "PartitionName=cpu AllowGroups=ALL Default=YES QoS=N/A MaxTime=UNLIMITED MinNodes=0 Nodes=node[0-2] State=UP\n"
    "PartitionName=gpu AllowGroups=ALL Default=NO QoS=N/A MaxTime=00:30:00 MinNodes=0 Nodes=node[0-2] State=UP\n"
    "PartitionName=long AllowGroups=ALL Default=NO QoS=crowded MaxTime=7-00:00:00 Nodes=node[0-2] State=UP\n"
)
CONFIG = "AccountingStorageEnforce = associations,limits,qos\nClusterName = stand-in\nMinJobAge = 300 sec\n"
USER = "lab|lab|4||||normal,short\nlab|root||2-00:00:00|short||normal\nlab|root|9|||gpu|\n"
QOS = "normal||\nshort|3|00:10:00\ncrowded|1|\n"


def install(folder, monkeypatch, config=CONFIG, partitions=PARTITIONS, user=USER, qos=QOS, queue=""):
    """Put commands first in PATH that print these texts; None: the command fails."""
    folder.mkdir(exist_ok=True)
    answers = {
        "scontrol": {"show config": config, "show partition": partitions},
        "sacctmgr": {"show user": user, "show qos": qos},
        "squeue": {"--me": queue},
    }
    for name, texts in answers.items():
        lines = ["#!/bin/sh"]
        for number, (words, text) in enumerate(texts.items()):
            file = folder / f"{name}.{number}"
            file.write_text(text or "")
            then = f"cat {file}; exit {int(text is None)}"
            lines.append(f'case "$*" in *"{words}"*) {then} ;; esac')
        (folder / name).write_text("\n".join([*lines, "exit 1", ""]))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
