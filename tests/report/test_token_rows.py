"""Tokens with their weights: the file's, and beside each what it was computed from."""

import numpy as np
import pytest
import weighted_pairs
from scored import changed, shards, weighed
from weighted_pairs import EQUAL

import weigh as program
from wspin.config.flags import flags
from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.report.token_rows import PairFiles, first_pairs, one_pair
from wspin.storage import tables

PAIRS = [
    ("Say hello.", "Hello to everybody out there", "Goodbye then\n\nhello"),
    ("Count.", "one two three four", ""),
    ("More?", "yes", "12,345 is a number, isn't it?"),
]
CHANGES = [
    {},
    {"segment_agg": "log_mean"},
    {"segment_agg": "sum_spread"},
    {"form": "linear"},
    {"control": "permuted"},
    {"normalise": "mean_one"},
]


def stored(files):
    table = tables.read(files.weights, "weights")
    return {side: tables.row_arrays(table, f"{side}_weights") for side in tables.SIDES}


def of_study(study, weights, teacher):
    logprobs = [str(study / f"{teacher}-{name}.parquet") for name in ("gold", "said")] if teacher else []
    own = [str(study / f"{name}.parquet") for name in ("prompts", "generations", "reference")]
    return PairFiles(*own, str(weights), {"positive": logprobs}, {"positive": teacher})


@pytest.mark.parametrize("teacher", ["far", "near", "far-short", "near-short"])
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes.values()), "paper"))
def test_weights_are_those_of_the_file(scored_study, tmp_path, teacher, changes):
    """Of real models with one tokenizer or two, also beyond a scorer's context."""
    weighed(scored_study, tmp_path / "weights.parquet", teacher=teacher, **changes)
    files = of_study(scored_study, tmp_path / "weights.parquet", teacher)
    weighted = first_pairs(files, 64)
    assert len(weighted.pairs) == 6
    for side, answers in stored(files).items():
        for pair, weights in zip(weighted.pairs, answers, strict=True):
            assert [token.weight for token in pair.tokens[side]] == weights.tolist()


@pytest.mark.parametrize("own", [False, True])
def test_a_weight_follows_from_the_numbers_beside_it(tmp_path, own):
    """k mean(exp(mu clamp(a - b))) of the scorer's tokens beside a token, and the shares at the bounds."""
    weighted = first_pairs(weighted_pairs.write(tmp_path, PAIRS, own=own, k=1.3), 64)
    tokens = [(side, token) for pair in weighted.pairs for side in tables.SIDES for token in pair.tokens[side]]
    assert any(len(token.ratios) > 1 for _, token in tokens) is not own
    for side, token in tokens:
        if token.is_eos:
            assert (token.weight, token.ratios, token.scored) == (1.0, (), {})
            continue
        ratios = np.array([value - token.student for _, value in token.scored["positive"]])
        assert token.ratios == pytest.approx(ratios)
        mu = 1.0 if side == "chosen" else -1.0
        assert token.weight == pytest.approx(1.3 * np.exp(mu * np.clip(ratios, -0.5, 1.5)).mean(), rel=1e-6)
        assert token.at_lower == pytest.approx((ratios <= -0.5).mean())
        assert token.at_upper == pytest.approx((ratios >= 1.5).mean())
    assert {bound for _, token in tokens for bound in (token.at_lower > 0, token.at_upper > 0)} == {True, False}
    assert (weighted.scorers, weighted.bounds) == ({"positive": "teacher", "negative": "student"}, (-0.5, 1.5))


def test_texts_tile_the_answers_and_the_segments(tmp_path):
    weighted = first_pairs(weighted_pairs.write(tmp_path, PAIRS), 64)
    for pair, (prompt, *answers) in zip(weighted.pairs, PAIRS, strict=True):
        assert pair.prompt == prompt
        for tokens, answer in zip(pair.tokens.values(), answers, strict=True):
            assert "".join(token.text for token in tokens) == answer
            assert [token.is_eos for token in tokens] == [False] * (len(tokens) - 1) + [True]
    hello, *others = weighted.pairs[0].tokens["chosen"]
    assert [text for text, _ in hello.scored["positive"]] == ["Hell", "o"]
    assert [text for text, _ in others[1].scored["positive"]] == [" ever", "ybod", "y"]


def test_neutral_tokens_say_why(scored_study, tmp_path):
    weighed(scored_study, tmp_path / "weights.parquet", teacher="far-short")
    weighted = first_pairs(of_study(scored_study, tmp_path / "weights.parquet", "far-short"), 64)
    tokens = [token for pair in weighted.pairs for of in pair.tokens.values() for token in of]
    assert {token.neutral for token in tokens} == {"", "unread", "unclear"}
    counts = tables.metadata(tables.read(tmp_path / "weights.parquet", "weights"))["counts"]
    for reason in ("unread", "unclear"):
        found = [token for token in tokens if token.neutral == reason]
        assert len(found) == sum(counts[side][reason] for side in tables.SIDES)
        assert {token.weight for token in found} == {np.float32(1.3)}


