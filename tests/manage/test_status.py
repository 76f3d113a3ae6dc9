"""What is done, running, interrupted, stale or missing, and how that is told."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import workflow
from attacks import attack
from unfinished import LOG, MODEL, SHARD, SHARD_LOG, STATE, layout, mark, remove, run_began, sample_a_shard, told, write
from users import BOB, as_user, needs_root

import manage
from wspin.config.load import read_study
from wspin.errors import StudyError
from wspin.eval.responses import TaskRequests
from wspin.generate.answer import Answer
from wspin.generate.sampling import AnswerStore
from wspin.manage import job_state
from wspin.manage.job_state import JobState
from wspin.manage.status import cell, table
from wspin.storage import code_hash, provenance
from wspin.storage.locks import locked, show_driver
from wspin.study import jobs
from wspin.study.paths import StudyPaths
from wspin.train import journal


@pytest.fixture
def frozen(monkeypatch):
    """The clock stands still."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


def save_state(*steps):
    for step in steps:
        write(f"{STATE}/checkpoint-{step}/{journal.COMPLETE}", "")
    Path(STATE).mkdir(parents=True, exist_ok=True)
    with locked(Path(STATE)):
        pass  # leaves the lock file of a process that has ended


# The jobs


PLANS = {
    "paper": {},
    "replicate": {"arms": {"wspin.s43": {"seed": 43, "train": {"loss": "wspin"}}}},
    "given": {
        "generate": {"given": "README.md"},  # any file that is there
        "weigh": {"given": "README.md"},
        "arms": {"wspin.paper": None, "wspin.s43": {"seed": 43, "train": {"loss": "wspin"}}},
        "report": {"published": None},
    },
    "forks": {
        "data_window": 3,
        "arms": {
            "late": {"fork": {"from": "spin", "at": 2}, "train": {"loss": "wspin"}},
            "upper": {"fork": {"from": "wspin", "at": 1}, "train": {"loss": "wspin"}, "weigh": {"upper": 1.0}},
            "wide": {"fork": {"from": "wspin", "at": 2}, "data_window": 1},
        },
    },
}


@pytest.mark.parametrize("overlay", PLANS.values(), ids=PLANS)
def test_the_jobs_are_those_of_snakemake(tmp_path, overlay):
    study = workflow.checkout(tmp_path).overlay(overlay)
    done = study.run("--dry-run", "all")
    planned = [job for job in workflow.Plan(done.stdout).jobs if job.rule != "all"]
    logs = re.findall(r"^    log: (.*)$", done.stdout, re.MULTILINE)
    made = layout_of(study)
    found = {
        job for row in (*jobs.rows(made).values(), jobs.other_jobs(made)) for group in row.values() for job in group
    }
    assert {frozenset(job.outputs) - {made.averages} for job in found} == {
        frozenset(job.outputs) - {made.averages} for job in planned
    }
    assert sorted(job.log for job in found) == sorted(logs)


def layout_of(study):
    made = StudyPaths(read_study([study.folder / name for name in ("config/config.yaml", *study.configfiles)]))
    made.averages = "results/tables/averages.csv"  # lies beside the differences
    return made


# What is there


def test_a_finished_study_is_done(here):
    rows, below = told()
    assert list(rows)[:5] == ["base", "teacher", "sft", "dpo", "spin/ite0"]
    plain = dict.fromkeys(jobs.COLUMNS, "done") | {"scorers' logprobs": "-", "weights": "-"}
    assert all(rows[f"{arm}/ite{k}"] == plain for arm in ("spin", "spin2") for k in range(4))
    nothing = dict.fromkeys(jobs.COLUMNS, "-")
    assert rows["sft"] == nothing | {"model": "done", "scores": "done"}
    assert rows["dpo"] == nothing | {"reference": "done", "model": "done", "scores": "done"}
    assert below[:3] == ["data: done", "tables and figures: done", "pages: done"]
    assert re.fullmatch(r"(\d+) of \1 jobs done; no Snakemake is running here", below[3])
    assert len(below) == 4


def test_weights_and_readings_belong_to_the_arms_that_have_them(weighed, monkeypatch):
    monkeypatch.chdir(weighed.folder)
    rows, _ = told(*weighed.configfiles)
    columns = ("scorers' logprobs", "weights")
    for arm, cells in (("spin", ["-", "-"]), ("equal", ["-", "done"])):
        assert all([rows[f"{arm}/ite{k}"][name] for name in columns] == cells for k in range(3))
    assert rows["wspin/ite1"]["scorers' logprobs"] == rows["wspin/ite1"]["weights"] == "done"


