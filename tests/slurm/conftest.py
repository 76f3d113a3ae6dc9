"""The cluster of these tests, and studies that run on it."""

import contextlib
import json
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import workflow
import yaml
from runs import DEMO, Run, in_training

sys.path.insert(0, str(Path(__file__).parent))

import cluster as slurm

CONFIG = ("config/overlays/demo.yaml", "tests/configs/small.yaml", "tests/configs/cluster.yaml")
SITE = "tests/slurm/site"
IMPATIENT = "tests/slurm/impatient.py"
FIRST, LAST = "wspin/ite0", "wspin/ite1"  # the iterations whose trainings are interrupted


def pytest_collection_modifyitems(items):
    """Whatever needs the cluster is skipped, with the reason, where there can be none."""
    if reason := slurm.missing():
        for item in items:
            if "cluster" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with two stand-in GPUs each, and memory for one of the demo's GPU jobs: two shards need both nodes."""
    made = slurm.Cluster(Path(tempfile.mkdtemp(prefix="slurm-")), gpus=2, memory=3900)
    with slurm.alone():
        try:
            made.up()
        except RuntimeError as error:  # of a machine that lets no daemon be started, or has no address but 127.0.0.1
            made.down()
            pytest.skip(f"no SLURM can be started here: {error}")
        try:
            yield made
        finally:
            made.down()


