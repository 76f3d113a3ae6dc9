"""Continuations with common beginnings: packed, scored, and counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wspin.engine.flops import Cost
from wspin.engine.layout import Branch
from wspin.engine.logprobs import continuation_logprobs
from wspin.engine.prefixes import SHORTEST, Continuation, needed_work, pack_row, plan_rows
from wspin.models import folders

IDS = st.lists(st.integers(0, 2), min_size=2, max_size=12)


def continuation(context, answer):
    return Continuation(np.array([*context, *answer], dtype=np.int32), len(answer))


@st.composite
def continuations(draw):
    """Texts of few different tokens, so that many share beginnings."""
    texts = draw(st.lists(IDS, min_size=1, max_size=9))
    return [Continuation(np.array(ids, dtype=np.int32), draw(st.integers(1, len(ids) - 1))) for ids in texts]


def test_a_row_by_hand():
    """Two questions after the same examples; the first with two answers of one token, the second with one of two."""
    examples = [5, 6, 7, 8, 9, 5, 6, 7]
    asked = [continuation([*examples, 1], [3]), continuation([*examples, 2], [3, 4]), continuation([*examples, 1], [4])]
    (row,) = plan_rows(asked, 100)
    assert row.indices == [0, 2, 1]
    assert row.branches == [Branch(0, 9), Branch(9, 0), Branch(8, 2)]
    batch = pack_row(asked, row)
    assert batch.input_ids.tolist() == [[*examples, 1, 2, 3]]
    assert batch.position_ids.tolist() == [[*range(9), 8, 9]]
    assert batch.predictors.tolist() == [8, 8, 9, 10]
    assert batch.targets.tolist() == [3, 4, 3, 4]
    assert batch.counts == [1, 1, 2]
    assert needed_work(asked) == (11, 45 + 19, 3)  # the two answers of one token are predicted together


def test_short_beginnings_are_read_again():
    short, long = list(range(SHORTEST - 1)), list(range(SHORTEST))
    (row,) = plan_rows([continuation([*short, 90], [1]), continuation([*short, 91], [1])], 100)
    assert [branch.kept for branch in row.branches] == [0, 0]
    (row,) = plan_rows([continuation([*long, 90], [1]), continuation([*long, 91], [1])], 100)
    assert [branch.kept for branch in row.branches] == [0, SHORTEST]


def test_a_row_ends_between_contexts():
    """Where nothing is shared: two answers to one context stay together, though the first would fit before."""
    asked = [continuation([i] * 20, [50 + a] * 10) for i in range(4) for a in range(2)]
    rows = plan_rows(asked, 110)
    assert [row.indices for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [sum(new for _, new in row.branches) for row in rows] == [76, 76]


def test_a_long_text_is_a_row_of_its_own():
    rows = plan_rows([continuation([1] * 50, [2]), continuation([3] * 5, [2]), continuation([4] * 5, [2])], 12)
    assert [row.indices for row in rows] == [[0], [1, 2]]


@given(asked=continuations(), token_budget=st.integers(1, 60), shortest=st.integers(1, 4))
def test_every_token_is_where_its_continuation_reads_it(asked, token_budget, shortest):
    rows = plan_rows(asked, token_budget, shortest)
    assert sorted(i for row in rows for i in row.indices) == list(range(len(asked)))
    for row in rows:
        batch, size = pack_row(asked, row), sum(new for _, new in row.branches)
        assert size <= token_budget or len(row.indices) == 1
        assert batch.input_ids.numel() == size
        targets, predictors = (part.split(batch.counts) for part in (batch.targets, batch.predictors))
        for i, places, target, predictor in zip(row.indices, row.conversations(), targets, predictors, strict=True):
            text = asked[i]
            assert batch.input_ids[0, places].tolist() == text.inputs.tolist()
            assert batch.position_ids[0, places].tolist() == list(range(len(text.inputs)))
            assert predictor.tolist() == places[len(places) - text.count :].tolist()
            assert target.tolist() == text.ids[len(text.ids) - text.count :].tolist()


@given(asked=continuations())
def test_needed_work_is_counted_by_beginnings(asked):
    """Every different beginning is one token, and attends to as many as it is long."""
    beginnings = {tuple(text.inputs[: n + 1].tolist()) for text in asked for n in range(len(text.inputs))}
    predicting = {tuple(text.ids[: len(text.ids) - n].tolist()) for text in asked for n in range(1, text.count + 1)}
    assert needed_work(asked) == (len(beginnings), sum(map(len, beginnings)), len(predicting))


def test_a_batch_counts_a_token_that_predicts_several_once(scratch_model):
    cost = Cost.of(folders.load_model(scratch_model, "cpu"))
    asked = [continuation([1, 2, 3], [answer]) for answer in range(4)]
    batch = pack_row(asked, plan_rows(asked, 100, shortest=1)[0])
    assert cost.computed(batch, once=True) == 3 * cost.per_token + 9 * cost.per_pair + cost.per_prediction
    assert cost.computed(batch) - cost.computed(batch, once=True) == 3 * cost.per_prediction


# Log-probabilities


@pytest.fixture(scope="module")
def model(scratch_model):
    return folders.load_model(scratch_model, "cpu")


@given(asked=continuations(), token_budget=st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_packed_continuations_have_the_scores_of_each_alone(model, asked, token_budget):
    for row in plan_rows(asked, token_budget, shortest=1):
        batch = pack_row(asked, row)
        parts = (part.split(batch.counts) for part in continuation_logprobs(model, batch))
        for i, logprobs, likeliest in zip(row.indices, *parts, strict=True):
            ids = torch.from_numpy(asked[i].ids).long()
            with torch.no_grad():
                logits = model(ids[None, :-1]).logits[0, -asked[i].count :]
            target = ids[-asked[i].count :]
            expected = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
            assert torch.allclose(logprobs, expected, atol=1e-5)
            assert likeliest.tolist() == (logits.argmax(-1) == target).tolist()


def test_scores_do_not_depend_on_the_chunks_of_the_head(model, monkeypatch):
    asked = [continuation(list(range(9)), list(range(3, 40))), continuation([1, 2], [3] * 9)]
    batch = pack_row(asked, plan_rows(asked, 100)[0])
    whole = continuation_logprobs(model, batch)
    monkeypatch.setattr("wspin.engine.head.CHUNK_LOGITS", 1)
    monkeypatch.setattr("wspin.engine.head.MIN_ROWS", {"cpu": 4})
    logprobs, likeliest = continuation_logprobs(model, batch)
    assert torch.allclose(logprobs, whole[0], atol=1e-6)
    assert torch.equal(likeliest, whole[1])
