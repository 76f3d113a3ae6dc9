"""Token weights from pairs of scorers other than teacher and student."""

import numpy as np
import pytest
from scored import SETTINGS, by_side, changed, reading, student

import weigh as program
from wspin.config.flags import flags
from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import tables

WORDS = ("student", "none")


@pytest.fixture
def study(scored_study):
    return scored_study


def weighed(study, output, positive, negative, **changes):
    """Weights of a pair; scorers are names of readings, lists of files, `student` or `none`."""
    roles = {"positive": positive, "negative": negative}
    arguments = ["--rows", study / "prompts.parquet", "--generations", study / "generations.parquet"]
    arguments += ["--reference", study / "reference.parquet", "--output", output]
    for role, scorer in roles.items():
        if scorer not in WORDS:
            files = (
                scorer
                if isinstance(scorer, list)
                else [study / f"{scorer}-{side}.parquet" for side in ("gold", "said")]
            )
            arguments += [f"--{role}-logprobs", *files]
    names = {role: scorer if scorer in WORDS else "model" for role, scorer in roles.items()}
    settings = Weigh(**{**SETTINGS, "source": "pair", "uniform": "allow", **names, **changes})
    program.main([*map(str, arguments), "--shard", "0", "--shard-size", "100", "--seed", "42", "0", *flags(settings)])
    return tables.read(output, "weights")


@pytest.mark.parametrize("scorer", ["student", "near", "far", "far-short", "asked"])
def test_two_equal_scorers_weigh_every_token_k_exactly(study, tmp_path, scorer):
    table = by_side(weighed(study, tmp_path / "a.parquet", scorer, scorer, eos_weight=SETTINGS["k"]))
    assert {weight for side in table.values() for weights in side for weight in weights} == {np.float32(SETTINGS["k"])}


@pytest.mark.parametrize("scorer", ["near", "far"])
def test_the_pair_of_teacher_and_student_is_source_teacher(study, tmp_path, scorer):
    pair = weighed(study, tmp_path / "a.parquet", scorer, "student")
    files = [str(study / f"{scorer}-{side}.parquet") for side in ("gold", "said")]
    arguments = ["--rows", study / "prompts.parquet", "--generations", study / "generations.parquet"]
    arguments += ["--reference", study / "reference.parquet", "--output", tmp_path / "b.parquet"]
    arguments += ["--positive-logprobs", *files, "--shard", 0, "--shard-size", 100, "--seed", 42, 0]
    program.main([*map(str, arguments), *flags(Weigh(**SETTINGS))])
    assert pair.to_pydict() == tables.read(tmp_path / "b.parquet", "weights").to_pydict()


def test_scorers_with_the_students_tokenizer_are_subtracted_token_by_token(study, tmp_path):
    """w = k exp(mu clamp(log near - log asked)), where asked is the student behind another prompt."""
    found = by_side(weighed(study, tmp_path / "a.parquet", "near", "asked"))
    for side, sign in (("chosen", 1.0), ("rejected", -1.0)):
        near, asked = (reading(study, name, side)[1]["logprobs"] for name in ("near", "asked"))
        for weights, plus, minus in zip(found[side], near, asked, strict=True):
            ratios = np.clip(plus.astype(float) - minus.astype(float), SETTINGS["lower"], SETTINGS.get("upper", 1.5))
            np.testing.assert_allclose(weights[: len(ratios)], SETTINGS["k"] * np.exp(sign * ratios), rtol=1e-6)


def test_a_scorer_and_none_is_its_own_log_probability(study, tmp_path):
    found = by_side(weighed(study, tmp_path / "a.parquet", "none", "student", lower=-50.0, upper=50.0))
    for weights, logprobs in zip(found["chosen"], student(study, "chosen")["logprobs"], strict=True):
        expected = SETTINGS["k"] * np.exp(-logprobs.astype(float))
        np.testing.assert_allclose(weights[: len(expected)], expected, rtol=1e-6)


def test_swapped_scorers_swap_the_sign(study, tmp_path):
    wide = {"lower": -50.0, "upper": 50.0, "k": 1.0}
    for scorers in (("far", "near"), ("near", "student")):
        one = by_side(weighed(study, tmp_path / "a.parquet", *scorers, segment_agg="log_mean", **wide))
        other = by_side(weighed(study, tmp_path / "b.parquet", *scorers[::-1], segment_agg="log_mean", **wide))
        for side in tables.SIDES:
            products = np.concatenate(one[side]) * np.concatenate(other[side])
            np.testing.assert_allclose(products, 1.0, rtol=1e-5)


def test_the_weights_name_both_scorers(study, tmp_path):
    metadata = tables.metadata(weighed(study, tmp_path / "a.parquet", "far", "student"))
    assert (metadata["teacher"], metadata["negative"]) == (None, "student")
    assert metadata["positive"]["model"] == tables.metadata(reading(study, "far", "chosen")[0])["model"]


def test_two_tokenizers_besides_the_students_are_refused_in_one_line(study, tmp_path):
    other = [
        changed(study / f"far-{side}.parquet", tmp_path / f"{side}.parquet", "logprobs", {"tokenizer": "another"})
        for side in ("gold", "said")
    ]
    with pytest.raises(StudyError, match="expected one tokenizer besides the student's") as error:
        weighed(study, tmp_path / "a.parquet", "far", other)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.parquet").exists()
