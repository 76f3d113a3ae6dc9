"""docs/gpu.md from the stored results, or from none: the page says what has never run."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..measure import Row, label
from ..page.evaluation import timed_table
from ..page.goals import roofs
from ..page.numbers import Numbers
from ..page.text import table
from . import text
from .steps import STEPS, Ending, Result

NAME = "gpu"
MINUTES = 8.0


def write(results: Sequence[Result], facts: dict[str, Any], folder: Path) -> None:
    """Write the results and their page; `facts`: device, minutes and machine."""
    steps = [
        {"name": r.name, "seconds": round(r.seconds, 1), "outcome": r.ending.outcome, "reason": r.ending.reason}
        | {"rows": r.ending.rows}
        for r in results
    ]
    (folder / f"{NAME}.json").write_text(_json({**facts, "steps": steps}))
    (folder / f"{NAME}.md").write_text(page(read(folder / f"{NAME}.json")))


def _json(stored: dict[str, Any]) -> str:
    """Indented, but for a row, which is a line."""
    steps = stored.pop("steps")
    rows = [step.pop("rows") for step in steps]
    lines = json.dumps({**stored, "steps": [{**step, "rows": f"rows {i}"} for i, step in enumerate(steps)]}, indent=1)
    for i, of_step in enumerate(rows):
        listed = ",\n".join(f"    {json.dumps(row)}" for row in of_step)
        lines = lines.replace(f'"rows {i}"', f"[\n{listed}\n   ]" if of_step else "[]")
    return lines + "\n"


def read(path: Path) -> dict[str, Any] | None:
    """The stored results; None if there are none."""
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    stored["results"] = [
        Result(
            step["name"], step["seconds"], Ending(step["outcome"], step["reason"], tuple(Row(*r) for r in step["rows"]))
        )
        for step in stored.pop("steps")
    ]
    return stored


def page(stored: dict[str, Any] | None) -> str:
    """The page of stored results."""
    steps = table(("step", "what it runs", "share"), ((s.name, text.STEPS[s.name], f"{s.share:.0%}") for s in STEPS), 2)
    opening = text.OPENING.format(minutes=stored["minutes"] if stored else MINUTES)
    parts = [opening, *(_findings(stored) if stored else [text.NEVER])]
    return "\n\n".join([*parts, text.CHECKS.format(steps=steps), text.RUNNING]) + "\n"


def _findings(stored: dict[str, Any]) -> Iterable[str]:
    """What a run found: the machine, how every step ended, and its numbers."""
    device, results = stored["device"], stored["results"]
    if stored["quick"]:
        yield text.QUICK.format(device=device)
    yield "## Machine\n\n" + table(("", ""), stored["machine"].items(), 2)
    rows = [(r.name, _outcome(r.ending.outcome), _cell(r.ending.reason), f"{r.seconds:.0f}") for r in results]
    yield "## How it went\n\n" + table(("step", "outcome", "reason", "seconds"), rows, 3)
    for result in results:
        if result.ending.rows:
            yield SECTIONS[result.name](Numbers(result.ending.rows), label(result.name, device))


def _outcome(outcome: str) -> str:
    return outcome if outcome == "ok" else f"**{outcome}**"


def _cell(words: str) -> str:
    """Foreign text in a cell of a table."""
    from wspin.escaping import in_markdown

    return in_markdown(words).replace("|", r"\|")


def _tests(numbers: Numbers, benchmark: str) -> str:
    counts: dict[str, int] = {}
    for row in numbers.rows:
        counts[row.quantity] = counts.get(row.quantity, 0) + 1
    total = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    others = [(_cell(row.case), row.quantity, _cell(row.value)) for row in numbers.rows if row.quantity != "passed"]
    parts = ["## Tests", f"{total}.", *([table(("test", "outcome", "reason"), others, 3)] if others else [])]
    return "\n\n".join(parts)


def _attention(numbers: Numbers, benchmark: str) -> str:
    compared, costs, others = [], [], []
    for case in numbers.cases(benchmark):
        for name in numbers.contenders(benchmark, case):
            if numbers.of(benchmark, case, name, "logprobs"):
                parts = ("logprobs", "logprobs bound", "gradients", "gradients bound")
                compared.append((f"{case}, {name}", *(_number(numbers, benchmark, case, name, part) for part in parts)))
            else:
                parts = ("seconds", "gpu_bytes")
                costs.append((f"{case}: {name}", *(_number(numbers, benchmark, case, name, part) for part in parts)))
        figures = [row for row in numbers.rows if (row.case, row.contender) == (case, "")]
        if figures:
            others.append(f"{case}: {', '.join(f'{row.quantity} {_digits(row.value)}' for row in figures)}.")
    head = ("", "log-probabilities", "bound", "gradients", "bound")
    tables = [table(head, compared), table(("", "seconds", "GB"), costs)]
    return "\n\n".join([text.ATTENTION, *tables, *others])


def _number(numbers: Numbers, benchmark: str, case: str, name: str, quantity: str, digits: int = 3) -> str:
    """The median of a quantity, bytes as GB; empty if it was not measured."""
    value = numbers.of(benchmark, case, name, quantity)
    return _digits(value.median * (1e-9 if quantity.endswith("bytes") else 1), digits) if value else ""


def _digits(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}"


def _study(numbers: Numbers, benchmark: str) -> str:
    rows = [
        (stage, *(_number(numbers, benchmark, stage, "", part) for part in ("jobs", "seconds", "gpu_bytes")))
        for stage in numbers.cases(benchmark)
    ]
    return f"{text.STUDY}\n\n{table(('stage', 'jobs', 'seconds', 'GB of the GPU'), rows)}"


def _training(numbers: Numbers, benchmark: str) -> str:
    parts = [text.TRAINING]
    for case in numbers.cases(benchmark):
        ours, names = numbers.of(benchmark, case, "ours", *SECONDS), numbers.contenders(benchmark, case)
        rows = []
        for name in names:
            seconds = numbers.of(benchmark, case, name, *SECONDS)
            peaks = [_number(numbers, benchmark, case, name, part) for part in ("gpu_bytes", "reference_gpu_bytes")]
            rows.append(
                (name, seconds.text() if seconds else "", (seconds / ours).text() if seconds and ours else "", *peaks)
            )
        parts.append(table(("", "seconds", "/ ours", "GB, training", "GB, scoring"), rows))
        shares = [
            f"{goal.metric.split(',')[0]} {goal.value.text()}" for goal in roofs(numbers, benchmark, case) if goal.value
        ]
        parts += [f"Share of the roof: {', '.join(shares)}."] * bool(shares)
        parts += [text.NO_TRL] * (not any(name.startswith("TRL") for name in names))
    return "\n\n".join(parts)


SECONDS = ("reference_seconds", "seconds")  # the reference pass and the steps


def _evaluation(numbers: Numbers, benchmark: str) -> str:
    peaks = []
    for suite in numbers.cases(benchmark):
        names = [
            name for name in numbers.contenders(benchmark, suite) if numbers.of(benchmark, suite, name, "gpu_bytes")
        ]
        peaks += [(f"{suite}: {name}", _number(numbers, benchmark, suite, name, "gpu_bytes")) for name in names]
    return "\n\n".join([text.EVALUATION, timed_table(numbers, benchmark), table(("", "GB"), peaks)])


SECTIONS = {
    "tests": _tests,
    "attention": _attention,
    "study": _study,
    "training": _training,
    "evaluation": _evaluation,
}
