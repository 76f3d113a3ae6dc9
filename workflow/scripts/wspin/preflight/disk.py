"""What a study keeps on the disk, in GB by kind."""

from .estimates import Estimator
from .memory import GB, OPTIMIZER

# Two saved states are kept, and the older one is removed when a third is complete.
WRITING, KEPT = 3, 2


def disk(estimator: Estimator) -> dict[str, float]:
    """Models and tables that stay, and the states of the trainings that may run side by side at the end."""
    paths = estimator.paths
    trained = [*paths.trained_models, *paths.iteration_models()]
    parameters = {name: size.parameters for name in (*paths.fetched_models, *trained) if (size := estimator.size(name))}
    fetched = sum(2 * count for name, count in parameters.items() if name not in trained)
    models = sum(4 * count for name, count in parameters.items() if name in trained)
    states = sum(
        count * parameters[name] * (4 + OPTIMIZER[paths.train_settings(name).optimizer])
        for name, count in saved_states(estimator).items()
        if name in parameters
    )
    tokens = estimator.rows * (estimator.real + estimator.generated) * len(paths.iteration_models())
    kinds = {"fetched models": fetched, "trained models": models, "states": states, "tables": 24 * tokens}
    return {kind: size / GB for kind, size in kinds.items()}


def saved_states(estimator: Estimator) -> dict[str, int]:
    """Model -> states on the disk while the last training of every arm and fork, and every baseline's, runs.

    A training's own state stays until the first training that starts from its model is complete.
    """
    paths = estimator.paths
    trained = [*paths.trained_models, *paths.iteration_models()]
    starts = {name: paths.parent(name) for name in trained}
    last = [name for name in trained if name not in starts.values()]
    before = {starts[name] for name in last if starts[name] in trained}
    waiting = {name for name in before if all(child in last for child, start in starts.items() if start == name)}
    return dict.fromkeys(waiting, KEPT) | dict.fromkeys(last, WRITING)
