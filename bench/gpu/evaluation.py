"""Evaluation of this library and of lm-eval's HFLM, its peak memory beside preflight's estimate."""

from collections.abc import Iterator

from ..cases import evaluation, shapes
from ..measure import Row


def run(quick: bool, device: str) -> Iterator[Row]:
    case = evaluation.QUICK if quick else evaluation.GPU
    yield from evaluation.measure(case, device)
    if case.shape.layers > 1:  # preflight takes a layer for the difference between two models
        for suite in case.documents:
            if suite != evaluation.GENERATED:
                yield Row("evaluation", suite, "preflight", 0, "gpu_bytes", estimate(case))


def estimate(case: evaluation.EvaluationCase) -> float:
    """Bytes that preflight expects of log-likelihoods in bfloat16."""
    from wspin.models.scratch import scratch_config
    from wspin.preflight import memory
    from wspin.preflight.sizes import Size

    size = Size(scratch_config(case.shape, shapes.EOS))
    return memory.GB * memory.scoring(size, "bfloat16", 4, case.token_budget)
