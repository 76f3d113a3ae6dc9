"""The overlays of docs/your-own.md are read, and plan what the page says; its rule of another workflow runs a study."""

import json
import re
import subprocess
import sys

import pytest
import workflow

from wspin.config.load import read_study

PAGE = (workflow.ROOT / "docs/your-own.md").read_text()
OVERLAYS = dict(re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
BASE = str(workflow.ROOT / "config/config.yaml")


@pytest.fixture
def overlays(tmp_path):
    """Paths of the page's files by name; the folders that they name exist."""
    data = tmp_path / "data"
    for folder in ("model", "teacher", "tasks"):
        (data / folder).mkdir(parents=True)
    (data / "rows").mkdir()
    for split in ("train", "test"):
        rows = [{"prompt": f"{split} {i}", "response": str(i)} for i in range(3)]
        (data / f"rows/{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, text in OVERLAYS.items():
        (tmp_path / name).write_text(text.replace("/data/", f"{data}/"))
    return {name: str(tmp_path / name) for name in OVERLAYS}


def test_every_overlay_is_short_and_read(overlays):
    assert list(overlays) == ["rows.yaml", "model.yaml", "arms.yaml", "teacher.yaml", "tasks.yaml"]
    for name, path in overlays.items():
        assert len(OVERLAYS[name].splitlines()) <= 10
        assert read_study([BASE, path], {}) != read_study([BASE], {})


def test_arms_and_tasks_add_to_the_study_without_changing_it(overlays):
    before, after = read_study([BASE], {}), read_study([BASE, overlays["arms.yaml"], overlays["tasks.yaml"]], {})
    assert {*after.arms} - {*before.arms} >= {"wspin.clamp2", "wspin.clamp2.s43", "spin.s44"}
    assert {name: after.eval.suites[name] for name in before.eval.suites} == before.eval.suites
    assert after.arm_weigh("wspin.clamp2").upper == 2.0
    assert after.arm_weigh("wspin") == before.arm_weigh("wspin")


def test_together_they_are_planned(overlays, tmp_path):
    repository = workflow.checkout(tmp_path / "study")
    plan = repository.plan("all", "--configfile", *overlays.values())
    assert {"results/model/wspin.mistral/ite3/model", "results/model/wspin.clamp2.s44/ite3/model"} <= plan.made("train")
    assert "results/model/logprobs/mistral/gold/00.parquet" in plan.made("logprobs_scorer")
    assert "results/model/wspin/ite3/scores/boolq.json" in plan.made("eval")
    assert len([path for path in plan.made("generate") if path.startswith("results/model/sft/generations")]) == 2


# Inside another workflow


@pytest.fixture
def outer(tmp_path):
    """Runs the page's Snakefile in a folder of its own, with a study of stubs of which it makes the prompts alone."""
    study = workflow.checkout(tmp_path / "study")
    study.use_stubs()
    (program := study.folder / ".venv/bin/snakemake").parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m snakemake "$@"\n')
    program.chmod(0o755)
    (tmp_path / "outer").mkdir()
    *_, text = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    paths = {"/data/wspin": str(study.folder), "/data/mine.yaml": str(study.folder / workflow.TWO_ARMS)}
    paths |= {"local all": "local results/two/data/prompts.parquet"}
    for name, path in paths.items():
        assert name in text
        text = text.replace(name, path)
    (tmp_path / "outer/Snakefile").write_text(text)
    return tmp_path / "outer", study.folder


def start(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(
        command, cwd=folder, env=workflow.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_rule_of_another_workflow_runs_the_study(outer):
    folder, study = outer
    done = start(folder)
    assert done.returncode == 0, done.stdout
    assert (study / "results/two/data/prompts.parquet").exists()
    assert (folder / "spin.done").exists()
    assert "Nothing to be done" in start(folder).stdout


MODULE = """\
module spin:
    snakefile: "../study/Snakefile"
    config: {}

use rule * from spin as spin_*
"""


@pytest.mark.parametrize(
    ("snakefile", "arguments", "found"),
    [
        (MODULE, (), "a module of another Snakefile"),
        ("", ("--snakefile", "../study/Snakefile"), "{folder}"),
        ("", ("--snakefile", "../study/Snakefile", "--directory", "."), "{folder}"),
    ],
)
def test_a_module_and_another_folder_are_refused_in_a_line(outer, snakefile, arguments, found):
    folder, _ = outer
    (folder / "Snakefile").write_text(snakefile)
    done = start(folder, "--dry-run", *arguments)
    expected = f"found {found.format(folder=folder)}; `cd` there (docs/your-own.md)"
    assert done.returncode == 1
    assert done.stdout.strip() == f"Snakefile: expected to start in its own folder, {expected}"
