"""The section `weigh`: how log-probabilities become token weights."""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from .base import FilePath, NotNegative, NoTruthValue, Number, Positive, Section, Text

Percent = Annotated[FiniteFloat, Field(gt=0.0, le=100.0), NoTruthValue]
Form = Literal["exp_clamp", "linear", "origin", "binary", "threshold", "threshold_and_scale", "random", "rank_based"]
FORM_KEYS = {
    "exp_clamp": ("k", "mu_chosen", "mu_rejected", "lower", "upper"),
    "linear": ("mu_chosen", "mu_rejected", "lower", "upper"),
    "origin": (),
    "binary": ("top_percent",),
    "threshold": ("lower", "upper"),
    "threshold_and_scale": ("lower", "upper", "scale_lower", "scale_upper"),
    "random": ("scale_lower", "scale_upper"),
    "rank_based": ("scale_lower", "scale_upper"),
}
_SCALES = {"default": (0.7, 1.3), "aggressive": (0.5, 1.5), "named_params": (0.6, 1.4)}
PRESETS = {  # of TIS-DPO's released code: {form: {preset: values of the form's keys, in their order}}
    "binary": {"default": (100.0,), "aggressive": (50.0,), "named_params": (75.0,)},
    "threshold": {"default": (-1.0, 1.0), "aggressive": (-0.8, 0.8), "named_params": (-0.9, 0.9)},
    "threshold_and_scale": {
        "default": (-1.5, 1.5, *_SCALES["default"]),
        "aggressive": (-2.0, 2.0, *_SCALES["aggressive"]),
        "named_params": (-1.8, 1.8, *_SCALES["named_params"]),
    },
    "random": _SCALES,
    "rank_based": _SCALES,
}
STORED = {"form", *FORM_KEYS["exp_clamp"], "segment_agg", "normalise_to"}  # with weights, also without a value
OFF = {"retrain": False, "segments": "words"}  # values of switches that mean the same as no value


