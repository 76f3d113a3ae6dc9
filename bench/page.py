"""The page of results, docs/benchmarks.md: made from the raw numbers alone, so that it can be made again from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from . import figure, numbers, text
from .goals import BOTH, BOTH_ON_CPU, ITERATIONS, WEIGHTS_FIRST, WEIGHTS_LATER, fastest, goals, roofs
from .measure import Row
from .numbers import Numbers, Spread

NAME = "benchmarks"
# What a study needed and what it spent: FLOPs, and of generation slot-steps.
WORK = {
    "training": ("needed", "computed"),
    "scoring": ("needed", "computed"),
    "generation": ("useful_slot_steps", "slot_steps"),
}


def write(rows: Sequence[Row], folder: Path) -> None:
    """The raw numbers, the page and the figure."""
    numbers.write(rows, folder / f"{NAME}.csv")
    told = Numbers(numbers.read(folder / f"{NAME}.csv"))
    (folder / f"{NAME}.md").write_text(page(told))
    if told.cases("growth"):
        figure.draw(told, folder / f"{NAME}.svg")


def page(told: Numbers) -> str:
    sections = [text.OPENING, _machine(told), _goals(told), _training(told), _weighing(told), _generating(told)]
    sections += [_memory(told), _growth(told), _work(told), _workflow(told), _on_gpu(told), _cost(told), text.PUBLISHED]
    return "\n\n".join(sections) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, the first column to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(told: Numbers) -> str:
    return "## Machine\n\n" + _table_of_machine(told, "machine")


def _table_of_machine(told: Numbers, benchmark: str) -> str:
    names = dict.fromkeys(row.quantity for row in told.rows if row.benchmark == benchmark)
    return table(("", ""), [(name, told.one(benchmark, "", name)) for name in names])


def _goals(told: Numbers) -> str:
    rows = [(goal.metric, goal.found.text() if goal.found else "", goal.asked, goal.verdict) for goal in goals(told)]
    return text.GOALS + "\n\n" + table(("", "found", "goal", ""), rows)


def _training(told: Numbers) -> str:
    parts, head = [text.TRAINING], ("", "seconds", "pairs/s", "/ ours", "CPU / ours", "FLOPs / needed", "disagreement")
    for case in told.cases("training"):
        best = [fastest(told, case, kind) for kind in ("precomputed", "in the loop")]
        rows = [_trained(told, case, name, name in best) for name in told.contenders("training", case)]
        parts += [_sizes(told, "training", case), table(head, rows)]
    return "\n\n".join([*parts, text.TRAINING_CAVEATS])


def _trained(told: Numbers, case: str, name: str, best: bool) -> tuple[str, ...]:
    """One contender's line."""

    def of(contender: str, *quantities: str) -> Spread:
        return told.of("training", case, contender, *quantities)

    took, unlike = of(name, *BOTH), max(of(name, "disagreement").rounds)
    pairs, needed = (float(told.one("training", case, part)) for part in ("pairs", "forward_flops"))
    return (
        f"**{name}**" if best else name,
        took.text(),
        f"{pairs / took.median:.1f}",
        (took / of("ours", *BOTH)).text(),
        (of(name, *BOTH_ON_CPU) / of("ours", *BOTH_ON_CPU)).text(),
        f"{of(name, 'flops').median / (4 * needed):.2f}",  # a pass for the reference, three for the training
        f"{unlike:.0e}" if unlike else "",
    )


def _sizes(told: Numbers, benchmark: str, case: str) -> str:
    def of(name: str) -> float:
        return float(told.one(benchmark, case, name))

    return (
        f"Model {case}: {of('parameters') / 1e6:.1f} million parameters; {of('pairs'):.0f} pairs in {of('steps'):.0f} "
        f"steps; mean tokens {of('prompt'):.0f} of the prompt, {of('chosen'):.0f} of the chosen and "
        f"{of('rejected'):.0f} of the rejected answer."
    )


def _weighing(told: Numbers) -> str:
    parts = [text.WEIGHING]
    for case in told.cases("weighing"):
        names = ("student", "teacher", "teacher_again", "weights")
        student, teacher, again, arithmetic = (told.of("weighing", case, "ours", f"{name}_seconds") for name in names)
        first = told.of("weighing", case, "ours", *WEIGHTS_FIRST)
        four = first + told.of("weighing", case, "ours", *WEIGHTS_LATER) * (ITERATIONS - 1)
        rows = [
            ("published, one iteration", told.of("weighing", case, "published", "seconds").text()),
            ("ours: student reads both answers (the reference of training)", student.text()),
            ("ours: teacher reads both answers", teacher.text()),
            ("ours: teacher reads the generated answers alone", again.text()),
            ("ours: weights from log-probabilities", arithmetic.text(4)),
            ("ours, first iteration, student's pass counted", (first + student).text()),
            ("ours, four iterations, student's pass counted", (four + student * ITERATIONS).text()),
            ("ours, four iterations, student's pass not counted", four.text()),
        ]
        parts += [f"Models: {case}.", table(("", "seconds"), rows)]
    return "\n\n".join([*parts, text.WEIGHING_CAVEATS])


