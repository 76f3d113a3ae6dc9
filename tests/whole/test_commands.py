"""Every command of the pages does something: planned, parsed, or in a table with the reason why it is neither."""

import argparse
import ast
import importlib
import itertools
import re
import subprocess
import sys
import tomllib

import page_commands
import pytest
import workflow
import yaml
from snakemake.cli import parse_args
from targets import TARGETS

ROOT = workflow.ROOT
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = page_commands.all_commands()
# Planned by other tests: with the files that the page names, and one for each table in the slow tier
ORIGINAL = "docs/from-the-original.md"  # tests/whole/test_docs.py
OF_TARGETS = {tuple(target.command.split()) for target in TARGETS}  # tests/whole/test_targets.py
WITHOUT_PLAN = {
    "--unlock": "removes a lock; plans nothing",
    "--containerize": "prints a Dockerfile; named as what is not used",
}
SHORT = ("-q", "rules", "host")  # of a dry run: without its jobs
WITHOUT = ("--sdm", "--conda-create-envs-only", "--apptainer-args")  # need conda or Apptainer even for a plan
NOT_RUN = {
    ".": "activates an environment",
    "apptainer": "builds or starts an image",
    "chgrp": "changes files of a group that is not here",
    "chmod": "changes files",
    "conda": "makes an environment, from the network",
    "docker": "builds or starts an image",
    "find": "changes files",
    "grep": "prepares a list for pip, which is not run",
    "pip": "installs, from the network",
    "source": "activates an environment",
}
FOREIGN = {("python", "scripts/download.py"): "of the WSPIN README, beside ours"}
PLACEHOLDERS = {"mine.yaml": {"arms": {"mine": {"train": {"loss": "wspin"}}}}}
FOLDERS = re.compile(r"(?:config|docs|envs|local|rules|slurm|tests|workflow)/[\w./-]+")


def of_tool(*tools):
    return [command for command in COMMANDS if command.tool in tools and command.words not in FOREIGN]


def parsed(command):
    """The arguments of a snakemake command; None if it takes no such options, which a test below reports."""
    try:
        return parse_args(list(command.words[1:]))[1]
    except SystemExit:
        return None


def planned():
    """Words of an invocation without targets -> its targets; commands that differ in targets alone are planned once."""
    groups = {}
    for command in of_tool("snakemake"):
        if command.page == ORIGINAL or command.words in OF_TARGETS or WITHOUT_PLAN.keys() & set(command.words):
            continue
        if not (given := parsed(command)):
            continue
        targets = {str(target) for target in given.targets}
        options, words = [], iter(command.words[1:])
        for word in words:
            if word.split("=")[0] not in WITHOUT and word not in ("-n", *SHORT, *targets):
                options.append(word)
            elif word == "--sdm":
                next(words)
        groups.setdefault(tuple(options), set()).update(targets or {"all"})
    return groups


def test_there_are_commands_and_no_block_hides_others():
    """A block without a language shows files and prints, never commands."""
    assert len(COMMANDS) > 150
    plain = [
        (page.name, line)
        for page in page_commands.PAGES
        for line, language, text in page_commands.fences(page)
        if language not in (*page_commands.SHELLS, "yaml")
        if re.search(r"^\$ |^(snakemake|make|python|pip|git) ", text, re.MULTILINE)
    ]
    assert plain == []