def test_what_is_removed_is_missing(here):
    remove(MODEL, SHARD, "results/two/spin/ite0/scores/quick.samples.parquet", "results/two/data/heldout.parquet")
    remove("results/two/tables/scores.csv")
    rows, below = told()
    assert [rows[f"spin/ite{k}"]["model"] for k in range(3)] == ["done", "missing", "done"]
    assert [rows[f"spin/ite{k}"]["generations"] for k in range(4)] == ["done", "done", "1/2", "done"]
    assert [rows[f"spin/ite{k}"]["scores"] for k in range(2)] == ["1/2", "done"]
    assert below[:3] == ["data: 7/8", "tables and figures: 9/10", "pages: done"]
    there, planned = map(int, re.match(r"(\d+) of (\d+) jobs done; ", below[3]).groups())
    assert planned - there == 5


def test_a_model_without_its_manifest_is_missing(here):
    remove("results/two/sft/manifest.json")
    assert told()[0]["sft"]["model"] == "missing"


def test_what_other_code_made_is_stale(here):
    for name, code in (("spin/ite0", "0" * 16), ("spin/ite1", code_hash.code_hash("train"))):
        write(f"results/two/{name}/model/provenance.json", json.dumps({"program": "train", "code": code}))
    write(f"{SHARD}.provenance.json", json.dumps({"program": "generate", "code": "0" * 16}))
    rows, below = told()
    assert [rows[f"spin/ite{k}"]["model"] for k in range(3)] == ["done, stale", "done", "done"]
    assert rows["spin/ite2"]["generations"] == "done, stale"
    remove(SHARD.replace("00", "01"))
    assert told()[0]["spin/ite2"]["generations"] == "1/2, stale"
    assert " jobs done, 2 stale; " in below[3]
    remove(MODEL)
    assert told()[0]["spin/ite1"]["model"] == "missing"


def test_a_fresh_clone_has_nothing(repository, monkeypatch):
    monkeypatch.chdir(repository.folder)
    rows, below = told("config/overlays/demo.yaml")
    assert {text for row in rows.values() for text in row.values()} == {"missing", "-"}
    *groups, summary = below
    assert groups == ["data: missing", "tables and figures: missing", "pages: missing"]
    assert summary.startswith("0 of ")


# What runs


def test_a_training_runs_while_its_state_is_locked(here):
    remove(MODEL)
    write(LOG, "train: 0 of 64 steps\ntrain: 16 of 64 steps  loss 0.5  margin +0.1  90 s left\n", ago=30)
    with locked(Path(STATE)):
        before = Path(f"{STATE}.lock").read_text()
        rows, below = told()
        assert Path(f"{STATE}.lock").read_text() == before
    assert rows["spin/ite1"]["model"] == "running 25 %, 60 s left"
    assert " jobs done, 1 running; " in below[3]
    assert below[4:] == [f"running: {MODEL}: 25 %, 60 s left, last line 30 s ago ({LOG})"]
    assert told()[0]["spin/ite1"]["model"] == "missing"


def test_a_lock_is_looked_at_and_left_alone(tmp_path):
    assert job_state.held(str(tmp_path / "never")) is False
    assert job_state.held(str(tmp_path)) is None  # no file that can be opened
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_ended_has_only_its_saved_state(here):
    remove(MODEL)
    write(LOG, "train: 24 of 64 steps  loss 0.5  90 s left\n")
    save_state(8, 16)
    write(f"{STATE}/checkpoint-24/optimizer.pt", "")  # torn
    rows, below = told()
    assert rows["spin/ite1"]["model"] == "interrupted"
    assert below[4:] == [f"interrupted: {MODEL}: saved at step 16 ({LOG})"]


