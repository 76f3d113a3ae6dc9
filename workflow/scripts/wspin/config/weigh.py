"""The section `weigh`: how log-probabilities become token weights."""

from typing import Any, Literal

from pydantic import Field

from .base import FilePath, NotNegative, Number, Positive, Section


class Weigh(Section):
    """How log-probabilities become token weights: k exp(mu clamp(r, lower, upper)) of r = log teacher - log student."""

    source: Literal["teacher", "equal"] = Field(description="teacher: from its log-probabilities; equal: all weights 1")
    form: Literal["exp_clamp"] | None = Field(None, description="source teacher: k exp(mu clamp(r, lower, upper))")
    k: Positive | None = Field(None, description="source teacher: factor of every weight but that of EOS")
    mu_chosen: Number | None = Field(None, description="source teacher: sign and strength on chosen answers")
    mu_rejected: Number | None = Field(None, description="source teacher: the same on rejected answers")
    lower: Number | None = Field(None, description="source teacher: r is clamped from below, nat; before mu acts")
    upper: Number | None = Field(None, description="source teacher: r is clamped from above, nat")
    segment_agg: Literal["paper_mean", "log_mean", "sum_spread"] | None = Field(
        None, description="source teacher: how a word's tokens share its weight where the tokenizers differ"
    )
    uniform: Literal["allow"] | None = Field(
        None, description="source teacher: `allow` log-ratios that are all alike, which are refused without this key"
    )
    control: Literal["none", "one_minus", "inverse", "permuted", "random", "random_matched", "noise"] = Field(
        description="transform of the weights that tests whether they matter (docs/token-weights.md)"
    )
    normalise: Literal["none", "mean_one", "sum_to"] = Field(
        description="within each answer, its EOS left out: mean one, or a fixed sum (a hidden length normalisation)"
    )
    normalise_to: Positive | None = Field(None, description="normalise sum_to: the sum")
    eos_weight: NotNegative = Field(description="weight of the closing EOS")

    @property
    def required_keys(self) -> frozenset[str]:
        teacher = ("form", "k", "mu_chosen", "mu_rejected", "lower", "upper", "segment_agg")
        teacher += ("uniform",) if self.uniform else ()
        total = ("normalise_to",) if self.normalise == "sum_to" else ()
        return frozenset((*(teacher if self.source == "teacher" else ()), *total))

    def stored(self) -> dict[str, Any]:
        """The settings that weights are stored with."""
        return self.model_dump(exclude={"uniform"})


class WeighSection(Weigh):
    """The section `weigh`: how log-probabilities become token weights k exp(mu clamp(r)), and a file with some."""

    given: FilePath | None = Field(
        None,
        description="JSONL in TIS-DPO's format with token weights of the answers in `generate.given`, used unchanged "
        "at iteration 0 by arms that set no weigh, teacher, start, seed or fork; all others compute theirs",
    )
