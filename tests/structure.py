"""The structure of the library, counted from its imports: `python tests/structure.py [workflow/scripts/wspin]`.

A room is a package of the library, or a module that lies beside the packages; the modules of the ground are one room.
An arrow leads from a room to one that it imports, wherever in a file it does so. A room stands one floor above the
highest room that it imports. A circle is a set of files that import each other.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parent.parent / "workflow/scripts/wspin"
GROUND = ("errors", "credentials", "escaping", "garbage", "rng", "progress", "templates", "iteration", "interruption")

# What every room may import, besides itself and the ground.
ALLOWED = {
    "ground": "",
    "storage": "",
    "config": "",
    "engine": "",
    "study": "config",
    "models": "config storage",
    "data": "config storage models",
    "fetch": "config storage models data",
    "generate": "config storage models engine",
    "logprobs": "storage engine data",
    "weigh": "config storage",
    "train": "config storage engine data",
    "eval": "config storage engine models data",
    "exchange": "storage",
    "report": "config storage weigh",
    "preflight": "config study storage engine models fetch eval",
    "manage": "config study storage report fetch",
    "cli": "config storage",
}


def files(library: Path) -> list[Path]:
    return sorted(library.rglob("*.py"))


def imports(file: Path, library: Path) -> Iterator[Path]:
    """Files of the library that a file imports; an import of a package alone is its `__init__.py`."""
    folder = file.relative_to(library.parent).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            module = (*above, *(node.module or "").split(".")) if node.module else above
            yield from (_file((*module, alias.name), library) or _file(module, library) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (_file(alias.name.split("."), library) for alias in node.names)


def _file(name: tuple[str, ...] | list[str], library: Path) -> Path | None:
    place = library.parent.joinpath(*name)
    if not name or name[0] != library.name:
        return None
    return next((path for path in (place.with_name(f"{place.name}.py"), place / "__init__.py") if path.is_file()), None)


def graph(library: Path) -> dict[Path, set[Path]]:
    """File -> the files that it imports."""
    return {file: set(filter(None, imports(file, library))) - {file} for file in files(library)}


def room(file: Path, library: Path) -> str:
    name = file.relative_to(library).parts[0].removesuffix(".py")
    return "ground" if name in (*GROUND, "__init__") and (library / "storage").exists() else name


def arrows(library: Path, below: dict[Path, set[Path]] | None = None) -> dict[tuple[str, str], list[tuple[Path, Path]]]:
    """(room, room that it imports) -> the imports behind the arrow."""
    found: dict[tuple[str, str], list[tuple[Path, Path]]] = {}
    for file, others in (below or graph(library)).items():
        for other in sorted(others):
            ends = room(file, library), room(other, library)
            if ends[0] != ends[1]:
                found.setdefault(ends, []).append((file, other))
    return found


def circles(below: dict[Any, set[Any]]) -> list[list[Any]]:
    """Sets of nodes that reach each other, in a graph of nodes to those below them."""

    @cache
    def reach(node: Any) -> frozenset[Any]:
        seen, pending = set(), list(below[node])
        while pending:
            if (other := pending.pop()) not in seen:
                seen.add(other)
                pending += below[other]
        return frozenset(seen)

    return sorted({tuple(sorted(other for other in reach(node) if node in reach(other))) for node in below} - {()})


def floors(library: Path) -> dict[str, int]:
    """Room -> its floor, the lowest is 1; rooms in a circle stand on one floor."""
    below: dict[str, set[str]] = {room(file, library): set() for file in files(library)}
    for start, end in arrows(library):
        below[start].add(end)
    circle = {name: names for names in circles(below) for name in names}
    height = dict.fromkeys(below, 1)
    for _ in below:
        for name in below:
            names = circle.get(name, (name,))
            others = set().union(*(below[one] for one in names)).difference(names)
            height[name] = 1 + max((height[other] for other in others), default=0)
    return height


def violations(library: Path) -> list[str]:
    """Imports that the table forbids, and circles: a line each."""
    wrong, below = [], graph(library)
    for (start, end), behind in sorted(arrows(library, below).items()):
        if end != "ground" and end not in ALLOWED.get(start, "").split():
            file, other = (path.relative_to(library) for path in behind[0])
            wrong.append(f"{file}: {start} may not import {end} ({other})")
    for circle in circles(below):
        wrong.append("circle: " + ", ".join(str(path.relative_to(library)) for path in circle))
    return wrong


def sizes(library: Path) -> tuple[int, tuple[int, Path], tuple[int, str]]:
    """(lines of the library, its longest file, its longest function)."""
    lengths = [(file.read_text().count("\n"), file) for file in files(library)]
    functions = [
        (node.end_lineno - node.lineno + 1, f"{file.relative_to(library)}:{node.name}")
        for file in files(library)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    return sum(length for length, _ in lengths), max(lengths), max(functions)


def summary(library: Path) -> str:
    height, between = floors(library), arrows(library)
    to_ground = sum(end == "ground" for _, end in between)
    lines, (longest, file), (screen, function) = sizes(library)
    return "\n".join(
        [
            f"rooms {len(height)}, floors {max(height.values())}, circles {len(circles(graph(library)))}",
            f"arrows {len(between) - to_ground}, and {to_ground} to the ground",
            f"lines {lines} in {len(files(library))} files; longest file {file.relative_to(library)} {longest}, "
            f"longest function {function} {screen}",
            *(f"  floor {height[name]}  {name}" for name in sorted(height, key=lambda name: (-height[name], name))),
        ]
    )


if __name__ == "__main__":
    print(summary(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else LIBRARY))