@dataclass(frozen=True)
class Job:
    """What SLURM knows of a job."""

    fields: dict[str, str]

    @property
    def rule(self) -> str:
        return re.match(r"rule_(\w+?)(?:_wildcards_|$)", self.fields["Comment"])[1]

    @property
    def gpus(self) -> int:
        found = re.search(r"gpu:(\d+)", self.fields.get("TresPerJob", "") + self.fields.get("TresPerNode", ""))
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Study:
    """A study that runs on the cluster, in its own copy of the repository."""

    folder: Path
    runs: list

    def start(self, *targets, options=()):
        """Start `snakemake --profile slurm`."""
        profiles = ["--profile", "slurm", "--profile", SITE]
        command = [sys.executable, IMPATIENT, *profiles, *targets, *options, "--configfile", *CONFIG]
        self.runs.append(Run(self.folder, command))
        return self.runs[-1]

    def jobs(self, rule=""):
        """All jobs that were submitted for this study, ended ones included."""
        told = slurm.run("scontrol", "--all", "--oneliner", "show", "job", check=False)
        found = [Job(dict(re.findall(r"(\w+(?::\w+)?)=(\S*)", line))) for line in told.splitlines()]
        return [
            job for job in found if job.fields.get("WorkDir") == str(self.folder) and (not rule or job.rule == rule)
        ]

    def training(self):
        """The training process of this study that runs, if there is one."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.cwd() == str(self.folder) and "workflow/scripts/train.py" in process.cmdline()
                if ours and "python" in Path(process.exe()).name and process.status() != psutil.STATUS_ZOMBIE:
                    return process
        return None

    def suspended_training(self, run, model=LAST):
        """The training of a model, stopped in the middle, after it has gone on from a saved state."""
        run.wait_for(lambda: in_training(self.folder, model), seconds=900)
        process = self.training()
        process.suspend()
        return process

    def saved(self, model=LAST):
        """The step of a training's last saved state."""
        marks = (self.folder / DEMO / ".state/train" / model).glob("*/checkpoint-*/complete")
        return max(int(mark.parent.name.removeprefix("checkpoint-")) for mark in marks)

    def log(self, stage, model):
        """A program's log; nothing before it has begun."""
        file = self.folder / DEMO / f"logs/{stage}/{model}.log"
        return file.read_text() if file.exists() else ""

    def curve_so_far(self, model=LAST):
        """Lines of a training's curve in its state."""
        (curve,) = (self.folder / DEMO / ".state/train" / model).glob("*/metrics.jsonl")
        return curve.read_text().splitlines()

    def losses(self, folder=None, model=LAST):
        """Loss of every step of a training of this study, or of another copy."""
        lines = ((folder or self.folder) / DEMO / model / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    def size_of_a_state(self, model="sft"):
        """Bytes of a saved state: weights and two moments."""
        return 3 * (self.folder / DEMO / model / "model/model.safetensors").stat().st_size

    def slurm_log(self, rule):
        """What SLURM kept of a rule's jobs."""
        files = sorted((self.folder / "logs/slurm" / f"rule_{rule}").rglob("*.log"))
        return "\n".join(file.read_text(errors="replace") for file in files)

    def refused(self, *targets, options=()):
        """What a start tells that must fail."""
        run = self.start(*targets, options=options)
        run.finish(expect=1)
        return run.told()

    def unlock(self):
        self.start(options=["--unlock"]).finish()

    def set_gpus(self, count):
        """GPUs of a training, in the study's configuration."""
        file = self.folder / CONFIG[-1]
        edited = yaml.safe_load(file.read_text()) | {"resources": {"train": {"gpu": count}}}
        file.write_text(yaml.safe_dump(edited, sort_keys=False))

    def steps(self, model):
        """The step of every line of a training's curve."""
        text = (self.folder / DEMO / model / "metrics.jsonl").read_text()
        return [int(number) for number in re.findall(r'^\{"step": (\d+),', text, re.MULTILINE)]


@pytest.fixture
def on_cluster(cluster):
    """Makes studies, and ends what is left of their runs and jobs."""
    made = []

    def study(folder):
        made.append(Study(folder, []))
        return made[-1]

    yield study
    for one in made:
        for run in one.runs:
            run.kill()
        left = [job.fields["JobId"] for job in one.jobs() if job.fields["JobState"] in ("PENDING", "RUNNING")]
        if left:
            slurm.run("scancel", *left, check=False)
        while process := one.training():
            process.send_signal(signal.SIGKILL)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(10)


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """The study, run from nothing to its first iteration on this machine."""
    copy = workflow.checkout(tmp_path_factory.mktemp("first") / "study", *CONFIG)
    copy.make(f"{DEMO}/{FIRST}")
    return copy.folder


def extended(folder, target, to):
    """A copy of a study, run on to a target."""
    copy = workflow.Repository(folder, CONFIG).copy(to / "study")
    copy.make(target)
    return copy.folder


@pytest.fixture(scope="session")
def local(first, tmp_path_factory):
    """The study to its last iteration, likewise."""
    return extended(first, f"{DEMO}/{LAST}", tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def finished(local, tmp_path_factory):
    """The whole study, both arms and the tables, likewise."""
    return extended(local, "all", tmp_path_factory.mktemp("finished"))


@pytest.fixture
def fresh(tmp_path, on_cluster):
    """The study on the cluster, of which nothing has been made."""
    return on_cluster(workflow.checkout(tmp_path / "study").folder)


@pytest.fixture
def started(first, tmp_path, on_cluster):
    """The study on the cluster, of which the rows and the SFT model have been made."""
    folder = workflow.checkout(tmp_path / "study").folder
    shutil.copytree(first / ".snakemake/metadata", folder / ".snakemake/metadata")
    for name in ("fetched", "data", "base", "sft/model", "sft/manifest.json", "sft/metrics.jsonl"):
        source, target = first / DEMO / name, folder / DEMO / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    return on_cluster(folder)


@pytest.fixture
def unfinished(local, tmp_path, on_cluster):
    """The finished study without the last model of `wspin` and what follows from it."""
    study = on_cluster(Path(shutil.copytree(local, tmp_path / "study")))
    last = study.folder / DEMO / LAST
    for name in ("model", "scores"):
        shutil.rmtree(last / name)
    for name in ("manifest.json", "metrics.jsonl"):
        (last / name).unlink()
    shutil.rmtree(study.folder / DEMO / ".state")
    return study
