"""Which code computed a result: a hash of a program and of the library modules that it imports."""

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parents[2]

# Packages and modules that parse, check and record the work, but cannot change its result
UNHASHED = ("wspin.cli", "wspin.config", "wspin.study", "wspin.manage", "wspin.models.offline")
UNHASHED += ("wspin.storage.provenance", "wspin.storage.code_hash", "wspin.progress")
UNHASHED += ("wspin.errors", "wspin.credentials", "wspin.interruption")


def code_hash(program: str) -> str:
    """Hash of a program and of all library modules that it imports, wherever in a file, but those of `UNHASHED`.

    Comments and docstrings do not count.
    """
    text = "\n".join(_code(path.read_text()) for path in sorted(code_files(program)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_files(program: str) -> set[Path]:
    """The files that `code_hash` covers."""
    pending, covered = [SCRIPTS / f"{program}.py"], set()
    while pending:
        path = pending.pop()
        if path not in covered and not is_unhashed(module_name(path)):
            covered.add(path)
            pending += _imported(path)
    return covered


def module_name(path: Path) -> str:
    """The dotted name of a module; for an `__init__.py`, the package's."""
    return ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")


def is_unhashed(module: str) -> bool:
    """Whether a module is one of `UNHASHED`, or lies in one."""
    return f"{module}.".startswith(tuple(f"{name}." for name in UNHASHED))


def _imported(path: Path) -> Iterator[Path]:
    """Library files that a file imports, wherever in it, by absolute or relative names."""
    package = path.relative_to(SCRIPTS).parent.parts
    for level, name in _imports(path.read_text()):
        yield from _files((*(package[: len(package) - level + 1] if level else ()), *name))


@cache  # of the text: programs have most of their modules in common
def _imports(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """(level, name) of every import in a module: 0, the parts of its name; from 1 on, relative to its package."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(0, tuple(alias.name.split("."))) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else ()
            found += [(node.level, (*module, alias.name)) for alias in node.names]
    return found


def _files(name: Sequence[str]) -> Iterator[Path]:
    """Files that run when `name`, a module or a symbol in one, is imported: its module and the packages above it."""
    for depth in range(1, len(name) + 1) if name[0] == "wspin" else ():
        place = SCRIPTS.joinpath(*name[:depth])
        yield from (path for path in (place / "__init__.py", place.parent / f"{place.name}.py") if path.is_file())


@cache
def _code(text: str) -> str:
    """A module without comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant()), *others] as body:
                body[:] = others or [ast.Pass()]
    return ast.unparse(tree)
