"""The estimates as a table, with what they assume."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from wspin.storage.text_tables import text_table

from .estimates import Estimate, Estimator


def estimate_table(estimates: list[Estimate], estimator: Estimator) -> str:
    """The estimates as a table, and below it what they assume."""
    price = estimator.assumed.price
    header = ["stage", "what", "jobs", "GPUs", "GB a GPU", "PFLOP", "minutes a job", "GPU hours", "price"]
    lines = []
    for row in merged(estimates):
        numbers = (row.memory, row.petaflop, 60 * row.hours, row.gpu_hours, row.gpu_hours * price)
        lines.append([row.stage, row.what, row.jobs, row.gpus, *map(_number, numbers)])
    hours = sum(estimate.gpu_hours for estimate in estimates)
    work = sum(estimate.petaflop for estimate in estimates)
    jobs = sum(estimate.jobs for estimate in estimates)
    lines.append(["all", "", jobs, "", "", _number(work), "", _number(hours), _number(hours * price)])
    table = text_table(header, lines, "llrrrrrrr", "simple")
    return "\n".join([table, "", *_notes(estimator)])


def merged(estimates: Iterable[Estimate]) -> list[Estimate]:
    """The estimates, neighbours of equal jobs as one: `spin/ite1 ... spin/ite3`."""
    rows = []
    for _, equal in groupby(estimates, key=lambda estimate: replace(estimate, name="", jobs=0)):
        first, *others = equal
        name = f"{first.name} ... {others[-1].name}" if others else first.name
        work = first.petaflop + sum(estimate.petaflop for estimate in others)
        rows.append(replace(first, name=name, jobs=first.jobs * (1 + len(others)), petaflop=work))
    return rows


def _notes(estimator: Estimator) -> Iterator[str]:
    assumed, mean = estimator.assumed, estimator.lengths
    yield (
        f"Mean tokens: prompt {mean.prompt:.0f}, real answer {mean.response:.0f}, generated {mean.generated:.0f} "
        f"({mean.source})."
    )
    yield (
        f"Assumed: {assumed.tflops:g} TFLOP/s, {assumed.bandwidth_tb:g} TB/s and {assumed.gpu_memory_gb:g} GB a GPU, "
        f"{100 * assumed.utilisation:g} % of both reached, {assumed.price:g} a GPU hour; start-up is not counted."
    )
    disk = ", ".join(f"{kind} {_number(size)}" for kind, size in estimator.disk().items())
    yield f"Disk, GB: {disk}; together {_number(sum(estimator.disk().values()))}."
    if unknown := [name for name in estimator.paths.fetched_models if name not in estimator.sizes]:
        yield f"Not estimated, for want of a config.json: {', '.join(unknown)}, and the models that descend from them."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
