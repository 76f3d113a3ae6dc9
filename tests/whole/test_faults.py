"""Killed workflows, orphaned trainings, full disks, broken files.

The marker `faults` is on what runs a whole study with the real programs: a small demo, a minute or two each time.
"""

import resource
import shutil
import signal
import subprocess
import sys

import pytest
import workflow
import yaml
from runs import DEMO, SMALL, Run, in_training, results, small_demo

from wspin.config.load import load_study
from wspin.config.study import merge
from wspin.models import folders
from wspin.storage import tables
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

LAST = "wspin/ite1"  # the iteration that is interrupted


@pytest.fixture
def start():
    """Starts `make`, and ends what is left of it."""
    runs = []

    def started(folder, *targets):
        runs.append(Run(folder, ["make", "--old-file=setup", *targets]))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()


# A dead workflow's lock


@pytest.mark.faults
def test_a_lock_is_cleared_only_after_its_workflow_is_dead(study, start):
    (study.folder / "workflow/scripts/train.py").write_text("import time\ntime.sleep(600)\n")
    shutil.rmtree(study.folder / "results/two/spin/ite3/model")
    command = "snakemake --profile local models --configfile " + workflow.TWO_ARMS
    targets = ["--eval", "unlock: ; $(UNLOCK)", "--eval", f"study: ; $(UNLOCK) && {command}"]
    run = start(study.folder, *targets, "study")
    run.wait_for(lambda: run.members("workflow/scripts/train.py"))
    locks = study.folder / ".snakemake/locks"

    start(study.folder, *targets, "unlock").finish()
    assert list(locks.iterdir())
    assert "LockException" in study.run("models").stdout

    run.kill()
    assert "LockException" in study.run("models").stdout
    study.use_stubs()
    start(study.folder, *targets, "study").finish()
    assert study.plan("all").jobs == []


# Disks and files that fail


@pytest.fixture(scope="session")
def jobs(tmp_path_factory, scratch_model):
    """Command lines of programs that have all they need, by name; outputs go to the folder `made`."""
    folder = tmp_path_factory.mktemp("jobs")
    commands = RuleFlags(StudyPaths(load_study(merge(*(yaml.safe_load(file.read_text()) for file in SMALL)), SMALL)))
    words = [f"word{number}" for number in range(8)]
    rows = {"prompt_id": words, "prompt": words, "response": words, "split": ["train"] * len(words)}
    tables.write(folder / "prompts.parquet", "prompts", rows, {})
    folders.write_manifest(scratch_model, folder / "manifest.json")
    shard = {"responses": "sft", "shard": "00"}
    flags = {
        "generate": commands.generate(**shard),
        "train": [*commands.train("sft"), *commands.untracked_train_flags("sft"), "--processes", "1"],
        "logprobs": commands.logprobs_reference(**shard),
    }
    model, rows = f"--model {scratch_model} --manifest manifest.json", "--rows prompts.parquet"
    files = {
        "generate": f"{model} --prompts prompts.parquet --output made/00.parquet --state state/answers",
        "train": f"{model} {rows} --output made/model --output-manifest made/manifest.json "
        "--metrics made/metrics.jsonl",
        "logprobs": f"reference {model} {rows} --generations answers.parquet --output made/00.parquet",
    }
    programs = workflow.ROOT / "workflow/scripts"
    return folder, {name: [programs / f"{name}.py", *files[name].split(), *flags[name]] for name in files}


