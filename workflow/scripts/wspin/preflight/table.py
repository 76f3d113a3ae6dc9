"""The estimates as a table, with what they assume."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from wspin.storage.text_tables import text_table

from .disk import disk
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
    least = "at least" if unknown_models(estimator) else ""
    lines.append(["all", least, jobs, "", "", _number(work), "", _number(hours), _number(hours * price)])
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


def unknown_models(estimator: Estimator) -> list[str]:
    """Fetched models without a config: they and their descendants are left out, so that all sums are "at least"."""
    return [name for name in estimator.paths.fetched_models if name not in estimator.sizes]


def _notes(estimator: Estimator) -> Iterator[str]:
    assumed, mean = estimator.assumed, estimator.lengths
    yield (
        f"Mean tokens: prompt {mean.prompt:.0f}, real answer {mean.response:.0f}, generated {mean.generated:.0f} "
        f"({mean.source})."
    )
    yield _suites(estimator)
    yield (
        f"Assumed of a GPU: {assumed.tflops.bfloat16:g} TFLOP/s in bfloat16, {assumed.tflops.float32:g} in float32, "
        f"{assumed.bandwidth_tb:g} TB/s, {100 * assumed.utilisation:g} % of these reached; "
        f"{assumed.gpu_memory_gb:g} GB; {assumed.price:g} an hour."
    )
    yield (
        f"Assumed of a job: {assumed.start_seconds:g} s to start, {assumed.disk_gb:g} GB/s from and to the disk, "
        f"{assumed.launch_ms:g} ms to launch a layer; without queueing, preparation on the CPU, communication and "
        f"failed attempts."
    )
    sizes, least = disk(estimator), "at least " * bool(unknown_models(estimator))
    kinds = ", ".join(f"{kind} {_number(size)}" for kind, size in sizes.items())
    yield f"Disk, GB: {kinds}; together {least}{_number(sum(sizes.values()))}."
    if unknown := unknown_models(estimator):
        yield f"Not estimated, for want of a config.json: {', '.join(unknown)}, and the models that descend from them."


def _suites(estimator: Estimator) -> str:
    """Which suites are counted, for all models of the tables, and which assumed."""
    roots = {estimator.root(model) for model in estimator.paths.table_models()} & estimator.sizes.keys()
    names = list(estimator.study.eval.suites)
    counted = [name for name in names if roots and all((root, name) in estimator.requests for root in roots)]
    assumed = [name for name in names if name not in counted]
    parts = [f"counted from their requests: {', '.join(counted)}"] if counted else []
    tokens = f"{estimator.assumed.evaluation_tokens:,.0f} tokens each until they are fetched"
    parts += [f"assumed, {tokens}: {', '.join(assumed)}"] if assumed else []
    return f"Suites {'; '.join(parts)}."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