def test_a_generation_or_evaluation_that_ended_has_what_it_has_finished(here, frozen):
    """A lock beside it, as that of a training, shows that it runs."""
    scores, log = "results/two/spin/ite1/scores/quick.json", "results/two/logs/eval/spin/ite1/quick.log"
    state = "results/two/.state/eval/spin/ite1/quick/0123456789abcdef"
    remove(SHARD, scores)
    write(SHARD_LOG, "generate: 120 of 1200 answers  4.0/s  310 s left\n", ago=500)
    write(log, "eval: 30 of 40 requests  2.5/min  4 min left\n", ago=10)
    answers = write("results/two/.state/generate/spin/ite2/00/0123456789abcdef/answers.jsonl", "")
    write(f"{state}/.{'0' * 32}.json.12345678/{'0' * 32}.json", "")  # torn
    rows, below = told()
    assert (rows["spin/ite2"]["generations"], rows["spin/ite1"]["scores"]) == ("1/2", "1/2")
    answers.write_text("an answer")
    write(f"{state}/{'0' * 32}.json", "responses")
    rows, below = told()
    assert (rows["spin/ite2"]["generations"], rows["spin/ite1"]["scores"]) == ("1/2, interrupted", "1/2, interrupted")
    assert below[4:] == [
        f"interrupted: {scores}: what it has finished is kept ({log})",
        f"interrupted: {SHARD}: what it has finished is kept ({SHARD_LOG})",
    ]
    with locked(Path(state)):
        assert told()[0]["spin/ite1"]["scores"] == "1/2, running 75 %, 4 min left"


def test_the_state_of_a_finished_training_is_no_interruption(here):
    save_state(8)
    assert told()[0]["spin/ite1"]["model"] == "done"


def test_a_marked_job_runs_while_snakemake_lives(here):
    sample_a_shard()
    with contextlib.closing(show_driver()):
        rows, below = told()
    assert rows["spin/ite2"]["generations"] == "1/2, running 10 %, 5 min left"
    assert below[3].endswith("; Snakemake is running here")


def test_a_submitted_job_waits_until_it_says_something(here):
    remove(SHARD)
    write(SHARD_LOG, "generate: 1200 of 1200 answers  4.0/s  0 s left\n", ago=20)  # of an earlier attempt
    mark(SHARD, ago=10)
    with contextlib.closing(show_driver()):
        assert told()[0]["spin/ite2"]["generations"] == "1/2, queued"
        remove(SHARD_LOG)
        assert told()[0]["spin/ite2"]["generations"] == "1/2, queued"


def test_a_marker_of_an_earlier_run_is_an_interruption(here):
    remove(SHARD)
    mark(SHARD, ago=600)
    write(SHARD_LOG, "generate: 120 of 1200 answers  4.0/s  310 s left\n", ago=500)
    run_began(ago=60)
    with contextlib.closing(show_driver()):
        rows, below = told()
    assert rows["spin/ite2"]["generations"] == "1/2, interrupted"
    assert below[4:] == [f"interrupted: {SHARD}: starts anew ({SHARD_LOG})"]


def test_a_file_that_is_there_but_marked_is_not_done(here):
    mark(SHARD, ago=600)
    assert told()[0]["spin/ite2"]["generations"] == "1/2, interrupted"


def test_where_locks_are_not_seen_the_log_tells(here):
    remove(SHARD)
    run_began(ago=900)
    mark(SHARD, ago=800)
    for ago, word in ((20, "running 10 %, 4 min left"), (700, "interrupted")):
        write(SHARD_LOG, "generate: 120 of 1200 answers  4.0/s  240 s left\n", ago=ago)
        assert told()[0]["spin/ite2"]["generations"] == f"1/2, {word}"
    write(SHARD_LOG, "", ago=20)
    remove(".snakemake/locks")  # Snakemake has ended
    assert told()[0]["spin/ite2"]["generations"] == "1/2, interrupted"


def test_a_lock_of_this_node_is_believed_and_one_of_another_is_not(here, frozen):
    remove(MODEL)
    run_began(ago=900)
    mark(MODEL, ago=800)
    save_state(8)
    write(LOG, "train: 16 of 64 steps  loss 0.5  90 s left\n", ago=5)
    assert told()[0]["spin/ite1"]["model"] == "interrupted"
    write(LOG, "train: 16 of 64 steps  loss 0.5  90 s left\n", ago=5)
    Path(f"{STATE}.lock").write_text("4711 on another")
    assert told()[0]["spin/ite1"]["model"] == "running 25 %, 85 s left"