def run_job(jobs, name, largest_file=None, **replaced):
    """(exit code, lines of errors) of a program, whose files may be limited in size."""
    folder, commands = jobs
    limit = (largest_file or resource.RLIM_INFINITY,) * 2
    done = subprocess.run(
        [sys.executable, *(replaced.get(word, word) for word in commands[name])],
        cwd=folder,
        env=workflow.environment(),
        text=True,
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(("name", "room"), [("generate", 700), ("train", 20_000)])
def test_a_full_disk_is_one_line_and_leaves_no_output(jobs, name, room):
    """A limit on the size of files stands for the disk: writing an answer file, or a state's weights, fails midway."""
    shutil.rmtree(jobs[0] / "made", ignore_errors=True)
    code, lines = run_job(jobs, name, largest_file=room)
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith(f"{name}.py: error: ")
    assert "File too large" in lines[0]
    assert [file for file in (jobs[0] / "made").rglob("*") if file.is_file()] == []


def test_an_output_that_cannot_be_made_is_one_line(jobs):
    (jobs[0] / "a file").write_text("in the way of a folder")
    code, lines = run_job(jobs, "generate", **{"made/00.parquet": "a file/00.parquet"})
    assert (code, lines) == (1, ["generate.py: error: a file: File exists"])


def test_a_broken_shard_is_one_line(jobs):
    folder = jobs[0]
    assert run_job(jobs, "generate", **{"made/00.parquet": "answers.parquet"}) == (0, [])
    whole = (folder / "answers.parquet").read_bytes()
    (folder / "answers.parquet").write_bytes(whole[: len(whole) // 2])
    code, lines = run_job(jobs, "logprobs")
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("logprobs.py: error: answers.parquet: expected ")


# Whole studies


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """A small demo, run once from nothing to its table."""
    copy = small_demo(tmp_path_factory.mktemp("uninterrupted"))
    run = Run(copy.folder, ["make", "--old-file=setup", "demo"])
    try:
        run.finish()
    finally:
        run.kill()
    return copy


@pytest.fixture
def unfinished(uninterrupted, tmp_path):
    """The same without the last iteration's model and what followed from it."""
    copy = uninterrupted.copy(tmp_path / "unfinished")
    last = copy.folder / DEMO / LAST
    for name in ("model", "scores"):
        shutil.rmtree(last / name)
    for name in ("manifest.json", "metrics.jsonl"):
        (last / name).unlink()
    shutil.rmtree(copy.folder / DEMO / ".state")
    return copy


@pytest.mark.faults
def test_two_runs_from_scratch_are_equal(uninterrupted, tmp_path, start):
    start(small_demo(tmp_path / "again").folder, "demo").finish()
    first, second = results(uninterrupted.folder), results(tmp_path / "again")
    assert {"sft/generations/00.parquet", "spin/ite1/model/model.safetensors", "spin/ite1/manifest.json"} <= set(first)
    assert {"sft/reference/00.parquet", "spin/ite1/scores/demo.samples.parquet", "tables/scores.md"} <= set(first)
    assert {"wspin/ite1/weights/00.parquet", "logprobs/teacher/gold/00.parquet"} <= set(first)
    assert {"tables/differences.tex", "tables/weights.csv", "figures/averages.pdf"} <= set(first)
    assert first == second


@pytest.mark.faults
def test_equal_weights_give_spins_models_byte_for_byte(uninterrupted):
    """And its answers, log-probabilities, curves and scores; the weighted arm gives others."""
    weighted = ("/weights/", "/tokens.html")  # what `spin` does not have
    found = {name: of for name, of in results(uninterrupted.folder).items() if not any(map(name.count, weighted))}
    arms = {
        arm: {name.removeprefix(f"{arm}/"): digest for name, digest in found.items() if name.startswith(f"{arm}/")}
        for arm in ("spin", "equal", "wspin")
    }
    assert {"ite0/model/model.safetensors", "ite1/model/model.safetensors", "ite1/metrics.jsonl"} <= set(arms["spin"])
    assert arms["equal"] == arms["spin"]
    assert arms["wspin"].keys() == arms["spin"].keys()
    assert not [name for name in arms["spin"] if "manifest" in name and arms["wspin"][name] == arms["spin"][name]]


@pytest.mark.faults
def test_killed_in_mid_training_the_study_resumes_and_ends_the_same(uninterrupted, unfinished, start):
    folder = unfinished.folder
    run = start(folder, "demo")
    run.wait_for(lambda: in_training(folder))
    run.kill()
    assert not (folder / DEMO / LAST / "model").exists()
    assert list((folder / ".snakemake/locks").iterdir())

    start(folder, "demo").finish()
    log = (folder / DEMO / f"logs/train/{LAST}.log").read_text()
    assert ", resumed" in log
    assert [line for line in log.splitlines() if not line.startswith(("train: ", "commit: "))] == []  # of its libraries
    assert results(folder) == results(uninterrupted.folder)


@pytest.mark.faults
def test_an_orphaned_training_is_waited_for_and_the_study_ends_the_same(uninterrupted, unfinished, start):
    folder = unfinished.folder
    run = start(folder, "demo")
    run.wait_for(lambda: in_training(folder))
    (orphan,) = run.members("workflow/scripts/train.py")
    orphan.suspend()  # so that it lives as long as we like
    (snakemake,) = run.members("--profile")
    snakemake.send_signal(signal.SIGKILL)
    run.process.wait()

    again = start(folder, "demo")
    again.wait_for(lambda: f"held by process {orphan.pid}" in again.told())
    orphan.resume()
    again.finish()
    assert run.members() == []
    assert results(folder) == results(uninterrupted.folder)


@pytest.mark.faults
def test_a_finished_demo_has_nothing_to_do(uninterrupted, start):
    before = results(uninterrupted.folder)
    run = start(uninterrupted.folder, "demo")
    run.finish()
    assert "Nothing to be done" in run.told()
    assert "\n| spin/ite1 " in run.told()
    assert "\n| wspin/ite1 - spin/ite1 " in run.told()
    assert results(uninterrupted.folder) == before