def _generating(told: Numbers) -> str:
    parts = [text.GENERATING]
    for case in told.cases("generating"):
        ours, rows = told.of("generating", case, "ours", "seconds"), []
        for name in told.contenders("generating", case):
            took, tokens = (told.of("generating", case, name, part) for part in ("seconds", "tokens"))
            useful, same = (told.of("generating", case, name, part) for part in ("useful", "same"))
            rows.append((name, (tokens / took).text(0), (took / ours).text(), useful.text(), f"{same.median:.0%}"))
        head = ("", "tokens/s", "seconds / ours", "useful slot-steps", "same answers")
        parts += [f"Model {case}.", table(head, rows)]
    return "\n\n".join([*parts, text.GENERATING_CAVEATS])


def _memory(told: Numbers) -> str:
    parts = [text.MEMORY]
    for case in told.cases("memory"):
        padded = told.of("memory", case, "padded", "bytes")
        found = {name: told.of("memory", case, name, "bytes") for name in told.contenders("memory", case)}
        rows = [(name, (taken * 1e-6).text(0), (taken / padded).text(3)) for name, taken in found.items()]
        parts.append(table(("", "MB above the model", "/ padded"), rows))
    return "\n\n".join(parts)


def _growth(told: Numbers) -> str:
    rows = []
    for case in told.cases("growth"):
        steps, names = float(told.one("growth", case, "steps")), list(figure.COLOURS)
        took = [told.of("growth", case, name, *BOTH) * (1 / steps) for name in names]
        flops = [told.of("growth", case, name, "flops") * (1e-9 / steps) for name in names]
        rows.append([case, *(one.text() for one in took), *(one.text(1) for one in flops)])
    head = (
        "",
        *(f"{name}, s" for name in ("ours", "TRL", "padded")),
        *(f"{n}, GFLOPs" for n in ("ours", "TRL", "padded")),
    )
    return "\n\n".join([text.GROWTH, *([table(head, rows)] if rows else [])])


def _work(told: Numbers) -> str:
    rows = []
    for case, parts in WORK.items():
        needed, spent = (told.total("work", case, part) for part in parts)
        found = told.contenders("work", case)
        if not found:
            continue
        ratio = f"{needed / spent if case == 'generation' else spent / needed:.3f}"
        rows.append(
            (
                f"{case}, {len(found)} {'models' if case == 'training' else 'files'}",
                *map(_short, (needed, spent)),
                ratio,
            )
        )
    if not rows:
        return f"{text.WORK}\n\n{text.NO_STUDY}"
    files = told.contenders("work", "scoring")
    alike = sum(float(told.one("work", "scoring", "alike", file)) for file in files) / max(len(files), 1)
    return "\n\n".join(
        [text.WORK, table(("", "needed", "spent", "ratio"), rows), text.WORK_CAVEATS.format(alike=alike)]
    )


def _workflow(told: Numbers) -> str:
    rows = []
    for case in told.cases("workflow"):
        jobs = int(told.one("workflow", case, "jobs"))
        for name in told.contenders("workflow", case):
            took, held = (told.of("workflow", case, name, part) for part in ("cpu_seconds", "bytes"))
            rows.append((f"{jobs:,} jobs: {name}", took.text(), (held * 1e-6).text(0)))
    return "\n\n".join([text.WORKFLOW, *([table(("", "CPU-seconds", "peak MB"), rows)] if rows else [])])


def _short(number: float) -> str:
    return f"{number:.0f}" if number < 1e8 else f"{number / 1e9:.1f} G"


def _on_gpu(told: Numbers) -> str:
    found = [goal for case in told.cases("training on a GPU") for goal in roofs(told, "training on a GPU", case)]
    if not found:
        return f"{text.ON_GPU}\n\n{text.NO_GPU}"
    rows = [(goal.metric, goal.found.text(), goal.asked, goal.verdict) for goal in found]
    parts = [_table_of_machine(told, "machine on a GPU"), table(("", "found", "goal", ""), rows)]
    return "\n\n".join([text.ON_GPU, *parts])


def _cost(told: Numbers) -> str:
    rows = []
    for stage in told.cases("cost"):
        flops, read, seconds = (float(told.one("cost", stage, part)) for part in ("flops", "bytes", "seconds"))
        rows.append((stage, f"{flops / 1e15:.1f}", f"{read / 1e12:.0f}", f"{seconds:.0f}", f"{2 * seconds / 60:.0f}"))
    head = ("50k prompts or pairs", "PFLOP", "TB read", "no sooner than, s", "at half of that speed, min")
    return "\n\n".join([text.COST, *([table(head, rows)] if rows else [])])