def test_one_pair_is_that_of_the_first_pairs(tmp_path):
    files = weighted_pairs.write(tmp_path, PAIRS)
    for pair in first_pairs(files, 3).pairs:
        assert one_pair(files, 0, 100, pair.prompt_id).pairs == [pair]
    assert [pair.prompt_id for pair in first_pairs(files, 2).pairs] == ["train-0", "train-1"]


def test_a_first_shard_may_be_shorter_than_the_page(scored_study, tmp_path):
    generations, reference, *_ = map(str, shards(scored_study, tmp_path))
    weighed(scored_study, tmp_path / "w", teacher=[], generations=generations, reference=reference, size=4, **EQUAL)
    files = PairFiles(str(scored_study / "prompts.parquet"), generations, reference, str(tmp_path / "w"), {}, {})
    assert len(first_pairs(files, 64).pairs) == 4


def test_weights_without_a_teacher_stand_alone(tmp_path):
    weighted = first_pairs(weighted_pairs.write(tmp_path, PAIRS, **EQUAL), 64)
    tokens = [token for pair in weighted.pairs for of in pair.tokens.values() for token in of]
    assert {token.weight for token in tokens} == {1.0}
    assert {(*token.scored, *token.ratios, token.neutral, token.at_upper) for token in tokens} == {("", 0.0)}
    assert all(token.student < 0 for token in tokens)
    assert (weighted.scorers, weighted.bounds) == ({}, (-np.inf, np.inf))


def test_weights_of_a_file_stand_alone(tmp_path):
    """They have no settings, and are not computed again."""
    files = weighted_pairs.write(tmp_path, PAIRS)
    given = {"settings": {"given": "pairs.jsonl", "eos_weight": 1.0}, "seed": None}
    changed(files.weights, files.weights, "weights", given, chosen_weights=lambda old: [[7.0] * len(w) for w in old])
    weighted = first_pairs(PairFiles(files.rows, files.generations, files.reference, files.weights, {}, {}), 64)
    assert {token.weight for pair in weighted.pairs for token in pair.tokens["chosen"]} == {7.0}
    assert weighted.scorers == {}


def test_scorers_of_a_pair_have_their_names(scored_study, tmp_path):
    pair = {"source": "pair", "positive": "one", "negative": "two"}
    logprobs = {
        role: [str(scored_study / f"{name}-{of}.parquet") for of in ("gold", "said")]
        for role, name in (("positive", "far"), ("negative", "near"))
    }
    told = ["--rows", scored_study / "prompts.parquet", "--generations", scored_study / "generations.parquet"]
    told += ["--reference", scored_study / "reference.parquet", "--shard", 0, "--shard-size", 100, "--seed", 42, 0]
    told += [word for role, paths in logprobs.items() for word in (f"--{role}-logprobs", *paths)]
    settings = Weigh(**{**weighted_pairs.SETTINGS, **pair})
    program.main([*map(str, told), "--output", str(tmp_path / "w.parquet"), *flags(settings)])
    files = of_study(scored_study, tmp_path / "w.parquet", None)
    files = PairFiles(files.rows, files.generations, files.reference, files.weights, logprobs, {"positive": "a@view"})
    weighted = first_pairs(files, 64)
    assert weighted.scorers == {"positive": "a@view", "negative": "two"}
    token = weighted.pairs[0].tokens["chosen"][0]
    assert token.ratios[0] == pytest.approx(token.scored["positive"][0][1] - token.scored["negative"][0][1])


def test_weights_normalised_over_the_data_need_their_sums(tmp_path):
    changes = {"normalise": "mean_one", "normalise_over": "dataset"}
    files = weighted_pairs.write(tmp_path, PAIRS, sums=True, **changes)
    weights = [
        token.weight for pair in first_pairs(files, 64).pairs for of in pair.tokens.values() for token in of[:-1]
    ]
    assert np.mean(weights) == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(StudyError, match=r"expected the sums of all shards .*, found 0 files"):
        first_pairs(PairFiles(**{**vars(files), "sums": ()}), 64)


# What does not belong together


def test_log_probabilities_of_other_weights_are_refused(tmp_path):
    files = weighted_pairs.write(tmp_path, PAIRS)
    path = files.logprobs["positive"][1]
    changed(path, path, "logprobs", logprobs=lambda old: [[value - 0.4 for value in row] for row in old])
    with pytest.raises(
        StudyError, match=r"train-0, rejected: expected weight [\d.]+ of token \d+ .*, found [\d.]+; weigh"
    ):
        first_pairs(files, 64)


def test_weights_of_other_answers_are_refused(tmp_path):
    files = weighted_pairs.write(tmp_path, PAIRS)
    changed(files.weights, files.weights, "weights", ids_hash=lambda old: ["0" * 16, *old[1:]])
    with pytest.raises(StudyError, match="row 0, rejected: expected weights of token ids"):
        first_pairs(files, 64)


def test_another_number_of_weights_is_refused(tmp_path):
    files = weighted_pairs.write(tmp_path, PAIRS)
    changed(files.weights, files.weights, "weights", chosen_weights=lambda old: [old[0][:-1], *old[1:]])
    with pytest.raises(StudyError, match="train-0, chosen: expected 6 weights, found 5; weigh the answers again"):
        first_pairs(files, 64)
