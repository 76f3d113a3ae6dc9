"""The page's section on evaluation."""

from . import text
from .goals import fastest_batch
from .numbers import Numbers, Spread
from .text import table

COUNTED_PEERS = ("HFLM, batch 1", "HFLM, batch 16")
COUNTED_PARTS = ("documents", "requests")


def section(numbers: Numbers) -> str:
    rows = []
    for suite in numbers.cases("evaluation"):
        needed, *work = (
            numbers.of("evaluation", suite, name, "counted_flops") for name in ("", "ours", *COUNTED_PEERS)
        )
        if needed:
            documents, requests = (
                int(numbers.single("evaluation", suite, f"counted_{part}")) for part in COUNTED_PARTS
            )
            ratios = (work[0] / needed, *(peer / work[0] for peer in work[1:]))
            cells = (
                f"{documents:,}",
                f"{requests:,}",
                f"{needed.median / 1e15:.1f}",
                *(ratio.text() for ratio in ratios),
            )
            rows.append((suite, *cells))
    head = ("", *COUNTED_PARTS, "needed, PFLOP", "ours / needed", *(f"{name} / ours" for name in COUNTED_PEERS))
    counted = [text.EVALUATION_COUNTED, table(head, rows)] if rows else []
    timed = timed_table(numbers, "evaluation")
    measured = [text.EVALUATION_TIMED, timed, text.EVALUATION_CAVEATS] if timed else []
    return "\n\n".join([text.EVALUATION, *counted, *measured])


def timed_table(numbers: Numbers, benchmark: str) -> str:
    """A row per suite and contender; empty if nothing was measured."""
    rows = []
    for suite in numbers.cases(benchmark):
        best = fastest_batch(numbers, benchmark, suite)
        names = [name for name in numbers.contenders(benchmark, suite) if numbers.of(benchmark, suite, name, "seconds")]
        names.sort(key=lambda name: 0 if name == "ours" else int(name.rpartition(" ")[2]))
        rows += [_row(numbers, benchmark, suite, name, name == best) for name in names]
    head = (
        "",
        "seconds",
        "/ ours",
        "CPU / ours",
        "FLOPs / needed",
        "largest difference",
        "equal choices",
        "equal flags",
    )
    return table(head, rows) if rows else ""


def _row(numbers: Numbers, benchmark: str, suite: str, name: str, best: bool) -> tuple[str, ...]:
    def of(contender: str, quantity: str) -> Spread:
        return numbers.of(benchmark, suite, contender, quantity)

    def share(quantity: str) -> str:
        return f"{of(name, quantity).median:.1%}" if of(name, quantity) and name != "ours" else ""

    work, difference = of(name, "flops") / of("", "needed"), of(name, "difference")
    label = f"{suite}: {name}"
    return (
        f"**{label}**" if best else label,
        of(name, "seconds").text(),
        *((of(name, part) / of("ours", part)).text() for part in ("seconds", "cpu_seconds")),
        f"{work.median:.2f}" if work else "",
        f"{max(difference.rounds):.0e}" if difference and name != "ours" else "",
        share("decisions"),
        share("greedy"),
    )
