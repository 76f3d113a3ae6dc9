"""What the rules share: the validated study, its layout, and the functions that rules take their inputs and flags from.

Flags are functions of wildcards alone. Snakemake compares such params and re-runs a job when they change; a function
that also takes resources is never compared, which is why the launcher does.
"""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(workflow.basedir) / "workflow" / "scripts"))

from wspin import StudyError, configfile
from wspin.commands import Commands
from wspin.files import show_alive, write_yaml
from wspin.study import Layout, alternatives

# Jobs run in the Python that runs snakemake, unless conda gives them another.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))

try:
    given = workflow.overwrite_configfiles or []
    STUDY = configfile.load(config, ["config/config.yaml", *given])
except StudyError as error:
    sys.exit(str(error))
LAYOUT = Layout(STUDY)
COMMANDS = Commands(LAYOUT)
ALIVE = show_alive()  # held as long as this process lives: tells a stale workflow lock from a live one


ITERATION = rf"(?:{alternatives(STUDY.arms)})/ite\d+"


wildcard_constraints:
    shard=r"\d+",
    suite=alternatives(STUDY.eval.suites),
    dataset="sft|preferences",


def resource(stage, name):
    return getattr(getattr(STUDY.resources, stage), name)


def minutes(stage):
    """Run time of a stage, growing with the attempt."""
    return lambda wildcards, attempt: attempt * resource(stage, "runtime")


def launcher(wildcards, resources):
    """How a training is started; the number of GPUs changes no result, so it must not be compared."""
    return "python"


def write_config():
    """Keep the resolved configuration beside the results."""
    write_yaml(f"{LAYOUT.results}/config.yaml", STUDY.model_dump(mode="json", by_alias=True, exclude_none=True))


def flags(rule):
    """The flags of a rule's program: the validated sections it depends on, resolved for these wildcards."""
    return lambda wildcards: getattr(COMMANDS, rule)(**wildcards)


# Inputs


def scratch_text(wildcards):
    """The raw text that trains a scratch model's tokenizer; nothing for other models."""
    scratch = STUDY.models[wildcards.model].scratch
    return LAYOUT.fetched(scratch.text) if scratch else []


def local_files(path):
    """The files of a source that lies on this machine, so that an edit of them is seen; nothing for other sources."""
    return sorted(str(file) for file in Path(path).rglob("*") if file.is_file()) if path else []


def parent_model(wildcards):
    return LAYOUT.model(LAYOUT.parent(wildcards.model))


def parent_manifest(wildcards):
    return LAYOUT.manifest(LAYOUT.parent(wildcards.model))


def training_rows(wildcards):
    return LAYOUT.training_pairs(wildcards.model)[0]


def training_reference(wildcards):
    return LAYOUT.training_pairs(wildcards.model)[1]


def unseen(wildcards, resources):
    """Flags of a training that must not be compared, hence the `resources`."""
    return COMMANDS.train_unseen(wildcards.model)


def opponent_model(wildcards):
    return LAYOUT.model(LAYOUT.generator(wildcards.responses))


def opponent_manifest(wildcards):
    return LAYOUT.manifest(LAYOUT.generator(wildcards.responses))


def own_answers(wildcards):
    return LAYOUT.file(LAYOUT.answers(wildcards.responses), "generations", wildcards.shard)


def replayed_answers(wildcards):
    return [LAYOUT.file(name, "generations", wildcards.shard) for name in LAYOUT.replays(wildcards.responses)]


def heldout(wildcards):
    return f"{LAYOUT.results}/data/heldout.parquet" if STUDY.eval.sources[wildcards.suite].heldout else []
