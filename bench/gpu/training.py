"""Training and scoring of this library and of TRL."""

from collections.abc import Iterator

from ..cases import training
from ..measure import Row


def run(quick: bool, device: str) -> Iterator[Row]:
    for case in training.QUICK if quick else training.GPU:
        yield from training.measure("training", case, device, training.installed_peers())
