"""Weights with mean one over a side of the data set, or over both: two passes over its shards."""

import json

import numpy as np
import pytest
from scored import SETTINGS, by_side

import weigh as program
from wspin.config.flags import flags
from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import files, tables

OVER = {"normalise": "mean_one", "eos_weight": 0.5}


@pytest.fixture
def study(scored_study):
    return scored_study


def run(study, output, *more, **changes):
    scorer = [study / f"far-{side}.parquet" for side in ("gold", "said")]
    arguments = ["--rows", study / "prompts.parquet", "--generations", study / "generations.parquet"]
    arguments += ["--reference", study / "reference.parquet", "--positive-logprobs", *scorer, "--output", output]
    arguments += ["--shard", 0, "--shard-size", 100, "--seed", 42, 0, *more]
    program.main([*map(str, arguments), *flags(Weigh(**{**SETTINGS, **changes}))])
    return output


def weights_of(path, reference):
    """{side: (weights of the tokens before EOS, weights of EOS)}, of all answers together."""
    eos = tables.metadata(reference, "eos")["eos"]
    found = {}
    for side, answers in by_side(tables.read(path, "weights")).items():
        closed = [ids[-1] == eos for ids in tables.row_arrays(reference, f"{side}_token_ids")]
        whole = [np.array(weights) for weights in answers]
        tokens = np.concatenate([w[: len(w) - end] for w, end in zip(whole, closed, strict=True)])
        found[side] = tokens, [w[-1] for w, end in zip(whole, closed, strict=True) if end]
    return found


@pytest.mark.parametrize("over", ["side", "dataset"])
def test_the_mean_of_all_tokens_is_one(study, tmp_path, over):
    told = {**OVER, "normalise_over": over}
    sums = run(study, tmp_path / "0.json", "--only-sums", **told)
    reference = tables.read(study / "reference.parquet", "reference")
    found = weights_of(run(study, tmp_path / "a.parquet", "--sums", sums, **told), reference)
    plain = weights_of(run(study, tmp_path / "b.parquet", eos_weight=0.5), reference)
    sides = {side: tokens for side, (tokens, _) in found.items()}
    if over == "dataset":
        assert np.concatenate([*sides.values()]).mean() == pytest.approx(1.0, rel=1e-6)
        assert sides["chosen"].mean() != pytest.approx(1.0, rel=1e-3)
    for side, (tokens, eos) in found.items():
        if over == "side":
            assert tokens.mean() == pytest.approx(1.0, rel=1e-6)
        ratios = tokens / plain[side][0]
        assert ratios == pytest.approx(ratios[0], rel=1e-6)  # one factor for all answers, as none within each would be
        assert set(eos) == {0.5}


def test_all_shards_count(study, tmp_path):
    """Of the second, 100 chosen tokens weigh 300."""
    told = {**OVER, "normalise_over": "side"}
    first = run(study, tmp_path / "0.json", "--only-sums", **told)
    sums = json.loads(first.read_text())
    second = {"shard": 1, "settings": sums["settings"], "rejected": {"tokens": 0, "sum": 0.0}}
    files.write_checked_json(tmp_path / "1.json", {**second, "chosen": {"tokens": 100, "sum": 300.0}})
    path = run(study, tmp_path / "a.parquet", "--sums", first, tmp_path / "1.json", **told)
    found = weights_of(path, tables.read(study / "reference.parquet", "reference"))
    tokens, total = sums["chosen"]["tokens"], sums["chosen"]["sum"]
    assert found["chosen"][0].sum() == pytest.approx(total * (tokens + 100) / (total + 300.0), rel=1e-6)
    assert found["rejected"][0].mean() == pytest.approx(1.0, rel=1e-6)


def test_sums_that_do_not_belong_to_the_weights_are_refused(study, tmp_path):
    told = {**OVER, "normalise_over": "side"}
    sums = run(study, tmp_path / "0.json", "--only-sums", **told)
    cases = [
        ((), told, "expected the sums of all shards by weigh.normalise_over, found 0 files"),
        (("--sums", sums), {}, "expected no sums by weigh.normalise_over, found 1 files"),
        (("--sums", sums, sums), told, "0.json: expected shard 1 with these settings, found others"),
        (("--sums", sums), {**told, "lower": -0.25}, "0.json: expected shard 0 with these settings, found others"),
    ]
    for more, settings, message in cases:
        with pytest.raises(StudyError, match=message):
            run(study, tmp_path / "a.parquet", *more, **settings)
        assert not (tmp_path / "a.parquet").exists()


def test_a_sum_that_is_not_positive_is_refused(study, tmp_path):
    told = {**OVER, "normalise_over": "dataset"}
    text = json.loads(run(study, tmp_path / "0.json", "--only-sums", **told).read_text())
    text["chosen"]["sum"] = -1e6
    files.write_checked_json(tmp_path / "0.json", {key: text[key] for key in text.keys() - {"checksum"}})
    with pytest.raises(StudyError, match="expected weights with a positive sum, found -1e"):
        run(study, tmp_path / "a.parquet", "--sums", tmp_path / "0.json", **told)
