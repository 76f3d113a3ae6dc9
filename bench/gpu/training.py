"""Training and scoring of this library and of TRL, their peak memory beside preflight's estimates."""

from collections.abc import Iterator

from ..cases import shapes, training
from ..measure import Row


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in training.QUICK if quick else training.GPU:
        yield from training.measure("training", case, device, training.installed_peers())
        if case.shape.layers > 1:  # preflight takes a layer for the difference between two models
            rows = estimates(case).items()
            yield from (Row("training", case.name, "preflight", 0, *row) for row in rows)


def estimates(case: training.TrainingCase) -> dict[str, float]:
    """Bytes that preflight expects of training and scoring in bfloat16, by the quantities of their clocks."""
    from wspin.models.scratch import scratch_config
    from wspin.preflight import memory
    from wspin.preflight.sizes import Size

    size = Size(scratch_config(case.shape, shapes.EOS))
    settings = training.SETTINGS.model_copy(update={"token_budget": case.token_budget})
    return {
        "gpu_bytes": memory.GB * memory.training(size, settings, "bfloat16", 1),
        "reference_gpu_bytes": memory.GB * memory.scoring(size, "bfloat16", 4, case.token_budget),
    }
