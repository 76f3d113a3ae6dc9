"""The page of results, docs/benchmarks.md, from the raw numbers alone: it can be rendered again at any time."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..measure import Row
from . import evaluation, figure, text
from .goals import (
    ITERATIONS,
    SCALE,
    TRAINING_CPU_SECONDS,
    TRAINING_SECONDS,
    WEIGHTS_FIRST,
    WEIGHTS_LATER,
    Goal,
    fastest,
    goals,
    roofs,
)
from .numbers import Numbers, Spread, read
from .numbers import write as write_rows
from .text import table

NAME = "benchmarks"
# What a study needed and what it spent: FLOPs; for generation, slot-steps.
WORK = {
    "training": ("needed", "computed"),
    "scoring": ("needed", "computed"),
    "generation": ("useful_slot_steps", "slot_steps"),
}


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write the raw numbers, the page and the figure."""
    write_rows(rows, folder / f"{NAME}.csv")
    numbers = Numbers(read(folder / f"{NAME}.csv"))
    (folder / f"{NAME}.md").write_text(page(numbers))
    if numbers.cases("growth"):
        figure.draw(numbers, folder / f"{NAME}.svg")


def page(numbers: Numbers) -> str:
    sections = [
        text.OPENING,
        _machine(numbers),
        _goals(numbers),
        _training(numbers),
        _weighing(numbers),
        _generating(numbers),
        evaluation.section(numbers),
        _preparation(numbers),
    ]
    sections += [
        _scale(numbers),
        _rules(numbers),
        _memory(numbers),
        _growth(numbers),
        _work(numbers),
        _workflow(numbers),
        _on_gpu(numbers),
        _cost(numbers),
        text.PUBLISHED,
    ]
    return "\n\n".join(sections) + "\n"


def _machine(numbers: Numbers) -> str:
    return "## Machine\n\n" + _machine_table(numbers, "machine")


def _machine_table(numbers: Numbers, benchmark: str) -> str:
    names = dict.fromkeys(row.quantity for row in numbers.rows if row.benchmark == benchmark)
    return table(("", ""), [(name, numbers.single(benchmark, "", name)) for name in names])


def _goals(numbers: Numbers) -> str:
    return text.GOALS + "\n\n" + _goal_table(goals(numbers))


def _goal_table(rows: Iterable[Goal]) -> str:
    cells = [(goal.metric, goal.value.text() if goal.value else "", goal.text, goal.verdict) for goal in rows]
    return table(("", "found", "goal", ""), cells)


def _training(numbers: Numbers) -> str:
    parts, head = [text.TRAINING], ("", "seconds", "pairs/s", "/ ours", "CPU / ours", "FLOPs / needed", "disagreement")
    for case in numbers.cases("training"):
        best = [fastest(numbers, case, kind) for kind in ("precomputed", "in the loop")]
        rows = [_training_row(numbers, case, name, name in best) for name in numbers.contenders("training", case)]
        parts += [_sizes(numbers, "training", case), table(head, rows)]
    return "\n\n".join([*parts, text.TRAINING_CAVEATS])


def _training_row(numbers: Numbers, case: str, name: str, best: bool) -> tuple[str, ...]:

    def of(contender: str, *quantities: str) -> Spread:
        return numbers.of("training", case, contender, *quantities)

    seconds, disagreement = of(name, *TRAINING_SECONDS), max(of(name, "disagreement").rounds)
    pairs, needed = (float(numbers.single("training", case, part)) for part in ("pairs", "forward_flops"))
    return (
        f"**{name}**" if best else name,
        seconds.text(),
        f"{pairs / seconds.median:.1f}",
        (seconds / of("ours", *TRAINING_SECONDS)).text(),
        (of(name, *TRAINING_CPU_SECONDS) / of("ours", *TRAINING_CPU_SECONDS)).text(),
        f"{of(name, 'flops').median / (4 * needed):.2f}",  # a pass for the reference, three for the training
        f"{disagreement:.0e}" if disagreement else "",
    )


