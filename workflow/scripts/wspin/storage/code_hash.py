"""Which code made a result: a hash of a program and of what it imports from the library."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SCRIPTS = Path(__file__).parents[2]


# Packages and modules that read, check and record what is asked for, but compute nothing.
AROUND = ("wspin.cli", "wspin.config", "wspin.study", "wspin.manage", "wspin.models.offline")
AROUND += ("wspin.storage.provenance", "wspin.storage.code_hash")


def code_hash(program: str) -> str:
    """Hash of a program and of the modules of the library that it imports and that can change a result.

    Comments and docstrings are left out, and so are the packages around the work: flags, checks, records.
    """
    modules = {path: ast.unparse(_without_docstrings(ast.parse(path.read_text()))) for path in code_files(program)}
    text = "\n".join(modules[path] for path in sorted(modules))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_files(program: str) -> set[Path]:
    """The files that `code_hash` covers: the program, and all that it imports from the library but `AROUND`."""
    pending, found = [SCRIPTS / f"{program}.py"], set()
    while pending:
        path = pending.pop()
        if path not in found and not _is_around(path):
            found.add(path)
            pending += _imported(path)
    return found


def module_name(path: Path) -> str:
    """The dotted name of a file of the library; of a package's `__init__.py` the package's."""
    return ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")


def _is_around(path: Path) -> bool:
    name = module_name(path)
    return any(name == one or name.startswith(f"{one}.") for one in AROUND)


def _imported(path: Path) -> Iterator[Path]:
    """Files of the library that a file imports, wherever in it, whether by absolute or relative names."""
    package = path.relative_to(SCRIPTS).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield from _files((*module, alias.name))


def _files(name: Sequence[str]) -> Iterator[Path]:
    """Files that are run when `name`, a module or something in one, is imported: the packages above it run too."""
    for depth in range(1, len(name) + 1) if name[0] == "wspin" else ():
        place = SCRIPTS.joinpath(*name[:depth])
        yield from (path for path in (place / "__init__.py", place.parent / f"{place.name}.py") if path.is_file())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[:] = body[1:] or [ast.Pass()]
    return tree
