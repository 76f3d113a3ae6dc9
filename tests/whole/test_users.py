"""Two users who share a group work in one study; a third, of another group, reads it. Needs root, who becomes each."""

import shutil
import stat
import sys

import pytest
import sharing
import workflow
import yaml
from attacks import attack
from runs import Run

from wspin.config.load import load_study
from wspin.config.study import merge
from wspin.models import folders
from wspin.storage import tables
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

SMALL = [
    workflow.ROOT / file for file in ("config/config.yaml", "config/overlays/demo.yaml", "tests/configs/small.yaml")
]
TINY = {"train": {"global_batch": 4, "save_every": 1, "sft": {"epochs": 1}}, "generate": {"max_new_tokens": 4}}
STATUS = ("workflow/scripts/manage.py", "status", "--configfile", workflow.TWO_ARMS)


def stub_study(folder, owner):
    """A user's study in a new folder, with stubs for programs, except `status`."""
    study = workflow.checkout(folder, workflow.TWO_ARMS)
    study.use_stubs()
    shutil.copy(workflow.ROOT / STATUS[0], folder / STATUS[0])
    sharing.share(folder, owner)
    return study


@pytest.fixture
def place():
    """(a folder that all can enter, anna and ben of the study's group, guest of another)"""
    with sharing.shared_place() as place_and_users:
        yield place_and_users


def closed_to_group(folder):
    """What is below a folder and not open to its group."""
    read_and_write = stat.S_IRGRP | stat.S_IWGRP
    return [path for path in folder.rglob("*") if path.lstat().st_mode & read_and_write != read_and_write]


@pytest.mark.faults
def test_two_users_take_turns_in_one_study(place):
    folder, anna, ben, guest = place
    study = stub_study(folder / "study", anna)
    model = study.folder / "results/two/spin/ite0/model"

    anna.make(study.folder, *study.command("results/two/data/prompts.parquet"))
    ben.make(study.folder, *study.command("results/two/spin/ite0"))
    assert model.stat().st_uid == ben.uid
    edited = study.command("results/two/spin/ite0", "--config", 'train={"beta": 0.3}')
    anna.make(study.folder, *edited)
    assert (model.stat().st_uid, (model / "file").stat().st_uid) == (anna.uid, anna.uid)
    assert closed_to_group(study.folder / "results") == closed_to_group(study.folder / ".snakemake") == []
    for user in (anna, ben, guest):
        assert "spin/ite0  " in user.make(study.folder, sys.executable, *STATUS)
    refused = guest.run(study.folder, *edited, "--dry-run").stdout.splitlines()
    assert refused[-1].startswith(".snakemake: expected permission to write there, found a folder of 7001 ")


@pytest.mark.faults
def test_a_study_that_one_users_kill_left_locked_is_taken_over_by_another(place):
    folder, anna, ben, _ = place
    study = stub_study(folder / "study", anna)
    train = study.folder / "workflow/scripts/train.py"
    train.write_text("import time\ntime.sleep(600)\n")
    command = study.command("results/two/spin/ite0/model")
    run = Run(study.folder, anna.command(*command), anna.environment())
    try:
        run.wait_for(lambda: run.members("workflow/scripts/train.py"))
        unlock = ["make", "--old-file=setup", "--eval", "unlock: ; $(UNLOCK)", "unlock"]
        ben.make(study.folder, *unlock)
        assert list((study.folder / ".snakemake/locks").iterdir()), "the lock of a live run stays"
    finally:
        run.kill()
    assert "LockException" in ben.run(study.folder, *command).stdout
    ben.make(study.folder, *unlock)
    shutil.copy(workflow.ROOT / "tests/stub.py", train)
    ben.make(study.folder, *command)
    assert (study.folder / "results/two/spin/ite0/model").stat().st_uid == ben.uid


@attack(
    "shared folders",
    "a study whose folders another user made without write permission for the group (umask 022)",
    ".snakemake: expected permission to write there, found a folder of 7001 (mode 2755, group 7000); "
    "ask 7001 for `chmod g+w`, and begin studies with `umask 002` (docs/cluster.md: a study that several people share)",
)
def test_a_study_of_another_users_alone_is_one_line_before_anything_runs(finished, place, outcome):
    folder, anna, ben, _ = place
    study = finished.copy(folder / "study")
    sharing.share(study.folder, anna)
    for path in (study.folder, *study.folder.rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~stat.S_IWGRP)
    command = study.command("tables", "--forcerun", "report_scores")
    assert ben.run(study.folder, *command, "--dry-run").stdout.splitlines()[-1] == outcome

    for path in (study.folder / ".snakemake", *(study.folder / ".snakemake").rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWGRP)
    command = study.command("results/two/new/ite0/model", "--config", 'arms={"new": {"train": {"beta": 0.4}}}')
    done = ben.run(study.folder, *command)
    assert done.stdout.strip().splitlines()[-1] == outcome.replace(".snakemake", "results/two")
    assert "rule train" not in done.stdout
    assert not list((study.folder / ".snakemake").glob("locks/*"))