def test_a_training_that_gave_up_has_failed(here):
    remove(MODEL)
    write(LOG, "train: 8 of 64 steps  loss 0.5  90 s left\ntrain.py: error: step 9: loss nan; not finite\n")
    rows, below = told()
    assert rows["spin/ite1"]["model"] == "failed"
    assert below[4:] == [f"failed: {MODEL}: train.py: error: step 9: loss nan; not finite ({LOG})"]


@attack(
    "display",
    "a failed job whose log ends in codes that clear the screen, set the title, hide text or go back on the line",
    "shown as text on the job's line of `status`, long ones cut",
)
def test_the_end_of_a_log_is_text(here):
    remove(MODEL)
    write(LOG, "train.py: error: bad\x1b]0;x\x07\x1b[8m\r\u202edone" + "x" * 3000)
    shown = r"train.py: error: bad\x1b]0;x\x07\x1b[8m\r\u202edone" + "x" * 3000
    assert told()[1][4:] == [f"failed: {MODEL}: {shown[:500]} [...] ({LOG})"]


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (b"", "running"),
        (b"train: 16 of\n", "running"),
        (b"train: x of 64 steps  1 s left\n", "running"),
        (b"train: 0 of 0 steps\n", "running"),
        (b"\xff\x00\xfe", "running"),
        (b"train: " + b"9" * 2000 + b" of 1\n", "running"),
        (b"train: 16 of 64 steps  " + b"9" * 2000 + b" s left\n", "running 25 %"),
        (b"train: 16 of 64 steps, resumed\n", "running 25 %"),
        (b"train: 16 of 64 steps  loss 0.1  7200 s left\ntrain: st", "running 25 %, 2 h 00 min left"),
        (b"train: 8 of 64 steps  loss 0.1  9 s left\n" + b"x" * job_state.TAIL, "running"),
        (b"fetch: data/a.parquet of b: 16 of 64 kB  2.0/s  24 s left\n", "running 25 %, 24 s left"),
        (
            b"weigh: chosen: 32 of 64 answers\nweigh: chosen: 2 of 5 tasks kept from an earlier attempt\n",
            "running 50 %",
        ),
    ],
)
def test_a_broken_log_is_no_error(here, log, text):
    remove(MODEL)
    write(LOG, "")
    Path(LOG).write_bytes(log)
    with locked(Path(STATE)):
        assert told()[0]["spin/ite1"]["model"] == text


def test_files_may_vanish_meanwhile(here, monkeypatch):
    remove(MODEL)
    write("results/two/spin/ite0/model/provenance.json", "{}")
    mark(MODEL)
    write(".snakemake/incomplete/migration_underway", "")
    listed, walk = job_state.glob.glob, os.walk
    gone = base64.urlsafe_b64encode(MODEL.replace("model", "manifest.json").encode()).decode()
    monkeypatch.setattr(job_state.glob, "glob", lambda pattern: [*listed(pattern), f"{STATE}/gone.lock"])
    monkeypatch.setattr(os, "walk", lambda top: [(place, below, [*names, gone]) for place, below, names in walk(top)])
    monkeypatch.setattr(provenance, "record_path", lambda output: Path("gone"))
    rows, _ = told()
    assert rows["spin/ite1"]["model"] == "interrupted"
    assert rows["spin/ite0"]["model"] == "done"


@pytest.mark.parametrize("output", [SHARD, "results/" + "x/" * 300 + "model"])
def test_markers_are_read_as_snakemake_writes_them(tmp_path, output):
    from snakemake.persistence.file import FilePersistence

    class Persistence(FilePersistence):
        def __init__(self):
            self._max_len = None

    write(Persistence()._record_path(str(tmp_path), output), "{}")
    assert list(dict(job_state.markers(tmp_path))) == [output]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "-"),
        (["done"] * 3, "done"),
        (["missing"] * 3, "missing"),
        (["done", "missing"], "1/2"),
        (["running", "running", "queued", "missing"], "0/4, 2 running, queued"),
        (["stale", "done"], "done, stale"),
    ],
)
def test_a_cell_is_short(words, text):
    assert cell([JobState(word) for word in words]) == text


def test_the_time_left_of_several_is_the_last_ones():
    running = [JobState("running", 0.5, 30.0, 1.0), JobState("running", 0.1, 300.0, 1.0), JobState("running")]
    assert cell(running) == "0/3, 3 running, 5 min left"


