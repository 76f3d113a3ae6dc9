"""`stale` names what other code made; `clean_state` removes states that nobody holds."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import manage
from wspin.errors import StudyError
from wspin.manage import stale
from wspin.storage import code_hash, provenance
from wspin.storage.locks import locked

EVERYTHING_PRESENT = "every result was made by the present code\n"


@pytest.fixture
def results(tmp_path):
    """Results of three programs, all made by the present code."""
    made = {"sft/model": "train", "sft/scores/demo.json": "eval", "data/prompts.parquet": "data"}
    for name, program in made.items():
        output = tmp_path / name
        if name.endswith("model"):
            output.mkdir(parents=True)
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
        command = [f"{program}.py", *(["prompts"] if program == "data" else []), "--output", name]
        record = {"program": program, "code": code_hash.code_hash(program), "command": command}
        provenance.write_record(output, record)
    return tmp_path


def make_old(output):
    record = provenance.read_record(provenance.record_path(output))
    provenance.write_record(output, {**record, "code": "0" * 16})


def test_results_of_the_present_code_are_not_stale(results, capsys):
    manage.main(["stale", "--results", str(results)])
    assert capsys.readouterr().out == EVERYTHING_PRESENT


def test_stale_results_are_named_with_what_makes_them_again(results, capsys):
    model, prompts = results / "sft/model", results / "data/prompts.parquet"
    make_old(model)
    make_old(prompts)
    manage.main(["stale", "--results", str(results)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{prompts}: made by other code of data.py",
        f"{model}: made by other code of train.py",
        "2 stale; add `-R` and the paths of results to your command to make these again, or `-R data train` to re-run "
        "these rules",
    ]


def test_a_record_that_cannot_be_read_is_listed_and_the_others_go_on(results, capsys):
    """Truncated by a full disk, empty, of another type, or damaged."""
    make_old(results / "data/prompts.parquet")
    record = provenance.record_path(results / "sft/model")
    whole = record.read_text()
    for text in (whole[:40], ""):
        record.write_text(text)
        manage.main(["stale", "--results", str(results)])
        first, second, _ = capsys.readouterr().out.splitlines()
        assert first.startswith(f"{record}: expected {'the bytes of its checksum' if text else 'a record'}, found ")
        assert first.endswith("; make the result again")
        assert second == f"{results}/data/prompts.parquet: made by other code of data.py"
    record.write_text('{"program": 1, "code": "x"}')
    provenance.write_record(results / "data/prompts.parquet", {"program": "data", "code": stale.present_hash("data")})
    manage.main(["stale", "--results", str(results)])
    assert capsys.readouterr().out.splitlines() == [
        f"{record}: program: expected a text, found 1; make the result again",
        "every other result was made by the present code",
    ]


def test_the_record_of_an_upload_is_no_job(results, capsys):
    """It holds what reproduces the model and no command."""
    upload = results / ".state/push/spin--ite3"
    upload.mkdir(parents=True)
    (upload / "provenance.json").write_text(json.dumps({"program": "train", "code": "0" * 16}))
    manage.main(["stale", "--results", str(results)])
    assert capsys.readouterr().out == EVERYTHING_PRESENT


def test_what_a_killed_write_leaves_in_a_models_folder_is_no_record(results, capsys):
    """Neither half of a record nor a whole one: the job runs again, and would be counted twice."""
    model = results / "sft/model"
    whole = json.dumps({"program": "train", "code": "0" * 16})
    for digit, text in enumerate((whole, whole[:20])):
        (model / f".provenance.json.0123abc{digit}").mkdir()
        (model / f".provenance.json.0123abc{digit}/provenance.json").write_text(text)
    manage.main(["stale", "--results", str(results)])
    assert capsys.readouterr().out == EVERYTHING_PRESENT


# Every program of a rule that has outputs, with its sub-command and an output
JOBS = {
    name: (
        program,
        [f"workflow/scripts/{program}.py", *([command] if command else []), "--output", "x"],
        re.sub(r"<\w+>|{\w+}", "x", re.search(r'    output:\n.*?"(.*?)"', body)[1]),
    )
    for file in (code_hash.SCRIPTS.parents[1] / "rules").glob("*.smk")
    for name, body in re.findall(r"^rule (\w+):\n((?: .*\n|\n)*)", file.read_text(), re.MULTILINE)
    for program, command in re.findall(r"workflow/scripts/(\w+)\.py(?: ([a-z_]+))?", body)
    if "    output:" in body
}


def test_the_rule_of_a_record_is_the_one_that_made_it():
    for name, (program, command, output) in JOBS.items():
        assert stale.rule(Path(output), {"program": program, "command": command}) == name
    earlier = {"program": "logprobs", "command": ["workflow/scripts/logprobs.py", "teacher"]}
    assert stale.rule(Path("results/logprobs/teacher/gold/00.parquet"), earlier) == "logprobs_scorer"
    names = {
        "fetch",
        "train",
        "logprobs_scorer",
        "generate_answers",
        "generate_examples",
        "weigh_sums",
        "report_examples",
    }
    assert names <= set(JOBS)


def test_snakemake_accepts_every_rule_and_path_that_is_advised(study, capsys):
    """-R takes whole names of rules, and paths of outputs."""
    outputs = {"sft/model": "train", "sft/generations/00.parquet": "generate", "tables/examples.md": "report_examples"}
    for name, rule in outputs.items():
        program, command, _ = JOBS[rule]
        output = study.folder / "results/two" / name
        provenance.write_record(output, {"program": program, "code": "0" * 16, "command": command})
    manage.main(["stale", "--results", str(study.folder / "results/two")])
    *lines, advice = capsys.readouterr().out.splitlines()
    paths = [line.split(": made by")[0].removeprefix(f"{study.folder}/") for line in lines]
    rules = re.search(r"`-R (.+)` to re-run", advice)[1].split()
    assert rules == sorted(outputs.values())
    assert study.plan("all", "-R", *paths).made() >= {f"results/two/{name}" for name in outputs}
    assert study.plan("all", "-R", *rules).made() >= {f"results/two/{name}" for name in outputs}


def test_a_result_of_a_program_that_is_gone_has_a_path_but_no_rule(results, capsys):
    record = {"program": "given", "code": "0" * 16, "command": ["given.py", "answers"]}
    provenance.write_record(results / "sft/scores/demo.json", record)
    manage.main(["stale", "--results", str(results)])
    line, advice = capsys.readouterr().out.splitlines()
    assert line == f"{results}/sft/scores/demo.json: made by other code of given.py"
    assert advice == "1 stale; add `-R` and the paths of results to your command to make these again"


def test_a_result_that_is_gone_is_not_stale(results, capsys):
    make_old(results / "data/prompts.parquet")
    (results / "data/prompts.parquet").unlink()
    manage.main(["stale", "--results", str(results)])
    assert capsys.readouterr().out == EVERYTHING_PRESENT


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(StudyError, match="elsewhere: expected a folder of results"):
        manage.main(["stale", "--results", str(tmp_path / "elsewhere")])


# States


def put_state(folder, size=1000):
    folder.mkdir(parents=True)
    (folder / "state.bin").write_bytes(b"x" * size)
    folder.with_name(folder.name + ".lock").touch()
    return folder


def clean_state(results):
    manage.main(["clean_state", "--results", str(results)])


def test_states_that_nobody_holds_are_removed(tmp_path, capsys):
    states = [
        put_state(tmp_path / ".state/train" / model / "0123456789abcdef", 1_000_000)
        for model in ("sft", "spin/ite0", "wspin.lock/ite0")
    ]
    clean_state(tmp_path)
    assert capsys.readouterr().out == "states removed: 3 (3.0 MB)\n"
    assert not any(state.exists() for state in states)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    clean_state(tmp_path)
    assert capsys.readouterr().out == "states removed: 0 (0.0 MB)\n"


def test_a_state_that_is_held_is_left_alone_and_named(tmp_path, capsys):
    busy, idle = (
        put_state(tmp_path / ".state/train" / "sft" / name) for name in ("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb")
    )
    inner = busy / "cache" / "inner"
    put_state(inner)  # a lock inside a state is that job's own business
    with locked(busy):
        clean_state(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"{busy}: held by a running process; left alone",
        "states removed: 1 (0.0 MB)",
    ]
    assert (busy / "state.bin").exists()
    assert (inner / "state.bin").exists()
    assert not idle.exists()


def test_no_state_at_all_is_no_error(tmp_path, capsys):
    clean_state(tmp_path / "never")
    assert capsys.readouterr().out == "states removed: 0 (0.0 MB)\n"


def test_two_runs_at_once_share_the_work(tmp_path):
    for number in range(200):
        put_state(tmp_path / ".state/train" / f"m{number % 5}" / f"{number:016x}")
    command = [sys.executable, manage.__file__, "clean_state", "--results", str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    told = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert sum(int(text.splitlines()[-1].split()[2]) for text in told) == 200
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def hashes():
    """The hash of every program as it is."""
    return {path.stem: code_hash.code_hash(path.stem) for path in code_hash.SCRIPTS.glob("*.py")}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of the programs and the library, whose code is hashed."""
    copy = tmp_path / "scripts"
    shutil.copytree(code_hash.SCRIPTS, copy)
    monkeypatch.setattr(code_hash, "SCRIPTS", copy)
    return copy


