"""Bad and unusual inputs, what a program answers to each, and the table of them all in docs/robustness.md."""

import functools
import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "workflow" / "scripts"
CONFIG = "config"  # in place of a program: load configuration files as the Snakefile does


@dataclass(frozen=True)
class Case:
    """An input, and the whole message that a program ends with.

    `prepare` makes the input in a folder, the current one, that holds a small model (`model/`, `model.json`) and the
    default configuration; it returns the program and its flags. Code 0: the input is read, and `message` is a line of
    standard output.
    """

    input: str
    prepare: Callable[[Path], list[str]]
    message: str
    code: int = 1

    def __str__(self) -> str:
        return self.input

    def check(self, folder: Path) -> None:
        """Run the program, and compare its message and exit code. A refusal leaves every file as it was."""
        program, *flags = self.prepare(folder)
        before = _hashes(folder)
        code, output, errors = run(program, flags)
        assert code == self.code, errors or output
        if self.code == 0:
            assert self.message in output.splitlines(), output
        else:
            assert errors.strip() == self.message, errors
            assert _hashes(folder) == before, "a refused input has left files"


def check_case(cases: list[Case]) -> Callable[..., None]:
    """A test with one item for each case."""

    @pytest.mark.parametrize("case", cases, ids=str)
    def test(
        case: Case,
        tmp_path: Path,
        scratch_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        record_property: Callable[[str, object], None],
    ) -> None:
        record_property("input", case.input)
        shutil.copytree(scratch_model, tmp_path / "model")
        shutil.copyfile(scratch_model.with_suffix(".json"), tmp_path / "model.json")
        (tmp_path / "config").mkdir()
        shutil.copyfile(ROOT / "config/config.yaml", tmp_path / "config/config.yaml")
        monkeypatch.chdir(tmp_path)
        case.check(tmp_path)

    return test


def run(program: str, flags: list[str]) -> tuple[int, str, str]:
    """(exit code, standard output, last message without `{program}.py: error: `) of a program, in this process."""
    from wspin import cli

    main = _load_config if program == CONFIG else _module(SCRIPTS / f"{program}.py").main
    output, errors, argv = StringIO(), StringIO(), sys.argv
    sys.argv = [f"{program}.py", *flags]
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            cli.run(main)
        code, message = 0, ""
    except SystemExit as end:
        code, message = (end.code, errors.getvalue()) if isinstance(end.code, int) else (1, str(end.code))
    finally:
        sys.argv = argv
    return code, output.getvalue(), message.replace(f"{program}.py: error: ", "")


def _load_config() -> None:
    """Read the default configuration, overlays in order and `--config key=value ...`, as Snakemake; prints `valid`."""
    from snakemake.cli import parse_config

    from wspin.config.load import read_study

    given = sys.argv[1:]
    cut = given.index("--config") if "--config" in given else len(given)
    read_study(["config/config.yaml", *given[:cut]], parse_config(given[cut + 1 :]))
    print("valid")


def _hashes(folder: Path) -> dict[str, str]:
    """Hash of every file, those of states aside: a repeated run resumes there."""
    files = [path for path in folder.rglob("*") if path.is_file() and "state" not in path.relative_to(folder).parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@functools.cache
def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def all_cases() -> Iterator[tuple[str, list[Case]]]:
    """(kind, its cases) of every file `tests/robustness/test_{kind}.py`."""
    for path in sorted((ROOT / "tests" / "robustness").glob("test_*.py")):
        if cases := getattr(_module(path), "CASES", None):
            yield path.stem.removeprefix("test_"), cases


def markdown() -> str:
    """The tables of docs/robustness.md: input, message, exit code."""
    lines = []
    for kind, cases in all_cases():
        lines += [f"### {kind.capitalize()} ({len(cases)})", "", "| input | message | exit code |", "|---|---|---|"]
        lines += [f"| {cell(case.input)} | {code(case.message)} | {case.code} |" for case in cases]
        lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def code(message: str) -> str:
    """A message as code, its lines one below the other; a double fence where it holds a backtick."""
    fence = "``" if "`" in message else "`"
    padding = " " if fence == "``" else ""
    return "<br>".join(f"{fence}{padding}{cell(line)}{padding}{fence}" for line in message.splitlines())
