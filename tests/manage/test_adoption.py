"""Copied results are adopted where their records name the present command, and made again where they do not."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import workflow
from snakemake.persistence.file import FilePersistence

import fetch
import manage
from wspin.errors import StudyError
from wspin.manage import adoption, marks
from wspin.manage.adoption import PlannedJob, difference, parse_command
from wspin.storage import provenance
from wspin.study.rule_flags import RuleFlags

RESULTS = "results/two"


def write_records(study):
    """A record beside every first output of a stub, which has written its command there."""
    suffixes = (".json", ".csv", ".pdf", ".parquet", ".md")
    for path in sorted((study.folder / RESULTS).rglob("*")):
        file = path / "file" if path.is_dir() else path
        if file.is_file() and (path.is_dir() or path.suffix in suffixes or path.parent.name == "pages"):
            entry = {"program": "stub", "code": "0", "command": file.read_text().split(), "inputs": {}}
            provenance.write_record(path, entry)


@pytest.fixture
def moved(study, monkeypatch):
    """A study that was copied, of which a setting was edited since: without `.snakemake`, and with other times."""
    write_records(study)
    study = workflow.Repository(shutil.move(study.folder, study.folder.parent / "moved"), study.configfiles)
    shutil.rmtree(study.folder / ".snakemake")
    for age, path in enumerate(sorted((study.folder / RESULTS).rglob("*"), reverse=True)):
        os.utime(path, (1.7e9 + age, 1.7e9 + age))
    monkeypatch.chdir(study.folder)
    return study.overlay({"results": RESULTS, "arms": {"spin2": {"train": {"beta": 0.3}}}})


def adopt(study, capsys):
    """The lines on results that were made otherwise, and the total."""
    manage.main(["adopt", "--configfile", *study.configfiles])
    *others, total = capsys.readouterr().out.splitlines()
    return sorted(others), total


OTHERS = [f"{RESULTS}/spin2/ite{k}/model: made with --beta 0.2, now --beta 0.3" for k in range(4)]


@pytest.mark.fault(
    "storage",
    "results that were copied to another place, with other times and without `.snakemake`",
    "`make adopt` takes over what was made with the present settings; the next run makes the rest",
    "`… results adopted; … made otherwise, which the next run makes again`",
)
def test_copied_results_are_adopted_and_others_made_again(moved, capsys):
    scores = f"{RESULTS}/base/scores/slow.json"
    record = provenance.read_record(provenance.record_path(scores))
    provenance.write_record(scores, {**record, "inputs": {f"{RESULTS}/base/manifest.json": "0"}})
    provenance.record_path(f"{RESULTS}/tables/scores.csv").unlink()
    shutil.rmtree(f"{RESULTS}/spin/ite1/model")
    others, total = adopt(moved, capsys)
    lost = (f"{RESULTS}/spin/ite1/{name}" for name in ("model", "manifest.json", "metrics.jsonl"))
    assert others == [
        f"{scores}: made from another {RESULTS}/base/manifest.json",
        "{}: missing, and with it the record of how {}, {} was made".format(*lost),
        *OTHERS,
        f"{RESULTS}/tables/scores.csv: no record of how it was made",
    ]
    assert total == "82 results adopted; 6 made otherwise, which the next run makes again"
    planned = moved.plan(*(f"{RESULTS}/{arm}/ite3" for arm in ("spin", "spin2")), scores)
    assert planned.counts["train"] == 4
    assert scores in planned.made("eval")
    assert planned.counts["eval"] == 3


KILLED = """
import os, runpy, signal, sys
from snakemake.persistence.file import FilePersistence

moment, result = sys.argv.pop(1), sys.argv.pop(1)
started, write_record = FilePersistence.started, FilePersistence._write_record

def die_if(now, output):
    if (now, output) == (moment, result):
        os.kill(os.getpid(), signal.SIGKILL)

def start(persistence, job, *more):
    die_if("touched", job.output[0])
    started(persistence, job, *more)

def write(persistence, output, record):
    die_if("known as incomplete", output)
    write_record(persistence, output, record)
    die_if("recorded", output)

FilePersistence.started, FilePersistence._write_record = start, write
runpy.run_module("wspin.manage.marks", run_name="__main__", alter_sys=True)
"""


@pytest.mark.faults
@pytest.mark.fault(
    "interruptions",
    "kill -9 of `make adopt`",
    "no result of other settings counts as made with the present ones; the next `make adopt` ends as usual",
    "`Error: Directory cannot be locked.`",
)
@pytest.mark.parametrize("moment", ["touched", "known as incomplete", "recorded"])
def test_a_killed_adoption_takes_nothing_over_that_was_made_otherwise(moved, monkeypatch, capsys, moment):
    run, module = subprocess.run, marks.__name__
    models = [f"{RESULTS}/spin2/ite{k}/model" for k in range(4)]

    def killed(command, **options):
        if module in command:
            command = [command[0], "-c", KILLED, moment, models[0], *command[command.index(module) + 1 :]]
        return run(command, **options)

    monkeypatch.setattr(adoption.subprocess, "run", killed)
    with pytest.raises(StudyError, match=r"^snakemake --touch"):
        adopt(moved, capsys)
    monkeypatch.setattr(adoption.subprocess, "run", run)
    assert [params(model) for model in models] == [marks.OTHER_FLAGS] * 4
    assert set(models) <= set(moved.plan("all").made("train"))
    with pytest.raises(StudyError, match="Directory cannot be locked"):
        adopt(moved, capsys)
    moved.run("--unlock")
    assert adopt(moved, capsys) == (OTHERS, "85 results adopted; 4 made otherwise, which the next run makes again")


def params(output):
    """Of the job that made a result, as Snakemake's metadata has them."""
    return FilePersistence(nolock=True, path=Path(".snakemake"))._read_record(output).params


