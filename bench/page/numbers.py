"""Raw numbers by name, and their totals, ratios within a round, and medians."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from ..measure import Row


def read(path: Path) -> list[Row]:
    """The rows of a file, values as text; empty if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(*row[:3], int(row[3]), *row[4:]) for row in list(csv.reader(file))[1:]]


def write(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(row._replace(value=_text(row.value)) for row in rows)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Spread:
    """A quantity over the rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    def text(self, digits: int = 2) -> str:
        low, high = (f"{extreme(self.rounds):.{digits}f}" for extreme in (min, max))
        middle = f"{self.median:.{digits}f}"
        return middle if low == high else f"{middle} ({low} to {high})"

    def __bool__(self) -> bool:
        return bool(self.rounds)

    def __truediv__(self, other: Self) -> Self:
        """Round by round: what slowed the machine down in a round affected both."""
        return Spread(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=False)))

    def __add__(self, other: Self) -> Self:
        return Spread(tuple(a + b for a, b in zip(self.rounds, other.rounds, strict=True)))

    def __mul__(self, factor: float) -> Self:
        return Spread(tuple(factor * value for value in self.rounds))


class Numbers:
    """The rows of a file, by benchmark, case, contender and quantity."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows
        self.by_name: dict[tuple[str, ...], list[Any]] = {}
        for row in sorted(rows, key=lambda row: row.round):
            self.by_name.setdefault((row.benchmark, row.case, row.contender, row.quantity), []).append(row.value)

    def of(self, benchmark: str, case: str, contender: str, *quantities: str) -> Spread:
        """The sum of quantities, round by round; missing ones count as zero, and the spread is empty if all are."""
        values = [self.by_name.get((benchmark, case, contender, name)) for name in quantities]
        spreads = [Spread(tuple(map(float, rounds))) for rounds in values if rounds]
        return sum(spreads[1:], spreads[0]) if spreads else Spread(())

    def single(self, benchmark: str, case: str, quantity: str, contender: str = "") -> Any:
        """A quantity without rounds, as text; None if it is missing."""
        return (self.by_name.get((benchmark, case, contender, quantity)) or [None])[0]

    def cases(self, benchmark: str) -> list[str]:
        return list(dict.fromkeys(row.case for row in self.rows if row.benchmark == benchmark))

    def contenders(self, benchmark: str, case: str) -> list[str]:
        names = (row.contender for row in self.rows if (row.benchmark, row.case) == (benchmark, case))
        return [name for name in dict.fromkeys(names) if name]

    def total(self, benchmark: str, case: str, quantity: str) -> float:
        """The sum over all contenders."""
        names = self.contenders(benchmark, case)
        return sum(float(self.single(benchmark, case, quantity, name) or 0) for name in names)
