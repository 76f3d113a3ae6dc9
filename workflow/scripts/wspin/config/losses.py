"""The losses: their names, and what each reads of the answers, of the models and of the section `train`.

The formulas are in `train/losses.py`; here is what the configuration needs to know of them, without a tensor library.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema

POLICY_REFERENCE, REFERENCE_POLICY = "policy||reference", "reference||policy"  # directions of a KL divergence


@dataclass(frozen=True)
class LossInputs:
    """What a loss reads besides the log-probabilities of the answers."""

    keys: frozenset[str]  # optional keys of `train` that it needs
    switches: frozenset[str] = frozenset()  # keys that may be given too; absent they are off
    pairs: bool = True  # chosen and rejected answers with a stored reference, or real answers alone
    weights: bool = False  # a weight for every token, of its divergence too
    divergence: str | None = None  # KL of the next token between policy and reference model, at every answer token


_LOGISTIC, _REFERENCE_FREE = frozenset(("beta", "label_smoothing")), frozenset(("reference_free",))
LOSS_INPUTS = {
    "sft": LossInputs(frozenset(("reduction",)), pairs=False),
    "dpo": LossInputs(_LOGISTIC, _REFERENCE_FREE),
    "spin": LossInputs(_LOGISTIC, _REFERENCE_FREE),
    "hinge": LossInputs(frozenset(("beta",)), _REFERENCE_FREE),
    "ipo": LossInputs(frozenset(("beta",)), _REFERENCE_FREE),
    "tdpo1": LossInputs(_LOGISTIC, divergence=REFERENCE_POLICY),
    "tdpo2": LossInputs(_LOGISTIC | {"alpha"}, divergence=REFERENCE_POLICY),
    "wspin": LossInputs(_LOGISTIC | {"alpha"}, _REFERENCE_FREE, weights=True, divergence=POLICY_REFERENCE),
}
LOSSES = tuple(LOSS_INPUTS)
ALIASES = {  # the published code's names of a loss
    "tis-dpo": "wspin",
    "tisdpo": "wspin",
    "tdpo": "tdpo1",
    "sigmoid": "spin",
    "logistic": "spin",
}
Loss = Annotated[
    Literal[LOSSES],
    BeforeValidator(lambda name: ALIASES.get(name, name) if isinstance(name, str) else name),
    WithJsonSchema({"enum": [*LOSSES, *ALIASES], "type": "string"}),
]


def loss_keys(loss: str) -> frozenset[str]:
    """The optional keys of `train` that a loss needs."""
    return LOSS_INPUTS[loss].keys


def usable_keys(loss: str) -> frozenset[str]:
    """The optional keys of `train` that a loss needs, or that may be given with it."""
    return LOSS_INPUTS[loss].keys | LOSS_INPUTS[loss].switches


def divergence_read(loss: str, alpha: float | None) -> str | None:
    """The direction of the divergence that a loss reads from a whole reference model, or None: it needs none.

    A loss whose divergence is multiplied by alpha = 0 does not compute it.
    """
    inputs = LOSS_INPUTS[loss]
    return None if "alpha" in inputs.keys and not alpha else inputs.divergence
