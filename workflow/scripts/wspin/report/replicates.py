"""Replicates: arms or models of the registry that differ in their seed, shown under the name of the first of them."""

from collections.abc import Iterable

from wspin.errors import StudyError
from wspin.iteration import Iteration

from .scores import arm_columns

Pairs = Iterable[tuple[str, str]]  # (first, replicate) of arms or models of the registry


def methods(models: Iterable[str], replicates: Pairs) -> dict[str, str]:
    """Model -> its arm, or itself without one; the first of the replicates if it is one of them.

    Raises `StudyError` if a replicate belongs to two.
    """
    first: dict[str, str] = {}
    for name, replicate in replicates:
        if first.setdefault(replicate, name) != name:
            found = f"{first[replicate]} and {name}"
            raise StudyError(f"--replicates: expected one arm or model for {replicate}, found {found}")
    owners = {model: arm_columns(model)[0] or model for model in models}
    return {model: first.get(owner, owner) for model, owner in owners.items()}


def pooled_models(models: Iterable[str], replicates: Pairs) -> dict[str, str]:
    """Model -> the name under which it is pooled: that of the first of its replicates, at the same iteration.

    Raises `StudyError` as `methods`, and at a name that no model has.
    """
    names, pairs = list(models), list(replicates)
    known = methods(names, ())
    if unknown := sorted({name for pair in pairs for name in pair} - set(known.values())):
        raise StudyError(f"--replicates: expected arms or models of the table, found {unknown[0]!r}")
    pooled = {}
    for model, method in methods(names, pairs).items():
        arm, k = arm_columns(model)
        pooled[model] = Iteration(method, k).name if arm else method
    return pooled
