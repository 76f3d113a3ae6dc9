"""What holds for the files of the repository, whatever they compute."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import page_commands
import pytest
import workflow
import yaml

from wspin.config.load import load_study, merge
from wspin.study.paths import StudyPaths

ROOT = Path(__file__).parents[2]
RULE_FILES = sorted(ROOT.glob("rules/*.smk"))
PROGRAMS = sorted(ROOT.glob("workflow/scripts/*.py"))
LIBRARY = sorted(ROOT.glob("workflow/scripts/wspin/**/*.py"))
PROFILES = [ROOT / "local/config.yaml", ROOT / "slurm/config.yaml"]
HASHES = ROOT / "envs/hashes.txt"
RULE = re.compile(r"^rule (\w+):\n((?: .*\n|\n)*)", re.MULTILINE)
SNAKEFILES = [ROOT / "Snakefile", *RULE_FILES]
RULES = {name: body.rstrip() for file in SNAKEFILES for name, body in RULE.findall(file.read_text())}
WORKING = {name: body for name, body in RULES.items() if "    shell:" in body}
STARTED = re.compile(r"workflow/scripts/(\w+)\.py( [a-z_]+)?")
COMMANDS = sorted({(name, command.strip()) for body in WORKING.values() for name, command in STARTED.findall(body)})


def lines(file):
    return file.read_text().count("\n")


def tool(*command, cwd=ROOT):
    """Run a tool as a user with the environment activated would."""
    done = subprocess.run(command, cwd=cwd, env=workflow.environment(), text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


# Rules


def test_there_are_rules_to_look_at():
    targets = {"all", "models", "tables", "figures"}
    assert set(RULES) >= targets | {"fetch", "data", "train", "generate", "weigh", "eval", "report_scores", "stale"}
    assert set(WORKING) == set(RULES) - targets


def test_every_rule_says_what_it_does():
    assert [name for name, body in RULES.items() if not re.match(r'    """[A-Z][^\n]*\."""\n', body)] == []


@pytest.mark.parametrize("name", WORKING)
def test_a_rule_keeps_log_benchmark_and_environment(name):
    kept = ["log", "conda", *(["benchmark"] if "    output:" in WORKING[name] else [])]
    assert [key for key in kept if f"\n    {key}:\n" not in WORKING[name]] == []
    (environment,) = re.findall(r'    conda:\n +(?:"(.+)"|environment)', WORKING[name])
    assert (ROOT / "rules" / (environment or "../envs/vllm.yaml")).is_file()


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_program_that_a_rule_names_answers_help(capsys, program, command):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(program).main([*command.split(), "--help"])
    assert end.value.code == 0
    assert f"usage: {program}.py {command}".strip() in capsys.readouterr().out


def test_every_program_is_named_by_a_rule_or_is_for_people():
    """`exchange` brings files into a study and out; around `preflight` Snakemake would print its own lines."""
    assert {program for program, _ in COMMANDS} | {"exchange", "preflight"} == {path.stem for path in PROGRAMS}


def test_every_command_of_manage_is_a_rule_or_a_target_of_make():
    """`status` must not wait for Snakemake, `adopt` runs it, and `revisions` pins what it needs to know."""
    by_make = STARTED.findall((ROOT / "Makefile").read_text())
    assert by_make == [("preflight", ""), *(("manage", f" {name}") for name in ("status", "adopt", "revisions"))]
    by_rules = {command for program, command in COMMANDS if program == "manage"}
    assert by_rules == {name for name, body in RULES.items() if "scripts/manage.py" in body}
    code, message = tool(sys.executable, ROOT / "workflow/scripts/manage.py", "--help")
    assert set(re.findall(r"^    ([a-z_]+)\b", message, re.MULTILINE)) == by_rules | {"status", "adopt", "revisions"}
    assert code == 0


def test_rules_run_shell_commands_alone():
    other = re.compile(r"^ +(run|script|message|notebook|wrapper):", re.MULTILINE)
    assert [file.name for file in SNAKEFILES if other.search(file.read_text())] == []


@pytest.mark.parametrize("name", WORKING)
def test_a_shell_command_quotes_what_it_is_given(name):
    given = re.findall(r"\{(.+?)\}", WORKING[name].split("    shell:")[1])
    assert [field for field in given if not field.endswith(":q")] in ([], ["params.launch"])  # a command's words


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.parent.name)
def test_a_profile_sets_resources_of_rules_there_are(profile):
    assert set(yaml.safe_load(profile.read_text()).get("set-resources", {})) <= set(WORKING)


def test_every_job_on_a_gpu_has_its_partition():
    """A rule that the profile forgets would go to the CPU partition."""
    stages = yaml.safe_load((ROOT / "config/config.yaml").read_text())["resources"]
    on_gpus = {stage for stage, given in stages.items() if given.get("gpu")}
    asking = {
        name for name, body in RULES.items() if on_gpus & set(re.findall(r'\*\*stage_resources\("(\w+)"\)', body))
    }
    assert asking == set(yaml.safe_load(PROFILES[1].read_text())["set-resources"])
    assert {"train", "logprobs_scorer"} <= asking


def test_both_profiles_re_run_for_the_same_reasons():
    triggers = [yaml.safe_load(profile.read_text())["rerun-triggers"] for profile in PROFILES]
    assert triggers == [["mtime", "params", "input"]] * 2


# Environments


def test_every_pinned_version_has_checksums():
    """Except of torch, whose files differ by machine, and of what benchmarks alone need."""
    pins = set(re.findall(r"^\S+==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {pin for pin in pins if not pin.startswith(("torch==", "triton==", "nvidia-", "cuda-", "trl=="))}
    hashed = re.findall(r"^(\S+==\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", HASHES.read_text(), re.MULTILINE)
    assert {pin for pin, _ in hashed} == pins
    assert len(hashed) == HASHES.read_text().count("==")


# Programs


def test_no_program_hides_a_package(tmp_path):
    """The folder of the running program comes first in its path, so that its neighbours would be imported instead."""
    code = "import sys, importlib.util as u; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    names = ["wspin", *(path.stem for path in PROGRAMS)]
    assert tool(sys.executable, "-P", "-c", code, *names, cwd=tmp_path) == (0, "[]\n")
    assert tool(sys.executable, "-P", "-c", code, "evaluate", cwd=tmp_path) == (0, "['evaluate']\n")  # lm-eval's


# Ceilings


def test_a_rule_fits_a_screen():
    lengths = {name: 1 + len(body.splitlines()) for name, body in RULES.items()}
    assert {name: length for name, length in lengths.items() if length > 36} == {}


def test_a_rule_file_stays_a_chapter():
    common, *stages = sorted(RULE_FILES, key=lambda file: file.name != "common.smk")
    assert (lines(common) <= 120, RULE.findall(common.read_text())) == (True, [])
    assert [file.name for file in stages if lines(file) > 150 or len(RULE.findall(file.read_text())) > 6] == []


def test_programs_and_modules_stay_short():
    ceilings = {ROOT / "Snakefile": 100, **dict.fromkeys(PROGRAMS, 80), **dict.fromkeys(LIBRARY, 360)}
    assert {str(file): lines(file) for file, ceiling in ceilings.items() if lines(file) > ceiling} == {}


# Style


@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check", "snakefmt --check Snakefile rules", "snakemake --lint"],
)
def test_the_style_is_clean(repository, command):
    code, told = tool(*command.split(), cwd=repository.folder)
    assert code == 0, told


def test_no_file_names_a_place_on_somebodys_machine(repository):
    own = re.compile("|".join(("/home" + "/", "/root" + "/", "/Users" + "/", r"\bshared" + "/")))
    files = [file for file in repository.folder.rglob("*") if file.is_file() and ".snakemake" not in file.parts]
    assert len(files) > 50
    assert [str(file) for file in files if own.search(file.read_text(errors="ignore"))] == []


# README


def test_the_readme_has_its_two_commands():
    found = {command.words for command in page_commands.all_commands() if command.page == "README.md"}
    assert {("make", "demo"), ("make", "test")} <= found


def first_column(page, mark):
    """First column of a generated table of the demo."""
    text = (ROOT / page).read_text().split(f"<!-- demo {mark} -->\n")[1]
    return [row.split("|")[1].strip() for row in text.split("\n\n")[0].splitlines()[2:] if row.startswith("|")]


def test_the_readme_and_the_demos_page_show_its_models_and_comparisons():
    """The page all of them, the README baselines and last iterations."""
    files = [yaml.safe_load((ROOT / "config" / name).read_text()) for name in ("config.yaml", "overlays/demo.yaml")]
    demo = StudyPaths(load_study(merge(*files)))
    models, comparisons = demo.table_models(), [f"{model} - {baseline}" for model, baseline in demo.comparisons()]
    assert first_column("docs/demo.md", "scores") == models
    assert first_column("docs/demo.md", "differences") == comparisons
    last = f"/ite{demo.study.iterations - 1}"
    assert first_column("README.md", "scores") == [name for name in models if "/ite" not in name or last in name]
    assert first_column("README.md", "differences") == [name for name in comparisons if last in name]


def test_the_readme_has_a_phrase_for_every_room():
    """In its tree, as `{room}/    what is in it`; the modules of the ground are named in one line."""
    tree = (ROOT / "README.md").read_text().split("## Where things are\n")[1].split("```")[1]
    library = ROOT / "workflow/scripts/wspin"
    rooms = [place.name for place in library.iterdir() if place.is_dir() and place.name != "__pycache__"]
    assert len(rooms) > 10
    assert [room for room in rooms if not re.search(rf"^    {room}/ +\w", tree, re.MULTILINE)] == []
    modules = [place.name for place in library.glob("*.py") if place.name != "__init__.py"]
    assert [name for name in modules if name not in tree] == []


def test_modules_that_the_readme_names_are_there():
    """In the table of an iteration's steps, its last column."""
    steps = (ROOT / "README.md").read_text().split("| in the library |\n")[1].split("\n\n")[0]
    named = [name for row in steps.splitlines()[1:] for name in re.findall(r"`(.+?)`", row.split("|")[-2])]
    assert len(named) > 6
    assert [name for name in named if not (ROOT / "workflow/scripts/wspin" / name).exists()] == []


def test_pictures_and_pages_that_a_page_links_are_there():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/**/*.md"), ROOT / "results/README.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert len(links) > 30
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