@pytest.mark.parametrize(
    ("module", "programs"),
    [
        ("weigh/alignment", {"weigh", "report_histograms", "report_tokens"}),
        ("weigh/weights", {"weigh", "report_tokens"}),
        ("weigh/inputs", {"weigh", "report_tokens"}),
        ("report/answers", {"report_answers"}),
        ("report/token_page", {"report_tokens"}),
        ("report/token_rows", {"report_tokens"}),
        ("train/losses", {"train"}),
        ("study/paths", set()),
        ("study/rule_flags", set()),
        ("config/study", set()),
        ("report/bootstrap", {"report", "report_figure", "report_pooled", "report_reproduction", "report_tests"}),
        ("report/reproduction", {"report_figure", "report_reproduction"}),
        ("progress", set()),
        ("errors", set()),
    ],
)
def test_a_module_is_the_code_of_the_programs_that_compute_with_it(hashes, scripts, module, programs):
    """An edit of the alignment must not make trainings and a teacher's readings look old, or drop saved states."""
    with open(scripts / f"wspin/{module}.py", "a") as file:
        file.write("\nEDITED = True\n")
    assert {program for program, before in hashes.items() if code_hash.code_hash(program) != before} == programs


NESTED = {
    "wspin/outer/__init__.py": "",
    "wspin/outer/inner/__init__.py": "",
    "wspin/outer/inner/deep.py": "from ..beside import VALUE\n",
    "wspin/outer/beside.py": "VALUE = 1\n",
    "wspin/outer/alone.py": "VALUE = 1\n",
}