def test_saved_states_carry_the_journals_mark():
    assert f"checkpoint-*/{journal.COMPLETE}" == job_state.SAVED


def test_kept_files_have_the_names_that_their_stages_give_them(tmp_path):
    store = AnswerStore(tmp_path / "generate/f1e2", 1, 1)
    assert job_state.saved(str(tmp_path / "generate")) is None
    store.add(0, Answer([0], "stop"))
    TaskRequests("generate_until", "demo", []).write(tmp_path / "eval/f1e2", [])
    for stage in ("generate", "eval"):
        assert job_state.saved(str(tmp_path / stage)) == "what it has finished is kept"


# With Snakemake


SLOW = """
import sys, time
print("generate: 300 of 1200 answers  4.0/s  90 s left", flush=True)
time.sleep(600)
"""


def test_a_job_of_a_living_run_that_is_then_killed(here):
    remove(SHARD)
    write("workflow/scripts/generate.py", SLOW)
    log = open("run.log", "w")  # noqa: SIM115
    run = subprocess.Popen(
        here.command(SHARD), env=workflow.environment(), stdout=log, stderr=log, start_new_session=True
    )
    try:
        end = time.monotonic() + 300
        while "300" not in job_state.tail(SHARD_LOG) and time.monotonic() < end:
            time.sleep(0.05)
        rows, below = told()
        assert rows["spin/ite2"]["generations"].startswith("1/2, running 25 %, "), Path("run.log").read_text()
        assert below[3].endswith("; Snakemake is running here")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        log.close()
    os.utime(SHARD_LOG, (time.time() - 3600,) * 2)
    for marker in Path(".snakemake/incomplete").iterdir():
        os.utime(marker, (time.time() - 3700,) * 2)
    rows, below = told()
    assert rows["spin/ite2"]["generations"] == "1/2, interrupted"
    assert below[3].endswith("; no Snakemake is running here: it was killed")


# The program


def test_the_program_is_quick_and_imports_no_torch(root, tmp_path):
    code = "import sys; sys.argv = ['manage.py']; import manage; manage.main(['status']); print('torch' in sys.modules)"
    scripts = root / "workflow/scripts"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(scripts)!r}); {code}"],
        cwd=root,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_the_program_takes_overlays_and_writes_nothing(here, capsys):
    before = {path: path.stat().st_mtime_ns for path in here.folder.rglob("*")}
    manage.main(["status", "--configfile", workflow.TWO_ARMS])
    assert capsys.readouterr().out == table(layout(workflow.TWO_ARMS)) + "\n"
    assert {path: path.stat().st_mtime_ns for path in here.folder.rglob("*")} == before


@pytest.mark.parametrize(("text", "expected"), [("arms: [", "YAML"), ("- 1", "`key: value`")])
def test_a_broken_configuration_is_one_line(here, text, expected):
    Path("edit.yaml").write_text(text)
    with pytest.raises(StudyError, match=f"edit.yaml:1: expected {expected}") as error:
        manage.main(["status", "--configfile", "edit.yaml"])
    assert len(str(error.value).splitlines()) == 1


@needs_root
def test_another_user_who_may_only_read_sees_the_same(here):
    """Locks are tested with files that are open for reading."""
    shutil.rmtree(MODEL)
    save_state(3)
    here.folder.chmod(0o755)
    paths = layout(workflow.TWO_ARMS)
    with locked(Path(STATE)), contextlib.closing(show_driver()):
        before = table(paths)
        assert as_user(BOB, lambda: table(paths)) == before
    assert "running here\nrunning: " in before


# Again and again


def test_watching_prints_the_table_anew_until_it_is_interrupted(here, monkeypatch, capsys):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            remove(MODEL)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    manage.main(["status", "--watch", "5", "--configfile", workflow.TWO_ARMS])
    printed = capsys.readouterr().out
    assert pauses == [5.0] * 3
    assert printed.count("again every 5 s; Ctrl-C ends\n") == 3
    counts = re.findall(r"^(\d+) of \d+ jobs done", printed, re.MULTILINE)
    assert [int(counts[0]) - int(count) for count in counts] == [0, 0, 1]
    assert "\x1b" not in printed


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_pause_is_a_time(here, seconds):
    with pytest.raises(StudyError, match="--watch: expected seconds, more than 0"):
        manage.main(["status", "--watch", seconds, "--configfile", workflow.TWO_ARMS])
