"""What the rules share: the validated study, its paths, and what they know of the workflow and its jobs."""

import gc
import os
import sys
import warnings
from pathlib import Path

place = Path.cwd() if workflow.modifier.is_main_snakefile() else "a module of another Snakefile"
if place != Path(workflow.basedir).resolve():
    sys.exit(f"Snakefile: expected to start in its own folder, found {place}; `cd` there (docs/your-own.md)")
sys.path.append(str(Path(workflow.basedir) / "workflow" / "scripts"))

from wspin.config.load import read_study
from wspin.config.preregistration import read_preregistration
from wspin.errors import StudyError
from wspin.iteration import Iteration
from wspin.manage.ending import Ending
from wspin.manage.slurm_limits import start_on_slurm
from wspin.storage.files import digest, sha256, write_yaml
from wspin.storage.locks import show_alive
from wspin.storage.permissions import check_job, error_line
from wspin.study.files import GOLD, PREFERENCE_SIDES, alternatives, shown
from wspin.study.launch import Launch
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags
from wspin.study.rule_functions import flags, inputs, local_files

warnings.filterwarnings("ignore", "coroutine 'InputFiles")  # of Snakemake, in every dry run
gc.set_threshold(100_000)  # collecting in a large plan, which holds no garbage, takes a tenth of Snakemake's time

# Jobs run in the Python that runs snakemake, unless conda gives them another.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))
if not workflow.is_main_process:
    os.environ.update(WSPIN_SUBMITTED="1")  # a job on a cluster: the logs of its programs begin with its number

try:
    base = [] if workflow.config_settings.replace_workflow_config else ["config/config.yaml"]
    STUDY = read_study([*base, *workflow.overwrite_configfiles], workflow.config_settings.config)
    if STUDY.report.preregistration:
        read_preregistration(STUDY.report.preregistration)  # mistakes of form, before the first job
    ALIVE = show_alive()  # held while this process lives, to tell a stale workflow lock from a live one
except (StudyError, OSError) as error:
    sys.exit(error_line(error))
config["resolved"] = STUDY.model_dump(mode="json", by_alias=True, exclude_none=True)  # for the report's start page
ENDING = Ending(logger) if workflow.is_main_process else None  # jobs on a cluster are no runs of their own
PATHS = StudyPaths(STUDY)
FLAGS = RuleFlags(PATHS)
ITERATION = Iteration.pattern(alternatives(STUDY.arms))


wildcard_constraints:
    shard=r"\d+",
    suite=alternatives(STUDY.eval.suites),
    dataset="sft|heldout|preferences",


def stage_resources(stage):
    """Resources of a stage's jobs: GPUs if any, memory, and minutes, which may grow with the attempt."""
    job = getattr(STUDY.resources, stage)
    gpus = {"gpu": job.gpu} if job.gpu else {}
    return {**gpus, "mem_mb": job.mem_mb, "runtime": lambda wildcards, attempt: job.minutes(attempt)}


def contents(files):
    """Digest of local files, read at every run: small ones that lie in the repository, whose clones have new times."""
    return digest([sha256(file) for file in files])


def job_engine(wildcards):
    """The engine of a job: of its suite in stage eval, or else the one that samples."""
    return STUDY.eval.engine_of(wildcards.suite) if "suite" in wildcards.keys() else STUDY.generate.engine


def environment(wildcards):
    """The conda environment of a job: that of its engine."""
    return f"../envs/{'vllm' if job_engine(wildcards) == 'vllm' else 'torch'}.yaml"


def interpreter(wildcards, resources):
    """The Python of a job: of `make setup-vllm` for engine vllm without conda; takes `resources`, as those below."""
    path = Path(".venv-vllm/bin/python").absolute()
    installed = job_engine(wildcards) == "vllm" and path.exists()
    return str(path) if installed and not workflow.deployment_settings.deployment_method else "python"


def saved_state(stage, *names):
    """Where a job keeps what it resumes from; takes `resources`, so Snakemake leaves it out of re-run checks."""
    return lambda wildcards, resources: PATHS.state(stage, *(wildcards[name] for name in names))


def launch(wildcards, threads, resources):
    """What starts a training; a dry run, which has one core, shows it with the threads that it will have on a cluster."""
    on_cluster = workflow.dryrun and workflow.nodes
    return Launch.of(resources, STUDY.resources.train.threads if on_cluster else threads).command()


def untracked_flags(wildcards, threads, resources):
    """Flags that change no result of a training; takes `resources`, so Snakemake leaves them out of re-run checks."""
    return [*FLAGS.untracked_train_flags(wildcards.model), "--processes", str(Launch.of(resources, threads).processes)]
