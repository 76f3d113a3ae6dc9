"""In place of conda: answers what Snakemake asks of it, and records every question in `calls.jsonl`.

`env create` gives the pip list to pip as conda does, in a file beside the environment file and run from there. Nothing
is installed: pip must find every package here already, in the version of the list. The environment's Python is the one
that runs this, and notes in `ran` what it is given.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

HOME = Path(__file__).parent.parent


def value(option: str) -> Path:
    return Path(sys.argv[sys.argv.index(option) + 1])


def create(file: Path, prefix: Path) -> None:
    *_, pip = yaml.safe_load(file.read_text())["dependencies"]
    requirements = file.parent / "condaenv.requirements.txt"
    requirements.write_text("\n".join(pip["pip"]))
    flags = ["--no-index", "--dry-run", "--quiet", "-U", "-r", requirements]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *flags], cwd=file.parent)
    requirements.unlink()
    if done.returncode:
        sys.exit(done.returncode)
    python = prefix / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >>{prefix}/ran\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)


with open(HOME / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")
match sys.argv[1:]:
    case ["--version"]:
        print("conda 26.9.1")
    case ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(HOME), "platform": "linux-64"}))
    case ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    case ["env", "create", "--quiet", "--no-default-packages", "--file", _, "--prefix", _]:
        create(value("--file"), value("--prefix"))
    case ["clean", "-y", "--tarballs"]:
        pass
    case _:
        sys.exit(f"a question that nobody expected: conda {' '.join(sys.argv[1:])}")
