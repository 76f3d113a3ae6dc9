"""The environments: the lists behind them, conda's files, the containers, and what the programs import."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import environments
import pytest
import structure
import workflow
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from snakemake.cli import get_argument_parser

ROOT = workflow.ROOT
SMALL = ("config/overlays/demo.yaml", "tests/configs/small.yaml")
TASKS = "results/demo/fetched/tasks/demo.json"


def entries(text):
    """The pip list of an environment file."""
    *_, pip = yaml.safe_load(text)["dependencies"]
    return pip["pip"]


# The files


@pytest.mark.parametrize("name", environments.NAMES)
def test_a_file_is_what_its_lists_give(name):
    """`python tests/environments.py` renews it."""
    assert (ROOT / f"envs/{name}.yaml").read_text() == environments.render(name)


@pytest.mark.parametrize("name", environments.NAMES)
def test_a_file_stands_alone(name):
    """Nothing but pinned versions, and every package that the list names."""
    pins = entries((ROOT / f"envs/{name}.yaml").read_text())
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin)] == []
    versions = dict(pin.split("==") for pin in pins)
    assert len(versions) == len(pins) > 50
    named = {Requirement(entry).name for entry in environments.lines(ROOT / f"envs/{name}.in")}
    assert named - versions.keys() == set()


@pytest.mark.parametrize("name", ["driver", "torch"])
def test_what_a_package_needs_is_in_its_file_too(name):
    """As `pip check` would find it."""
    versions = dict(pin.split("==") for pin in entries((ROOT / f"envs/{name}.yaml").read_text()))
    needed = [(package, need) for package in versions for need in environments.needs(package)]
    assert len(needed) > len(versions)
    missing = [
        f"{package}: {need}"
        for package, need in needed
        if not environments.CUDA.fullmatch(canonicalize_name(need.name))
        and not (
            canonicalize_name(need.name) in versions
            and need.specifier.contains(versions[canonicalize_name(need.name)], prereleases=True)
        )
    ]
    assert missing == []


def test_a_closure_follows_extras_and_stops_at_what_cuda_alone_needs(monkeypatch):
    needed = {
        ("a", ""): ["b[x]>=1", "nvidia-cublas==13.*"],
        ("b", ""): ["c"],
        ("b", "x"): ["c", "d"],
    }
    monkeypatch.setattr(environments, "needs", lambda name, extra="": map(Requirement, needed.get((name, extra), [])))
    assert environments.closure(["a"]) == {"a", "b", "c", "d"}


# The programs


BELOW = structure.graph(structure.LIBRARY)
RUN = sorted({(program.split()[0], name) for program, name in environments.of_programs().items()})


def reached(program):
    """A program and the modules of the library that it imports, wherever in a file."""
    start = ROOT / f"workflow/scripts/{program}.py"
    found, pending = {start}, [*structure.imports(start, structure.LIBRARY)]
    while pending:
        if (file := pending.pop()) and file not in found:
            found.add(file)
            pending += BELOW[file]
    return found


@pytest.mark.parametrize(("program", "name"), [(program, name) for program, name in RUN if program != "manage"])
def test_what_a_program_imports_is_in_the_environment_of_its_rule(program, name):
    """The commands of `manage` load modules of their own: tests/whole/test_imports.py."""
    packages = environments.imported(reached(program))
    assert len(packages) >= 2
    assert packages - environments.packages(name).keys() - {"vllm"} == set()
    if program in ("generate", "eval"):
        assert packages - environments.packages("vllm").keys() == set()


def test_a_package_that_an_environment_lacks_is_seen():
    assert {"torch", "transformers"} <= environments.imported(reached("train")) - environments.packages("driver").keys()


# Conda, which is not here: tests/stub_conda.py stands in


def python_that_notes(prefix):
    """A folder whose `bin/python` is this Python, and notes in `ran` what it is given."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").write_text(f'#!/bin/sh\necho "$@" >>{prefix}/ran\nexec {sys.executable} "$@"\n')
    (prefix / "bin/python").chmod(0o755)
    return prefix


@pytest.fixture
def conda(tmp_path, monkeypatch):
    """A stand-in for conda, first in the path; its folder."""
    folder = tmp_path / "conda"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/activate").write_text('export PATH="$1/bin:$PATH" CONDA_PREFIX="$1"\n')
    (folder / "bin/conda").write_text(f"#!{sys.executable}\n{(ROOT / 'tests/stub_conda.py').read_text()}")
    (folder / "bin/conda").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]))
    return folder


@pytest.fixture
def study(tmp_path):
    return workflow.checkout(tmp_path / "study", *SMALL)


def created(conda):
    """(environment file, prefix) of every environment that was asked for."""
    calls = [json.loads(line) for line in (conda / "calls.jsonl").read_text().splitlines()]
    return [(Path(call[5]), Path(call[7])) for call in calls if call[:2] == ["env", "create"]]


def ours(*names):
    return {(ROOT / f"envs/{name}.yaml").read_text() for name in names}


def test_jobs_run_in_the_environments_of_their_rules(conda, study):
    """A fetch in torch's, a target of `manage` in the driver's, each from our file alone in a folder of Snakemake's."""
    study.make(TASKS, "stale", "--sdm", "conda")
    made = {file.read_text(): (file, prefix) for file, prefix in created(conda)}
    assert made.keys() == ours("torch", "driver")
    assert {file.parent for file, _ in made.values()} == {study.folder / ".snakemake/conda"}
    ran = {text: (prefix / "ran").read_text() for text, (_, prefix) in made.items()}
    assert [ran[text].split()[:2] for name in ("torch", "driver") for text in ours(name)] == [
        ["workflow/scripts/fetch.py", "tasks"],
        ["workflow/scripts/manage.py", "stale"],
    ]
    assert (study.folder / TASKS).exists()