class Weigh(Section):
    """How log-probabilities become token weights: log-ratios of two scorers, their form, control, normalisation."""

    source: Literal["teacher", "equal", "pair", "swift_as_released"] = Field(
        description="teacher: log-ratios of teacher and student; pair: of `positive` and `negative`; equal: all "
        "weights 1; swift_as_released: the heuristic of SWIFT's released code (docs/from-the-original.md)"
    )
    positive: Text | None = Field(
        None,
        description="source pair: scorer that raises log-ratios: a registry model, an iteration, a view "
        "(`model@view`), `student`, or `none`",
    )
    negative: Text | None = Field(None, description="source pair: scorer that lowers them, likewise")
    retrain: bool | None = Field(
        None,
        description="source pair: true trains a pair in each iteration, on its own pairs, from its opponent",
    )
    form: Form | None = Field(
        None,
        description="how log-ratios become weights: exp_clamp and linear token by token, the six of TIS-DPO answer by "
        "answer (docs/token-weights.md); source equal: random or no form",
    )
    preset: Literal["default", "aggressive", "named_params"] | None = Field(
        None, description="values of a TIS-DPO form's keys, by the names of its code; in place of these keys"
    )
    k: Positive | None = Field(None, description="exp_clamp: factor of every weight but that of EOS")
    mu_chosen: Number | None = Field(None, description="exp_clamp, linear: sign and strength on chosen answers")
    mu_rejected: Number | None = Field(None, description="exp_clamp, linear: the same on rejected answers")
    lower: Number | None = Field(
        None, description="lower bound, nat: exp_clamp of log-ratios, before mu; linear, threshold* of signed ones"
    )
    upper: Number | None = Field(None, description="upper bound, likewise")
    top_percent: Percent | None = Field(None, description="binary: percent of an answer's tokens that weigh 1")
    scale_lower: Number | None = Field(
        None, description="threshold_and_scale, random, rank_based: the least weight of an answer"
    )
    scale_upper: Number | None = Field(None, description="the same forms: the greatest weight")
    segment_agg: Literal["paper_mean", "log_mean", "sum_spread"] | None = Field(
        None, description="sources teacher, pair: how a segment's tokens share its weight where the tokenizers differ"
    )
    segments: Literal["words", "common_starts"] | None = Field(
        None,
        description="where the tokenizers differ, a text is cut at words (default), or wherever both start a token",
    )
    shifted: bool | None = Field(
        None, description="source swift_as_released: true reads the teacher one position early, as the released code"
    )
    uniform: Literal["allow"] | None = Field(
        None, description="`allow` log-ratios that are all alike, which are refused without this key"
    )
    control: Literal["none", "one_minus", "inverse", "permuted", "random", "random_matched", "noise"] = Field(
        description="transform of the weights that tests whether they matter (docs/token-weights.md)"
    )
    normalise: Literal["none", "mean_one", "sum_to"] = Field(
        description="within each answer, its EOS left out: mean one, or a fixed sum (a hidden length normalisation)"
    )
    normalise_over: Literal["side", "dataset"] | None = Field(
        None, description="normalise mean_one: over a side of the data set, or both, in place of each answer"
    )
    normalise_to: Positive | None = Field(None, description="normalise sum_to: the sum")
    eos_weight: NotNegative = Field(description="weight of the closing EOS")

    @model_validator(mode="before")
    @classmethod
    def _resolve_preset(cls, values: Any) -> Any:
        """A preset becomes its numbers: flags and stored settings hold what acts."""
        form, preset = (values.get(key) for key in ("form", "preset")) if isinstance(values, dict) else (None, None)
        if not (isinstance(form, str) and isinstance(preset, str) and preset in PRESETS.get(form, {})):
            return values
        numbers = zip(FORM_KEYS[form], PRESETS[form][preset], strict=True)
        return {key: value for key, value in values.items() if key != "preset"} | dict(numbers)

    @property
    def required_keys(self) -> frozenset[str]:
        return frozenset((*self._source_keys(), *self._normalise_keys()))

    def _source_keys(self) -> tuple[str, ...]:
        form = ("form", *FORM_KEYS.get(self.form or "", ()))
        if self.source == "equal":
            return form if self.form == "random" else ()
        switches = ("uniform",) if self.uniform else ()
        switches += ("segments",) if self.segments == "common_starts" else ()
        if self.source == "swift_as_released":
            return ("shifted", *switches)
        if self.source == "pair":
            switches += ("retrain",) if self.retrain else ("positive", "negative")
        return (*form, "segment_agg", *switches)

    def _normalise_keys(self) -> tuple[str, ...]:
        if self.normalise == "mean_one" and self.normalise_over:
            return ("normalise_over",)
        return ("normalise_to",) if self.normalise == "sum_to" else ()

    def stored(self) -> dict[str, Any]:
        """The settings that weights are stored with: a key that is not given leaves those of finished weights equal."""
        settings = self.model_dump(exclude={"uniform"}).items()
        return {key: value for key, value in settings if value is not None or key in STORED}


class WeighSection(Weigh):
    """The section `weigh`: how log-probabilities become token weights, and a file with some."""

    given: FilePath | None = Field(
        None,
        description="JSONL in TIS-DPO's format with token weights of the answers in `generate.given`, used unchanged "
        "at iteration 0 by arms that set no weigh, teacher, start, seed or fork; all others compute theirs",
    )

    @model_validator(mode="before")
    @classmethod
    def _whole_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and (mistake := preset_mistake(values, values.get("form"))):
            raise ValueError(mistake)
        return values


def preset_mistake(values: dict[str, Any], form: Any) -> str:
    """What is wrong with the preset in one place's settings of a form; "" if nothing is."""
    if values.get("preset") is None:
        return ""
    if not isinstance(form, str) or form not in PRESETS:
        return f"form {form} has no preset; remove the key, or give one of the forms {', '.join(PRESETS)}"
    given = [key for key in FORM_KEYS[form] if values.get(key) is not None]
    numbers = f"preset gives {', '.join(FORM_KEYS[form])}"
    return f"{numbers}; remove it, or set {', '.join(given)} to null" if given else ""
