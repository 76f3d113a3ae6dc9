"""Runs the tests of faults and bad inputs, prints what they have survived, and writes it to a file: `make faults`.

From that file comes a section of docs/robustness.md.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inputs import cell
from tabulate import tabulate

ROOT = Path(__file__).parents[2]
FILE = ROOT / "results" / "faults.json"
KINDS = ("interruptions", "storage")
TESTS = ("faults", "storage/test_system_calls.py", "manage/test_ending.py", "manage/test_adoption.py", "robustness")


class Tally:
    """A plugin of pytest: adds up what tests report by the fixture `record_property` and the marker `fault`."""

    def __init__(self) -> None:
        self.points: dict[str, Counter[str]] = {}
        self.faults: dict[tuple[str, ...], Counter[str]] = {}
        self.inputs: Counter[str] = Counter(tried=0, lost=0)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.user_properties += [("fault", marker.args) for marker in item.iter_markers("fault")]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or report.skipped:
            return
        for name, value in report.user_properties:
            if name == "kill points":
                stage, tried, lost = value
                self.points[stage] = Counter(tried=tried, lost=lost)
            elif name == "fault":
                self.faults.setdefault(tuple(value), Counter(tried=0, lost=0)).update(tried=1, lost=int(report.failed))
            elif name == "input":
                self.inputs.update(tried=1, lost=int(report.failed))

    def counts(self) -> dict[str, Any]:
        faults = [
            {"kind": kind, "broken": broken, "happens": happens, "seen": seen, **counter}
            for (kind, broken, happens, seen), counter in self.faults.items()
        ]
        return {"kill points": self.points, "faults": faults, "bad inputs": self.inputs}


def rows(counts: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """(what was done, how often, how often something was lost), the total last."""
    found = [(f"kill -9: {stage}", entry["tried"], entry["lost"]) for stage, entry in counts["kill points"].items()]
    for kind in KINDS:
        faults = [fault for fault in counts["faults"] if fault["kind"] == kind]
        found.append((kind, *(sum(fault[key] for fault in faults) for key in ("tried", "lost"))))
    found.append(("bad inputs", counts["bad inputs"]["tried"], counts["bad inputs"]["lost"]))
    yield from found
    yield "all", sum(row[1] for row in found), sum(row[2] for row in found)


def markdown(counts: dict[str, Any]) -> str:
    """The section of docs/robustness.md."""
    lines = ["| | tried | survived | lost |", "|---|--:|--:|--:|"]
    lines += [f"| {name} | {tried} | {tried - lost} | {lost} |" for name, tried, lost in rows(counts)]
    for kind in KINDS:
        lines += ["", f"### {kind.capitalize()}", "", "| what is broken | what happens | what you see | tried | lost |"]
        lines.append("|---|---|---|--:|--:|")
        for fault in (fault for fault in counts["faults"] if fault["kind"] == kind):
            cells = [cell(fault[key]) for key in ("broken", "happens", "seen")]
            lines.append(f"| {' | '.join(cells)} | {fault['tried']} | {fault['lost']} |")
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    tally = Tally()
    code = pytest.main(["-q", *(str(ROOT / "tests" / path) for path in TESTS)], plugins=[tally])
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(tally.counts(), indent=2) + "\n")
    table = [(name, tried, tried - lost, lost) for name, tried, lost in rows(tally.counts())]
    print(tabulate(table, headers=("", "tried", "survived", "lost")))
    sys.exit(code)