@pytest.mark.parametrize(
    "line",
    [
        "from wspin.outer.inner.deep import VALUE",
        "from wspin.outer.inner import deep",
        "import wspin.outer.inner.deep",
        "def late():\n    from wspin.outer.inner.deep import VALUE",
    ],
)
def test_imports_are_followed_into_packages(scripts, line):
    """However a module of a package is named: by absolute names, by relative ones of any depth, late in a function."""
    for name, text in NESTED.items():
        (scripts / name).parent.mkdir(parents=True, exist_ok=True)
        (scripts / name).write_text(text)
    with open(scripts / "weigh.py", "a") as file:
        file.write(f"\n{line}\n")
    covered = {path.relative_to(scripts).as_posix() for path in code_hash.code_files("weigh")}
    assert {name for name in NESTED if name in covered} == NESTED.keys() - {"wspin/outer/alone.py"}
    before = code_hash.code_hash("weigh")
    (scripts / "wspin/outer/beside.py").write_text("VALUE = 2\n")
    assert code_hash.code_hash("weigh") != before


@pytest.mark.parametrize("program", ["x" * 300, "../../outside", "a\0b"])
def test_a_record_of_no_program_of_the_study_is_stale(program, tmp_path, monkeypatch):
    """Its name is no path: no other file is read, and a long one is no error."""
    (tmp_path / "workflow/scripts").mkdir(parents=True)
    (tmp_path / "outside.py").write_text("(")
    monkeypatch.setattr(stale, "SCRIPTS", tmp_path / "workflow/scripts")
    monkeypatch.setattr(stale, "code_hash", lambda program: pytest.fail("read"))
    assert stale.present_hash.__wrapped__(program) is None