def test_a_setting_that_is_as_it_was_adopts_again(moved, capsys):
    assert adopt(moved, capsys)[0] == OTHERS
    before = replace(moved, configfiles=moved.configfiles[:-1])
    assert adopt(before, capsys) == ([], "89 results adopted; 0 made otherwise, which the next run makes again")
    assert before.plan(f"{RESULTS}/spin2/ite3").counts.get("train", 0) == 0


def test_a_source_of_the_name_of_its_result_is_no_earlier_place(tmp_path, monkeypatch):
    """A model taken from another study has its path there: `--path results/first/base/model`."""
    monkeypatch.chdir(tmp_path)
    output = f"{RESULTS}/base/model"
    words = ["model", "--path", "results/first/base/model", "--output", output]
    Path(output).mkdir(parents=True)
    job = PlannedJob("fetch", {"model": "base"}, {output}, [output], parse_command(words))
    monkeypatch.setattr(RuleFlags, "fetch", lambda self, model: words[1:3])
    for place in (output, "elsewhere/base/model"):
        entry = {"program": "fetch", "code": "0", "command": ["fetch.py", *words[:-1], place], "inputs": {}}
        provenance.write_record(output, entry)
        assert difference(job, SimpleNamespace(study=None, results=RESULTS)) is None


def test_commands_of_earlier_versions_are_the_present_ones(tmp_path, monkeypatch):
    """Other names of a flag and a sub-command, and flags for files that there were none of; settings still count."""
    monkeypatch.chdir(tmp_path)
    output, read = f"{RESULTS}/wspin/ite0/weights/00.parquet", f"{RESULTS}/logprobs/teacher/gold/00.parquet"
    Path(output).parent.mkdir(parents=True)
    Path(output).touch()
    words = ["new", "--positive-logprobs", read, "--sums", "--k", "1.0", "--output", output]
    job = PlannedJob("weigh", {"model": "m", "shard": "00"}, {output, read}, [output], parse_command(words))
    monkeypatch.setattr(RuleFlags, "weigh", lambda self, model, shard: ["--k", "1.0"])
    for k, expected in (("1.0", None), ("2.0", "made with --k 2.0, now --k 1.0")):
        command = ["weigh.py", "old", "--teacher", read, "--k", k, "--output", output]
        provenance.write_record(output, {"program": "weigh", "code": "0", "command": command, "inputs": {}})
        assert difference(job, SimpleNamespace(study=None, results=RESULTS)) == expected


def test_a_command_is_parsed_into_flags_and_their_values():
    words = ["prompts", "--seed", "1", "0", "--cut", "--lower", "-1.0"]
    assert parse_command(words) == {"": ["prompts"], "--seed": ["1", "0"], "--cut": [], "--lower": ["-1.0"]}


def test_an_edited_source_is_noticed(tmp_path, monkeypatch, scratch_model):
    """The files of a local folder are inputs of its fetch, and what was fetched is one of the rows drawn from it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scratch_model, "given/model")
    Path("given/rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    Path("given/task.yaml").write_text("task: mine\n")
    kinds = {"model": "given/model/config.json", "data": "given/rows.jsonl", "tasks": "given/task.yaml"}
    for kind, file in kinds.items():
        output = f"{RESULTS}/{kind}/model"
        splits = ["--splits", "rows"] if kind == "data" else []
        words = [kind, "--path", str(Path(file).parent), *splits]
        words += ["--output", output, "--output-manifest", f"{RESULTS}/{kind}/manifest.json"]
        monkeypatch.setattr(sys, "argv", ["fetch.py", *words])
        fetch.main(words)
        job = PlannedJob("fetch", {"model": kind}, {file, output}, [output], parse_command(words))
        monkeypatch.setattr(RuleFlags, "fetch", lambda self, model: [])
        study = SimpleNamespace(study=None, results=RESULTS)
        assert difference(job, study) is None
        Path(file).write_text("another")
        assert difference(job, study) == f"made from another {file}"
    assert provenance.manifests(f"{RESULTS}/model/model", None) == [f"{RESULTS}/model/manifest.json"]


def test_the_whole_of_snakemakes_message_is_shown(monkeypatch):
    """A lock's last line alone would not name the lock."""
    printed = "Building DAG of jobs...\nLockException:\nError: Directory cannot be locked.\n/study\nUse --unlock.\n"
    done = SimpleNamespace(returncode=1, stdout=printed)
    monkeypatch.setattr(adoption.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(
        StudyError, match=r"^snakemake --dry-run: Error: Directory cannot be locked\. /study Use --unlock\.$"
    ):
        adoption.planned_jobs([])
