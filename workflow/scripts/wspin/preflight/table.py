"""The estimates as a table, with what they assume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from wspin.storage.text_tables import text_table

from .estimates import Estimate, Estimates

# The table


def estimate_table(estimates: list[Estimate], made: Estimates) -> str:
    """The estimates to be read, with what they assume below."""
    price = made.assumed.price
    header = ["stage", "what", "jobs", "GPUs", "GB a GPU", "PFLOP", "minutes a job", "GPU hours", "price"]
    lines = []
    for one in merged(estimates):
        numbers = (one.memory, one.petaflop, 60 * one.hours, one.gpu_hours, one.gpu_hours * price)
        lines.append([one.stage, one.what, one.jobs, one.gpus, *map(_number, numbers)])
    hours = sum(one.gpu_hours for one in estimates)
    work = sum(one.petaflop for one in estimates)
    jobs = sum(one.jobs for one in estimates)
    lines.append(["all", "", jobs, "", "", _number(work), "", _number(hours), _number(hours * price)])
    text = text_table(header, lines, "llrrrrrrr", "simple")
    return "\n".join([text, "", *_notes(made)])


def merged(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Estimates that follow each other and say the same of each job, as one: `spin/ite1 ... spin/ite3`."""
    found: list[Estimate] = []
    for _, alike in groupby(estimates, key=lambda one: (one.stage, one.gpus, one.memory, one.petaflop, one.hours)):
        first, *others = alike
        alone = others[-1].what.split()[-1] if others else ""  # behind the words that both have
        what = f"{first.what} ... {alone}" if others else first.what
        work = first.petaflop + sum(one.petaflop for one in others)
        found.append(replace(first, what=what, jobs=first.jobs * (1 + len(others)), petaflop=work))
    return found


def _notes(made: Estimates) -> Iterator[str]:
    assumed, mean = made.assumed, made.lengths
    yield (
        f"Mean tokens: prompt {mean.prompt:.0f}, real answer {mean.response:.0f}, generated {mean.generated:.0f} "
        f"({mean.source})."
    )
    yield (
        f"Assumed: {assumed.tflops:g} TFLOP/s, {assumed.bandwidth_tb:g} TB/s and {assumed.gpu_memory_gb:g} GB a GPU, "
        f"{100 * assumed.utilisation:g} % of both reached, {assumed.price:g} a GPU hour; start-up is not counted."
    )
    disk = ", ".join(f"{kind} {_number(size)}" for kind, size in made.disk().items())
    yield f"Disk, GB: {disk}; together {_number(sum(made.disk().values()))}."
    if unknown := [name for name in made.paths.fetched_models if name not in made.sizes]:
        yield f"Not estimated, no config.json of them is here yet: {', '.join(unknown)}, and what is made from them."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
