"""What follows from the published numbers alone: the list of docs/published.md, computed from their cells."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from wspin.config.published import PublishedRow, read_published
from wspin.report.grim import DOCUMENTS, SIX, SIZES, attainable, failed_average, failed_share

FOLDER = Path(__file__).parents[1] / "config/published"
NAMES = dict(zip(SIX, ("ARC", "HellaSwag", "MMLU", "TruthfulQA", "Winogrande", "GSM8K"), strict=True))
DOMAINS = ("mmlu_humanities", "mmlu_social_sciences", "mmlu_stem", "mmlu_other")


def rows(file: str, table: str) -> dict[str, PublishedRow]:
    """Rows by name, without their variant where that is no part of which row it is."""
    found = [row for row in read_published(FOLDER / f"{file}.csv") if row.table == table]
    short = [row.name.partition(" (")[0] for row in found]
    return dict(zip(short if len(set(short)) == len(short) else (row.name for row in found), found, strict=True))


def score(row: PublishedRow, task: str = "average") -> float:
    return float(row.cells[task])


def mean(row: PublishedRow) -> float:
    return sum(score(row, task) for task in SIX) / len(SIX)


def shares(after: PublishedRow, before: PublishedRow) -> dict[str, float]:
    """What each task adds to the difference of two averages, the greatest first."""
    added = {NAMES[task]: (score(after, task) - score(before, task)) / len(SIX) for task in SIX}
    return dict(sorted(added.items(), key=lambda item: -item[1]))


def error(row: PublishedRow, task: str) -> float:
    """Standard error of a share, points."""
    return math.sqrt(score(row, task) * (100 - score(row, task)) / SIZES[task])


def listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:+.2f}" for name, value in values.items())


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def of_all(number: int, total: int) -> str:
    return f"all {total}" if number == total else f"{number} of {total}"


def points() -> Iterator[str]:
    """A paragraph for each observation."""
    one, nine, base = rows("swift_main", "Table 1"), rows("swift_main", "Table 9"), rows("qwen_base", "Table 5")["base"]
    sft, spin, swift, tis = one["sft"], one["spin"], one["swift@3"], one["tisdpo"]
    yield (
        "**The base model has no row.** The Qwen2 report's scores of it, from another harness, average "
        f"{mean(base):.2f}: {mean(base) - score(sft):+.2f} against SWIFT's SFT ({score(sft):.2f}), "
        f"{mean(base) - score(swift):+.2f} against SWIFT ({score(swift):.2f}). GSM8K goes from "
        f"{score(base, 'gsm8k'):.1f} to {score(sft, 'gsm8k'):.1f} (SFT) and {score(swift, 'gsm8k'):.1f} (SWIFT). If "
        "the two harnesses agree, most of the gain is recovery of what SFT lost. Base and SFT are therefore rows here."
    )
    gains, over = shares(swift, sft), shares(swift, spin)
    five = (score(swift) - score(spin)) * 6 - (score(swift, "gsm8k") - score(spin, "gsm8k"))
    ahead = [NAMES[task] for task in SIX if score(spin, task) > score(swift, task)]
    yield (
        f"**{next(iter(gains))} dominates.** SWIFT's average is {score(swift) - score(sft):+.2f} over SFT, by task "
        f"{listed(gains)}. Over SPIN it is {score(swift) - score(spin):+.2f}, of which GSM8K {over['GSM8K']:+.2f}; the "
        f"mean of the five others is {five / 5:+.2f}, and SPIN is ahead on {' and '.join(ahead)}. By iteration GSM8K "
        f"is {', '.join(nine[f'swift@{k}'].cells['gsm8k'] for k in range(4))}, each ± {error(swift, 'gsm8k'):.1f}."
    )
    noise = math.sqrt(sum(error(swift, task) ** 2 for task in SIX)) / len(SIX)
    spread = sorted(score(row) for row in nine.values())
    teachers = [score(row) for name, row in rows("swift_teachers", "Table 13").items() if name.startswith("swift")]
    four = rows("spin_main", "Table 4")
    spans = {
        "SWIFT's iterations": (spread[0], spread[-1]),
        "its teachers": (min(teachers), max(teachers)),
        "SPIN's last step": (score(four["spin@2"]), score(four["spin@3"])),
    }
    below = sum(high - low < math.sqrt(2) * noise for low, high in spans.values())
    yield (
        f"**No leaderboard table has error bars.** One average has a standard error of at most {noise:.2f}, over "
        "documents alone, and the difference of two averages over independent documents one of at most sqrt(2) x "
        f"{noise:.2f} = {math.sqrt(2) * noise:.2f}; over the same documents it should be smaller, which only the "
        f"answers would show. Below it {'is' if below == 1 else 'are'} {of_all(below, len(spans))} of the spans "
        f"{', '.join(f'{name} {low:.2f} to {high:.2f} ({high - low:.2f})' for name, (low, high) in spans.items())}."
    )
    gsm8k, mmlu = (lambda row, task=task: score(swift, task) - score(row, task) for task in ("gsm8k", "mmlu"))
    yield (
        f"**Text and table differ.** SWIFT's text has +7.22 on GSM8K and +4.03 on MMLU over SPIN; its table 1 has "
        f"{gsm8k(spin):+.2f} and {mmlu(spin):+.2f} over SPIN, {gsm8k(tis):+.2f} on GSM8K over TIS-DPO."
    )
    yield from checks()
    yield mmlu_domains(sft, nine)
    paper, cards = four["spin@1"], rows("spin_main", "leaderboard v1")["spin@1"]
    copied = sum(printed == four["sft"].cells.get(task) for task, printed in one["teacher"].cells.items())
    apart = {NAMES[task]: score(cards, task) - score(paper, task) for task in ("winogrande", "gsm8k")}
    yield (
        f"**Another harness gives other scores.** The same checkpoint of SPIN's iteration 1 has {listed(apart)} on the "
        "leaderboard against its paper. Scores compare within one build; of SWIFT's row of the teacher, "
        f"{of_all(copied, len(one['teacher'].cells))} cells are those of SPIN's."
    )


def checks() -> Iterator[str]:
    """What GRIM and the averages find."""
    every = [row for file in sorted(FOLDER.glob("*.csv")) for row in read_published(file)]
    failing: dict[tuple[str, str], PublishedRow] = {}
    for row in every:
        for task, printed in row.cells.items():
            if failed_share(task, printed):
                failing.setdefault((task, printed), row)
    chance = [sum(attainable(f"{k / 100:.2f}", n) for k in range(10_000)) / 10_000 for n in DOCUMENTS.values()]
    tables: dict[str, list[str]] = {}
    for (task, printed), row in failing.items():
        tables.setdefault(f"{row.source}, {row.table}, {row.name}", []).append(f"{NAMES[task]} {printed}")
    spin = [row for row in every if row.source.startswith("SPIN,")]
    untrained = [row for row in every if row.method in ("base", "sft", "teacher")]
    yield (
        f"**{counted(len(failing), 'cell')} cannot be a share of their task's documents** (GRIM; "
        f"{', '.join(f'{NAMES[task]} {n}' for task, n in DOCUMENTS.items())}; rounding and truncation accepted, equal "
        "cells of a task counted once): no number of right answers gives them. Of SPIN's paper "
        f"{passing(spin)} pass, of base, SFT and teacher {passing(untrained)}; of random numbers "
        f"{100 * min(chance):.0f} to {100 * max(chance):.0f} % would. Their origin is unknown: take them as "
        "approximate.\n\n" + "\n".join(f"   * {place}: {', '.join(found)}" for place, found in sorted(tables.items()))
    )
    averages = [row for row in every if {*SIX, "average"} <= row.cells.keys()]
    off = [row for row in averages if failed_average(row.cells)]
    wrong = "; ".join(
        f"{row.source}, {row.table}, {row.name}: {row.cells['average']}, where the {failed_average(row.cells)}"
        for row in off
    )
    others = "The other is" if len(off) == 1 else "The others are"
    yield (
        f"**{of_all(len(averages) - len(off), len(averages)).capitalize()} printed averages are those of their cells** "
        "within 0.01." + (f" {others} {wrong}: a cell, or the average, is wrong." if off else "")
    )


def passing(rows: Iterable[PublishedRow]) -> str:
    """How many of the checked cells are attainable shares."""
    failed = [failed_share(task, row.cells[task]) for row in rows for task in DOCUMENTS if task in row.cells]
    return of_all(failed.count(""), len(failed))


def mmlu_domains(sft: PublishedRow, nine: Mapping[str, PublishedRow]) -> str:
    weighted = {
        name: sum(score(row, task) * SIZES[task] for task in DOMAINS) / SIZES["mmlu"]
        for name, row in rows("swift_mmlu_domains", "Table 14").items()
    }
    iterations = [name for name in weighted if name != "base"]
    base = score(rows("qwen_base", "Table 5")["base"], "mmlu")
    return (
        f"**MMLU does not reconcile.** SWIFT's table 14, weighted by the sizes of the domains, gives the base model "
        f"{weighted['base']:.2f} and the iterations {', '.join(f'{weighted[name]:.2f}' for name in iterations)}; its "
        f"tables 1 and 9 have SFT at {score(sft, 'mmlu'):.2f} and the iterations at "
        f"{', '.join(nine[name].cells['mmlu'] for name in iterations)}, the Qwen2 report the base model at {base:.1f}."
    )


def markdown() -> str:
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points(), 1)) + "\n"
