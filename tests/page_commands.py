"""The shell commands of the pages: those of fenced blocks, and those named in a line."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "config").rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELLS = ("bash", "console", "sh", "shell")
ENVIRONMENT = re.compile(r"[A-Z_]+=\S*")
SPAN = re.compile(r"(`+) ?(.+?) ?\1", re.DOTALL)
NAMED = re.compile(r"(?:[A-Z_]+=\S+ )*(?:snakemake|make|python|pytest) ")
ENDS = ("&&", "||", ";", "|")


class Command(NamedTuple):
    """A command of a page, as words, without what the environment is given before it."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {' '.join(self.words)}"

    @property
    def tool(self) -> str:
        return self.words[0]


def fences(page: Path) -> Iterator[tuple[int, str, str]]:
    """(first line, language, text) of the fenced blocks of a page."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        yield text.count("\n", 0, block.start()) + 2, block[2], block[3]


def split(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, words) of every command of a shell block; what follows a `#` is left out."""
    number, lines = 0, text.splitlines()
    while number < len(lines):
        first, line = number, lines[number]
        while line.endswith("\\"):
            number += 1
            line = line[:-1] + lines[number]
        number += 1
        tokens = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        tokens.whitespace_split = True
        for ends, group in itertools.groupby(tokens, ENDS.__contains__):
            words = tuple(itertools.dropwhile(ENVIRONMENT.fullmatch, group))
            if words and not ends:
                yield first, words


def all_commands() -> list[Command]:
    """The commands of all pages, each once on a page."""
    found: dict[tuple[str, tuple[str, ...]], Command] = {}
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text()
        blocks = [(line, block) for line, language, block in fences(page) if language in SHELLS]
        unfenced = FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
        for span in SPAN.finditer(unfenced):
            if NAMED.match(span[2]):
                blocks.append((unfenced.count("\n", 0, span.start()) + 1, span[2].replace("\n", " ")))
        for first, block in blocks:
            for below, words in split(block):
                found.setdefault((name, words), Command(name, first + below, words))
    return list(found.values())
