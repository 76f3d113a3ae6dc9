"""The conda environments: `python tests/environments.py` rewrites envs/*.yaml; part of `make lock`.

Snakemake copies an environment file alone into a folder of its own, so each holds its whole list: the packages that its
`.in` list names and all that these need, in the pinned versions. What a package needs is read from the installed one.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVS = Path(__file__).parent.parent / "envs"
NAMES = ("driver", "torch", "vllm")
PYTHON = "3.11"
# Of a CUDA build of torch alone, which pins most of them itself: a list with them would not do for a CPU.
CUDA = re.compile(r"triton|nvidia-.+|cuda-.+")
# A rule's environment, its program and the program's command
RULE = re.compile(
    r'conda:\n +(?:"../envs/(\w+).yaml"|environment)\n(?:(?!\nrule ).)+?scripts/(\w+).py(?: ([a-z_]+)\b)?', re.S
)
TEMPLATE = """\
# {lists}, whole: for `conda env create -f` and Snakemake's `--sdm conda`. Written by `make lock`.
channels: [conda-forge, nodefaults]
dependencies:
  - python={python}
  - pip
  - pip:
{pins}"""


def lines(file: Path) -> list[str]:
    """A list's entries, without comments."""
    return [entry for line in file.read_text().splitlines() if (entry := line.partition("#")[0].strip())]


def pinned(name: str = "constraints.txt") -> dict[str, str]:
    """Package -> its pinned version."""
    return dict(line.split("==") for line in lines(ENVS.parent / name))


def needs(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package needs on this platform, with one of its extras or without."""
    requirements = map(Requirement, distribution(package).requires or [])
    setting = {"extra": extra, "python_version": PYTHON, "python_full_version": f"{PYTHON}.9"}
    return [one for one in requirements if one.marker is None or one.marker.evaluate(setting)]


def closure(entries: list[str]) -> set[str]:
    """Names of the packages that a list names, and of all that they need; CUDA's libraries left out."""
    pending, extras = [Requirement(entry) for entry in entries], defaultdict(set)
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if CUDA.fullmatch(name):
            continue
        for extra in {"", *requirement.extras} - extras[name]:
            extras[name].add(extra)
            pending += needs(name, extra)
    return set(extras)


@cache
def packages(name: str) -> dict[str, str]:
    """Package -> version of an environment. vLLM's constraints are what its resolver chose for its list alone.

    Raises `SystemExit` where the installed packages are not the pinned ones.
    """
    if name == "vllm":
        return pinned("constraints-vllm.txt")
    versions = pinned()
    try:
        chosen = {package: versions[package] for package in sorted(closure(lines(ENVS / f"{name}.in")))}
        installed = {package: distribution(package).version.partition("+")[0] for package in chosen}
    except (PackageNotFoundError, KeyError) as error:
        raise SystemExit(f"envs/{name}.in: {error} is not pinned or not installed; run make lock") from error
    if wrong := ", ".join(package for package in chosen if installed[package] != chosen[package]):
        raise SystemExit(f"envs/{name}.in: other versions installed than pinned: {wrong}; run make setup")
    return chosen


def render(name: str) -> str:
    """The environment file."""
    lists = f"{name}.in in the versions of constraints{'-vllm' if name == 'vllm' else ''}.txt"
    pins = "".join(f"      - {package}=={version}\n" for package, version in packages(name).items())
    return TEMPLATE.format(lists=lists, python=PYTHON, pins=pins)


def of_programs() -> dict[str, str]:
    """`program command` of every rule -> its environment; torch's where the engine decides."""
    found = {}
    for file in ENVS.parent.glob("rules/*.smk"):
        for environment, program, command in RULE.findall(file.read_text()):
            found[f"{program} {command}".strip()] = environment or "torch"
    return found


def imported(files: Iterable[Path]) -> set[str]:
    """Packages that files import, wherever in them; neither Python's own nor the library."""
    owners, names = packages_distributions(), set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    modules = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"wspin"}
    return {canonicalize_name(owners.get(module, [module])[0]) for module in modules}


def write() -> None:
    for name in NAMES:
        (ENVS / f"{name}.yaml").write_text(render(name))
        print(f"envs/{name}.yaml")


if __name__ == "__main__":
    write()