@attack(
    "shared folders",
    "a link in place of a job's benchmark, through which Snakemake would write into a file of whoever runs it",
    "results/two/benchmarks/report/scores.tsv: expected a file of the study, found a link to {target}; remove it",
)
def test_no_benchmark_is_written_through_a_link(study, tmp_path, outcome):
    """Logs and outputs Snakemake removes before a job."""
    target, benchmark = tmp_path / "private", study.folder / "results/two/benchmarks/report/scores.tsv"
    target.write_text("mine")
    benchmark.unlink()
    benchmark.symlink_to(target)
    done = study.run("results/two/tables/scores.md", "--forcerun", "report_scores")
    assert (done.stdout.splitlines()[-1], target.read_text()) == (outcome.format(target=target), "mine")


# The programs alone


@pytest.fixture
def programs(place, scratch_model):
    """(users, the study's folder, the command lines of a training and of a generation of the model that it makes)"""
    folder, *everyone = place
    study = workflow.checkout(folder / "study").folder
    shutil.copytree(scratch_model, study / "base")
    folders.write_manifest(study / "base", study / "base.json")
    words = [f"word{number}" for number in range(8)]
    rows = {"prompt_id": words, "prompt": words, "response": words, "split": ["train"] * len(words)}
    tables.write(study / "prompts.parquet", "prompts", rows, {})
    sharing.share(study, everyone[0])

    merged = merge(*(yaml.safe_load(file.read_text()) for file in SMALL), TINY)
    flags = RuleFlags(StudyPaths(load_study(merged, SMALL)))
    made = "--output made/model --output-manifest made/manifest.json --metrics made/metrics.jsonl --processes 1"
    train = f"train.py --model base --manifest base.json --rows prompts.parquet {made}".split()
    train += [*flags.train("sft"), *flags.untracked_train_flags("sft")]
    made = "--output made/00.parquet --state made/state"
    generate = f"generate.py --model made/model --manifest made/manifest.json --prompts prompts.parquet {made}".split()
    generate += flags.generate(responses="sft", shard="00")
    python = (sys.executable, "-B")
    return everyone, study, [(*python, f"workflow/scripts/{name}", *rest) for name, *rest in (train, generate)]


@pytest.mark.faults
@attack(
    "shared folders",
    "a saved state that another user alone may read",
    "train.py: error: {state}: expected permission to read it, found a file of 7001 (mode 0600, group 7000); "
    "ask 7001 for `chmod g+r`",
)
def test_a_training_resumes_from_another_users_state_and_replaces_their_model(programs, outcome):
    """A state that may not be read is not taken for a damaged one, whose steps are repeated."""
    (anna, ben, _), study, (train, generate) = programs
    made = study / "made"
    anna.make(study, *train)
    ben.make(study, *generate)
    answers = (made / "00.parquet").read_bytes()

    (state,) = study.glob("results/demo/.state/train/sft/*/checkpoint-2/model.safetensors")
    state.chmod(0o600)
    refused = ben.run(study, *train).stdout.splitlines()[-1]
    state.chmod(0o660)
    assert "train: 2 of 2 steps, resumed" in ben.make(study, *train)
    assert (made / "model/model.safetensors").stat().st_uid == ben.uid
    anna.make(study, *generate)
    assert (made / "00.parquet").stat().st_uid == anna.uid
    assert (made / "00.parquet").read_bytes() == answers
    assert closed_to_group(made) == []
    assert refused == outcome.format(state=state.relative_to(study))


# A whole study


@pytest.mark.faults
def test_one_user_generates_another_trains_and_both_look_after_the_study(place):
    """With the real programs; the second user's edit replaces what the first has made, and the first's the second's."""
    folder, anna, ben, guest = place
    study = workflow.checkout(folder / "study", "config/overlays/demo.yaml", "tests/configs/small.yaml")
    study = study.overlay(merge(TINY, {"data": {"sft": {"reasoning_gym": {"rows": 100}, "prompts": 8, "shard": 8}}}))
    sharing.share(study.folder, anna)
    results = study.folder / "results/demo"
    owners = {"sft/generations/00.parquet": anna, "spin/ite0/model": ben, "spin/ite0/scores/demo.json": ben}

    def manage(user, command):
        return user.run(study.folder, sys.executable, STATUS[0], command, "--results", results)

    anna.make(study.folder, *study.command("results/demo/sft/generations/00.parquet"))
    ben.make(study.folder, *study.command("results/demo/spin/ite0"))
    assert {name: (results / name).stat().st_uid for name in owners} == {
        name: user.uid for name, user in owners.items()
    }
    anna.make(study.folder, *study.command("results/demo/spin/ite0", "--config", 'train={"beta": 0.5}'))
    assert (results / "spin/ite0/model").stat().st_uid == anna.uid
    ben.make(study.folder, *study.command("results/demo/spin/ite0", "--config", "seed=43"))
    assert {(results / name).stat().st_uid for name in owners} == {ben.uid}
    assert closed_to_group(results) == closed_to_group(study.folder / ".snakemake") == []

    for user in (anna, ben):
        done = {command: manage(user, command) for command in ("stale", "cost", "cards", "clean_state")}
        assert {command: run.returncode for command, run in done.items()} == dict.fromkeys(done, 0)
        assert done["stale"].stdout == "every result was made by the present code\n"
        assert done["cards"].stdout.endswith("of 3; the others are up to date\n")
    assert manage(guest, "stale").returncode == 0
    assert "found a f" in manage(guest, "cost").stdout
