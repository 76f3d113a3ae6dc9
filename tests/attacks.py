"""Hostile inputs, the tests that hold them off, and the table of them all in SECURITY.md."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inputs import cell, code

TESTS = Path(__file__).parent
KINDS = ("paths", "downloads", "packages", "secrets", "code", "data sets", "shared folders", "display", "malformed")


def attack(kind: str, input: str, outcome: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a test as holding off a hostile input; the arguments are constants, and a row of SECURITY.md.

    `outcome`: what happens, in a few words. A test with a parameter `outcome` gets it: the message that it compares.
    """
    assert kind in KINDS, kind

    def mark(test: Callable[..., Any]) -> Callable[..., Any]:
        names = test.__code__.co_varnames[: test.__code__.co_argcount]
        return pytest.mark.parametrize("outcome", [outcome], ids=[""])(test) if "outcome" in names else test

    return mark


def attacks() -> Iterator[tuple[str, str, str, str]]:
    """(kind, input, outcome, test) of every marked test, read from the files; a message that is compared is code."""
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text()
        if "@attack(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            for decorator in getattr(node, "decorator_list", ()):
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "attack":
                    kind, input, outcome = (ast.literal_eval(argument) for argument in decorator.args)
                    compared = "outcome" in [argument.arg for argument in node.args.args]
                    message = outcome.replace("{{", "{").replace("}}", "}")  # tests fill in addresses with `format`
                    shown = code(message) if compared else cell(outcome)
                    yield kind, cell(input), shown, f"`{file.relative_to(TESTS.parent)}:{node.name}`"


def markdown() -> str:
    """The tables of SECURITY.md: input, what happens, the test that holds it."""
    rows, lines = list(attacks()), []
    for kind in KINDS:
        if cells := [row for of, *row in rows if of == kind]:
            header = ["input", "what happens", "test"]
            lines += [f"### {kind.capitalize()} ({len(cells)})", "", f"| {' | '.join(header)} |", "|---|---|---|"]
            lines += [*(f"| {' | '.join(row)} |" for row in cells), ""]
    return "\n".join(lines)