@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_both_profiles_create_the_environments_of_a_whole_study(conda, study, profile):
    command = [sys.executable, "-m", "snakemake", "all", "--profile", profile, "--configfile", *SMALL]
    command += ["--sdm", "conda", "--conda-create-envs-only"]
    done = subprocess.run(command, cwd=study.folder, env=workflow.environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file.read_text() for file, _ in created(conda)} == ours("torch", "driver")


def test_a_dry_run_of_the_study_names_all_three(conda, study):
    """Its answers are sampled by vLLM; nothing is created."""
    done = workflow.Repository(study.folder).run("all", "--dry-run", "--sdm", "conda")
    assert done.returncode == 0, done.stdout
    named = re.findall(r"^Conda environment (\S+) will be created\.$", done.stdout, re.MULTILINE)
    assert sorted(named) == [f"envs/{name}.yaml" for name in environments.NAMES]
    assert created(conda) == []


@pytest.mark.parametrize("entry", ["-r torch.in", "-c ../constraints.txt", "torch==0.1"])
def test_what_cannot_be_installed_from_the_file_alone_is_refused(conda, study, entry):
    """The first two stood in these files once: Snakemake takes none of the lists along."""
    (study.folder / "envs/torch.yaml").write_text(f"dependencies: [python, pip, {{pip: [{entry}]}}]")
    done = study.run(TASKS, "--sdm", "conda")
    assert done.returncode != 0
    assert "Could not create conda environment" in done.stdout
    assert not (study.folder / TASKS).exists()


# Containers, whose builders are not here either


DOCKER = (ROOT / "envs/Dockerfile").read_text().replace("\\\n", " ")
APPTAINER = (ROOT / "envs/Apptainer.def").read_text()


def instructions(name):
    """What follows an instruction of the Dockerfile, each time it stands there."""
    return [
        " ".join(words) for words in re.findall(rf"^{name} (.+)$", DOCKER, re.MULTILINE) for words in [words.split()]
    ]


def section(name):
    """The lines of a section of Apptainer's definition."""
    _, _, body = APPTAINER.partition(f"\n%{name}\n")
    return [line.strip() for line in re.split(r"^%", body, flags=re.MULTILINE)[0].splitlines() if line.strip()]


def installing(lines):
    return [line for line in lines if line.startswith("pip install ")]


def test_an_image_is_installed_by_the_commands_of_make_setup():
    make = re.findall(r"^\t\$\(INSTALL\) (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(make) == 2
    assert make[0].startswith("--require-hashes ")
    assert installing(instructions("RUN")) == [f"pip install {flags}" for flags in make]
    assert installing(section("post")) == installing(instructions("RUN"))


def test_an_image_gets_the_files_that_its_commands_read_and_no_others():
    read = {file for line in installing(section("post")) for file in re.findall(r"-[rc] (\S+)", line)}
    assert {line.split()[0] for line in section("files")} == read
    assert [line.split()[1] for line in section("files")] == [
        f"/opt/wspin/{line.split()[0]}" for line in section("files")
    ]
    copies = [line.split() for line in instructions("COPY")]
    assert {file for *files, _ in copies for file in files} == read
    assert all((target == "./") == ("/" not in files[0]) for *files, target in copies)
    assert [file for file in read if not (ROOT / file).is_file()] == []


def test_both_images_stand_on_the_same_system():
    (base,) = instructions("FROM")
    assert f"\nFrom: {base}\n" in APPTAINER
    assert base.startswith(f"python:{environments.PYTHON}-")
    packages = [
        re.findall(r"apt-get install \S+ \S+ ([a-z0-9 -]+?)(?: &&|$)", text, re.MULTILINE)
        for text in (DOCKER, APPTAINER)
    ]
    assert " ".join(packages[0]).split() == " ".join(packages[1]).split() != []


def test_arguments_of_a_definition_have_defaults():
    code = "\n".join(line for line in APPTAINER.splitlines() if not line.lstrip().startswith("#"))
    used = set(re.findall(r"\{\{ (\w+) \}\}", code))
    assert used == {line.split("=")[0] for line in section("arguments") if not line.startswith("#")} == {"index"}


def test_jobs_run_in_the_image(tmp_path, study, monkeypatch):
    """Snakemake outside, each job in the image of envs/Apptainer.def, whose Python comes first there."""
    inside = python_that_notes(tmp_path / "image")
    apptainer = tmp_path / "bin/apptainer"
    apptainer.parent.mkdir()
    apptainer.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && echo apptainer version 1.4.5 && exit
echo "$@" >>{tmp_path}/calls
until [ "$1" = wspin.sif ]; do shift; done
shift
PATH={inside / "bin"}:/usr/bin:/bin exec "$@"
"""
    )
    apptainer.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(apptainer.parent), os.environ["PATH"]]))
    study.make(TASKS, "--sdm", "apptainer", "--apptainer-args=--nv")
    assert re.match(rf"exec --home {study.folder} --nv .*wspin\.sif bash -c ", (tmp_path / "calls").read_text())
    assert (inside / "ran").read_text().startswith("workflow/scripts/fetch.py tasks ")
    assert (study.folder / TASKS).exists()


# The page


def test_the_pages_commands_are_understood():
    """A target after `--sdm conda` would be taken for another method."""
    page = (ROOT / "docs/environments.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"snakemake ((?:all|--profile)[^`#\n]+)", page)]
    parsed = [get_argument_parser().parse_args(words) for words in commands]
    assert len(parsed) >= 5
    assert {tuple(args.targets) for args in parsed} == {("all",)}
    assert {str(method) for args in parsed for method in args.software_deployment_method} == {"conda", "apptainer"}