def _sizes(numbers: Numbers, benchmark: str, case: str) -> str:
    def of(name: str) -> float:
        return float(numbers.single(benchmark, case, name))

    return (
        f"Model {case}: {of('parameters') / 1e6:.1f} million parameters; {of('pairs'):.0f} pairs in {of('steps'):.0f} "
        f"steps; mean tokens {of('prompt'):.0f} of the prompt, {of('chosen'):.0f} of the chosen and "
        f"{of('rejected'):.0f} of the rejected answer."
    )


def _weighing(numbers: Numbers) -> str:
    parts = [text.WEIGHING]
    for case in numbers.cases("weighing"):
        names = ("student", "teacher", "teacher_again", "weights")
        student, teacher, again, arithmetic = (
            numbers.of("weighing", case, "ours", f"{name}_seconds") for name in names
        )
        first = numbers.of("weighing", case, "ours", *WEIGHTS_FIRST)
        four = first + numbers.of("weighing", case, "ours", *WEIGHTS_LATER) * (ITERATIONS - 1)
        rows = [
            ("published, one iteration", numbers.of("weighing", case, "published", "seconds").text()),
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


def _generating(numbers: Numbers) -> str:
    parts = [text.GENERATING]
    for case in numbers.cases("generating"):
        ours, rows = numbers.of("generating", case, "ours", "seconds"), []
        for name in numbers.contenders("generating", case):
            seconds, tokens = (numbers.of("generating", case, name, part) for part in ("seconds", "tokens"))
            useful, same = (numbers.of("generating", case, name, part) for part in ("useful", "same"))
            rows.append(
                (name, (tokens / seconds).text(0), (seconds / ours).text(), useful.text(), f"{same.median:.0%}")
            )
        head = ("", "tokens/s", "seconds / ours", "useful slot-steps", "same answers")
        parts += [f"Model {case}.", table(head, rows)]
    return "\n\n".join([*parts, text.GENERATING_CAVEATS])


def _memory(numbers: Numbers) -> str:
    parts = [text.MEMORY]
    for case in numbers.cases("memory"):
        padded = numbers.of("memory", case, "padded", "bytes")
        peaks = {name: numbers.of("memory", case, name, "bytes") for name in numbers.contenders("memory", case)}
        rows = [(name, (peak * 1e-6).text(0), (peak / padded).text(3)) for name, peak in peaks.items()]
        parts.append(table(("", "MB above the model", "/ padded"), rows))
    return "\n\n".join(parts)


def _growth(numbers: Numbers) -> str:
    rows = []
    for case in numbers.cases("growth"):
        steps, names = float(numbers.single("growth", case, "steps")), list(figure.COLOURS)
        seconds = [numbers.of("growth", case, name, *TRAINING_SECONDS) * (1 / steps) for name in names]
        flops = [numbers.of("growth", case, name, "flops") * (1e-9 / steps) for name in names]
        rows.append([case, *(spread.text() for spread in seconds), *(spread.text(1) for spread in flops)])
    head = ["", *(f"{name}, {unit}" for unit in ("s", "GFLOPs") for name in figure.COLOURS)]
    return "\n\n".join([text.GROWTH, *([table(head, rows)] if rows else [])])


def _work(numbers: Numbers) -> str:
    rows = []
    for case, parts in WORK.items():
        needed, spent = (numbers.total("work", case, part) for part in parts)
        count = len(numbers.contenders("work", case))
        if not count:
            continue
        ratio = f"{needed / spent if case == 'generation' else spent / needed:.3f}"
        name = f"{case}, {count} {'models' if case == 'training' else 'files'}"
        rows.append((name, *map(_short, (needed, spent)), ratio))
    if not rows:
        return f"{text.WORK}\n\n{text.NO_STUDY}"
    files = numbers.contenders("work", "scoring")
    alike = sum(float(numbers.single("work", "scoring", "alike", file)) for file in files) / max(len(files), 1)
    caveats = text.WORK_CAVEATS.format(alike=alike)
    return "\n\n".join([text.WORK, table(("", "needed", "spent", "ratio"), rows), caveats])


def _preparation(numbers: Numbers) -> str:
    rows = [
        (name, numbers.of("preparation", "shard", name, "cpu_seconds").text())
        for name in numbers.contenders("preparation", "shard")
    ]
    parts = [table(("", "CPU-seconds"), rows), *_own_machine(numbers, "preparation")] if rows else []
    return "\n\n".join([text.PREPARATION, *parts])


def _own_machine(numbers: Numbers, benchmark: str) -> list[str]:
    """A sentence on the machine of a section that is measured by itself."""
    machine = numbers.single(benchmark, "machine", "processor")
    return [f"The machine of this section: {machine}."] if machine else []


def _scale(numbers: Numbers) -> str:
    rows = []
    for case, name in SCALE.items():
        sizes = numbers.contenders("scale", case)
        if not sizes:
            continue
        count, seconds, peak, limit = (
            np.array([numbers.of("scale", case, size, quantity).median for size in sizes])
            for quantity in ("count", "cpu_seconds", "bytes", "limit_bytes")
        )
        more = ["", ""]
        if len(sizes) > 1 and case != "weigh":  # of which both sizes are one shard
            more = [f"{(of[-1] - of[0]) / (count[-1] - count[0]):.1f}" for of in (1e3 * seconds, peak / 1e3)]
        cells = (f"{seconds[-1]:.1f}", more[0], f"{peak[-1] / 1e9:.2f}", more[1], f"{limit[-1] / 1e9:.0f}")
        rows.append((name, *cells))
    head = ("", "CPU-seconds", "ms a prompt more", "peak GB", "KB a prompt more", "GB of `resources`")
    parts = [table(head, rows), *_own_machine(numbers, "scale")] if rows else []
    return "\n\n".join([text.SCALE, *parts])


def _rules(numbers: Numbers) -> str:
    rows = []
    for stage in (stage for stage in numbers.cases("rules") if stage != "machine"):
        jobs, seconds, peak, limit = (
            numbers.of("rules", stage, "", quantity).median
            for quantity in ("jobs", "cpu_seconds", "bytes", "limit_bytes")
        )
        rows.append((stage, f"{jobs:.0f}", f"{seconds:.1f}", f"{peak / 1e9:.2f}", f"{limit / 1e9:.0f}"))
    head = ("stage", "jobs", "CPU-seconds", "peak GB", "GB of `resources`")
    parts = [table(head, rows), *_own_machine(numbers, "rules")] if rows else []
    return "\n\n".join([text.RULES, *parts])


def _workflow(numbers: Numbers) -> str:
    rows, shares = [], []
    for case in numbers.cases("workflow"):
        jobs = int(numbers.single("workflow", case, "jobs"))
        for name in numbers.contenders("workflow", case):
            seconds, peak = (numbers.of("workflow", case, name, part) for part in ("cpu_seconds", "bytes"))
            rows.append((f"{jobs:,} jobs: {name}", seconds.text(), (peak * 1e-6).text(0)))
        if share := numbers.single("workflow", case, "own_share"):
            shares.append(f"{float(share):.1%}")
    parts = [table(("", "CPU-seconds", "peak MB"), rows)] if rows else []
    parts += [text.OWN_SHARE.format(shares=" and ".join(shares))] if shares else []
    return "\n\n".join([text.WORKFLOW, *parts])


def _short(number: float) -> str:
    return f"{number:.0f}" if number < 1e8 else f"{number / 1e9:.1f} G"


def _on_gpu(numbers: Numbers) -> str:
    shares = [goal for case in numbers.cases("training on a GPU") for goal in roofs(numbers, "training on a GPU", case)]
    if not shares:
        return f"{text.ON_GPU}\n\n{text.NO_GPU}"
    parts = [_machine_table(numbers, "machine on a GPU"), _goal_table(shares)]
    parts += [timed] if (timed := evaluation.timed_table(numbers, "evaluation on a GPU")) else []
    return "\n\n".join([text.ON_GPU, *parts])


def _cost(numbers: Numbers) -> str:
    rows = []
    for stage in numbers.cases("cost"):
        flops, read, seconds = (float(numbers.single("cost", stage, part)) for part in ("flops", "bytes", "seconds"))
        rows.append((stage, f"{flops / 1e15:.1f}", f"{read / 1e12:.0f}", f"{seconds:.0f}", f"{2 * seconds / 60:.0f}"))
    head = ("50k prompts or pairs", "PFLOP", "TB read", "no sooner than, s", "at half of that speed, min")
    return "\n\n".join([text.COST, *([table(head, rows)] if rows else [])])