def test_every_tool_is_checked_or_has_a_reason():
    unknown = [
        str(command) for command in COMMANDS if command.tool not in {*NOT_RUN, "snakemake", "make", "python", "pytest"}
    ]
    assert unknown == []
    assert NOT_RUN.keys() == {command.tool for command in COMMANDS} & NOT_RUN.keys()
    assert {command.words for command in COMMANDS} >= FOREIGN.keys()
    assert {command.words for command in COMMANDS} >= OF_TARGETS


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_files_of_the_repository_that_a_command_names_exist(command):
    """Those below results/ and a user's own are not here."""
    named = [word for word in command.words if FOLDERS.fullmatch(word)]
    assert [name for name in named if not (ROOT / name).exists() and (command.words[:2]) not in FOREIGN] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository, with the overlays that pages leave to their readers."""
    copy = workflow.checkout(tmp_path_factory.mktemp("commands"))
    for name, overlay in PLACEHOLDERS.items():
        (copy.folder / name).write_text(yaml.safe_dump(overlay))
    return copy


@pytest.mark.parametrize("options", planned(), ids=" ".join)
def test_snakemake_plans_the_targets(checkout, options):
    targets = planned()[options]
    command = [sys.executable, "-m", "snakemake", "--dry-run", *sorted(targets), *options]
    done = subprocess.run(command, cwd=checkout.folder, env=workflow.environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = workflow.Plan(done.stdout)
    assert targets <= {job.rule for job in plan.jobs} | plan.made()


@pytest.mark.parametrize("command", of_tool("snakemake"), ids=str)
def test_snakemake_knows_the_options(command):
    given = parsed(command)
    assert given, "unknown options"
    assert {str(name) for name in given.profile or ()} <= {"local", "slurm"}


@pytest.mark.parametrize("words", {command.words: None for command in of_tool("make")}, ids=" ".join)
def test_make_knows_the_target(checkout, words):
    """`make -n` prints the recipe; variables are those that it reads."""
    command = ["make", "-n", *words[1:]]
    done = subprocess.run(command, cwd=checkout.folder, env=workflow.environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    variables = [word.split("=")[0] for word in words[1:] if "=" in word]
    makefile = (ROOT / "Makefile").read_text()
    assert [name for name in variables if not re.search(rf"\$\((if \$\()?{name}\)", makefile)] == []


class Parsed(Exception):
    """The flags of a program are right."""


@pytest.fixture
def parse(monkeypatch):
    """Parses the flags of a program, which then does nothing else."""
    complete = argparse.ArgumentParser.parse_args

    def parse_args_alone(self, *given, **named):
        complete(self, *given, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args_alone)

    def parse(program, flags):
        with pytest.raises(Parsed):
            importlib.import_module(program).main(list(flags))

    return parse


@pytest.mark.parametrize("command", of_tool("python"), ids=str)
def test_python_takes_the_flags(parse, command):
    _, what, *flags = command.words
    if what.startswith("workflow/scripts/"):
        parse(what.removeprefix("workflow/scripts/").removesuffix(".py"), flags)
    elif what == "-c":
        ast.parse(flags[0])
    elif what == "-m":
        assert flags[0] in ("pytest", "venv", "bench")
    else:
        assert (ROOT / what).is_file()


@pytest.mark.parametrize("command", [c for c in of_tool("pytest", "python") if "pytest" in c.words], ids=str)
def test_pytest_finds_the_tests(command):
    words = command.words[command.words.index("pytest") + 1 :]
    options = dict(itertools.pairwise(words))
    markers = {text.split(":")[0] for text in SETTINGS["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(options.get("-m", "").split()) <= {*markers, "and", "or", "not"}
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert re.search(rf"def test_\w*{options.get('-k', '')}", tests)
    assert {word for word in words if word.startswith("-")} <= {"-m", "-k", "-q", "-s"}


def examples():
    """(program, flags) of the commands in the docstrings of programs."""
    for file in sorted((ROOT / "workflow/scripts").glob("*.py")):
        block = "\n".join(re.findall(r"python workflow/scripts/.*", ast.get_docstring(ast.parse(file.read_text()))))
        for _, (_, path, *flags) in page_commands.split(block):
            assert path == f"workflow/scripts/{file.name}"
            yield file.stem, tuple(flags)


def test_every_program_has_an_example():
    programs = {file.stem for file in (ROOT / "workflow/scripts").glob("*.py")}
    assert programs - {program for program, _ in examples()} == set()


@pytest.mark.parametrize(
    ("program", "flags"), list(examples()), ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_a_program_takes_the_flags_of_its_example(parse, capsys, program, flags):
    """Of an example that leaves out something (`...`), those that it names."""
    if "..." not in " ".join(flags):
        parse(program, flags)
        return
    with pytest.raises(SystemExit):
        importlib.import_module(program).main([*itertools.takewhile(lambda word: word[0] != "-", flags), "--help"])
    usage = capsys.readouterr().out.split("\n\n")[0]  # below it stands the example
    assert [flag for flag in flags if flag.startswith("--") and not re.search(rf"{flag}\b", usage)] == []
