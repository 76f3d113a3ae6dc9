"""Which items meet in a step, in a micro-batch and in a row of tokens."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wspin.engine.batches import micro_batches, plan_steps, rank_shares
from wspin.engine.packing import Item, pack
from wspin.errors import StudyError

COUNT, PER_STEP, EPOCHS = st.integers(0, 60), st.integers(1, 16), st.integers(1, 3)
ONE = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(lambda answers: (7, *answers))
LENGTHS = st.lists(ONE, min_size=1, max_size=60)


def flat(parts):
    return [index for part in parts for index in part]


def tokens(lengths, items):
    return sum(sum(lengths[i]) for i in items)


@given(count=COUNT, per_step=PER_STEP, epochs=EPOCHS)
def test_trap_22_every_item_once_per_epoch(count, per_step, epochs):
    per_epoch = -(-count // per_step)
    steps = plan_steps(count, [1, 0], per_step, epochs)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        own = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert Counter(flat(own)) == Counter(range(count))


@given(count=COUNT, per_step=PER_STEP, epochs=EPOCHS)
def test_every_step_is_full_but_the_last_of_an_epoch(count, per_step, epochs):
    sizes = [len(step) for step in plan_steps(count, [1, 0], per_step, epochs)]
    full, rest = divmod(count, per_step)
    assert sizes == ([per_step] * full + [rest] * (rest > 0)) * epochs


def test_trap_21_equal_seeds_agree_and_others_differ():
    plans = [plan_steps(101, seed, 8, epochs=2) for seed in ([42, 0], [42, 0], [43, 0], [42, 1])]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3] != plans[2]


def test_epochs_come_in_different_orders():
    steps = plan_steps(101, [42, 0], 8, epochs=3)
    first, second, third = (steps[i : i + 13] for i in (0, 13, 26))
    assert first != second != third != first


def test_more_epochs_go_on_where_fewer_end():
    assert plan_steps(101, [42, 0], 8, epochs=3)[:26] == plan_steps(101, [42, 0], 8, epochs=2)


def test_items_are_shuffled():
    order = flat(plan_steps(101, [42, 0], 1))
    assert np.abs(np.diff(order)).mean() > 20  # a third of the length where the order is random, 1 where it is sorted


@pytest.fixture
def many():
    """Lengths of 50 items."""
    return [tuple(one) for one in np.random.default_rng(0).integers(1, 40, (50, 3)).tolist()]


def test_nothing_but_the_arguments_decides(many, monkeypatch):
    """Not the process that asks, not the state of any generator."""

    def decide():
        steps = plan_steps(50, [42, 0], 8, epochs=2)
        return steps, [(rank_shares(many, step, 3), micro_batches(many, step, 200)) for step in steps]

    expected = decide()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    for seed in (np.random.seed, random.seed, torch.manual_seed):
        seed(99)
    many = list(map(list, many))
    assert decide() == expected


@given(lengths=LENGTHS, budget=st.integers(1, 400))
def test_micro_batches_keep_to_the_budget(lengths, budget):
    """Unless a single item is longer. All tokens count, the prompt's once, and there is no padding."""
    batches = micro_batches(lengths, range(len(lengths)), budget)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert all(batch for batch in batches)
    assert all(len(batch) == 1 or tokens(lengths, batch) <= budget for batch in batches)


@given(lengths=LENGTHS, budget=st.integers(1, 400))
def test_micro_batches_are_filled_longest_first(lengths, budget):
    """No batch could have taken the item that opens the next one."""
    batches = micro_batches(lengths, range(len(lengths)), budget)
    sizes = [sum(lengths[i]) for i in flat(batches)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(tokens(lengths, [*a, b[0]]) > budget for a, b in pairwise(batches))


def test_micro_batches_by_hand():
    lengths = [(1, 2), (2, 1, 2), (3,), (4, 4), (1, 1)]
    assert micro_batches(lengths, [0, 1, 2, 3, 4], 6) == [[3], [1], [0, 2], [4]]
    assert micro_batches(lengths, [4, 2, 0], 8) == [[0, 2, 4]]
    assert micro_batches(lengths, [], 8) == []


@given(lengths=LENGTHS, ranks=st.integers(1, 9))
def test_shares_are_balanced_by_tokens(lengths, ranks):
    parts = rank_shares(lengths, range(len(lengths)), ranks)
    assert len(parts) == ranks
    assert sorted(flat(parts)) == list(range(len(lengths)))
    work = [tokens(lengths, part) for part in parts]
    assert max(work) - min(work) <= max(map(sum, lengths))


def test_shares_by_hand():
    """Tokens count, not items: one long item weighs as much as three short ones."""
    assert rank_shares([(3,), (1, 9), (3,), (2, 1)], [0, 1, 2, 3], 2) == [[1], [0, 2, 3]]


def test_one_process_has_all_of_a_step(many):
    (all_of_it,) = rank_shares(many, [5, 3, 8], 1)
    assert sorted(all_of_it) == [3, 5, 8]
    assert rank_shares(many, [5, 3, 8], 2) == rank_shares(many, [8, 5, 3], 2)


def test_more_processes_than_items_leave_some_without():
    assert rank_shares([(3,), (5,)], [0, 1], 3) == [[1], [0], []]


# Items as a row of tokens


def arrays(values, dtype):
    return tuple(np.array(one, dtype=dtype) for one in values)


def item(prompt, *responses, **more):
    values = {name: arrays(more[name], "f4") for name in ("reference", "weights") if name in more}
    return Item(np.array(prompt, dtype="i4"), arrays(responses, "i4"), sides=more.get("sides", ()), **values)


PAIR = item([11, 12, 13], [21, 22], [31], reference=[[-0.5, -1.0], [-2.0]])
SHORT = item([14], [41, 42, 43], [51, 52], reference=[[-3.0, -4.0, -5.0], [-6.0, -7.0]])
THREE = item(
    [15, 16],
    [61, 62],
    [71],
    [81, 82, 83],
    sides=(0, 1, 0, 2),
    reference=[[-1.0, -2.0], [-3.0], [-1.0, -2.0], [-4.0, -5.0, -6.0]],
    weights=[[0.1, 0.2], [0.3], [0.4, 0.5], [0.6, 0.7, 0.8]],
)
TENSORS = ("input_ids", "position_ids", "predictors", "targets", "reference")


def test_layout_by_hand():
    """The last token of an answer is not read; the last of the prompt predicts the first of every answer."""
    batch = pack([PAIR, SHORT])
    assert batch.input_ids.tolist() == [[11, 12, 13, 21, 14, 41, 42, 51]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 1]]
    assert batch.layout.ends.tolist() == [4, 4, 4, 4, 8, 7, 7, 8]
    assert batch.predictors.tolist() == [2, 3, 2, 4, 5, 6, 4, 7]
    assert batch.targets.tolist() == [21, 22, 31, 41, 42, 43, 51, 52]
    assert batch.counts == [2, 1, 3, 2]
    assert batch.reference.tolist() == [-0.5, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0]
    assert batch.side_tokens is batch.weights is None
    assert {getattr(batch, part).dtype for part in TENSORS[:-1]} == {torch.int64}
    assert batch.reference.dtype == torch.float32


def test_an_answer_in_two_pairs_is_read_once():
    batch = pack([PAIR, THREE])
    assert batch.input_ids.tolist() == [[11, 12, 13, 21, 15, 16, 61, 81, 82]]
    assert batch.targets.tolist() == [21, 22, 31, 61, 62, 71, 81, 82, 83]
    assert batch.targets[batch.side_tokens].tolist() == [21, 22, 31, 61, 62, 71, 61, 62, 81, 82, 83]
    assert batch.side_tokens.tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 6, 7, 8]
    assert batch.counts == [2, 1, 2, 1, 2, 3]
    assert len(batch.side_tokens) == sum(batch.counts)


def test_values_follow_the_sides():
    batch = pack([THREE])
    assert batch.reference.tolist() == [-1.0, -2.0, -3.0, -1.0, -2.0, -4.0, -5.0, -6.0]
    torch.testing.assert_close(batch.weights, torch.linspace(0.1, 0.8, 8))
    assert len(batch.weights) == sum(batch.counts)


def test_empty_answers_and_one_token_answers_take_no_place():
    batch = pack([item([1, 2], [], [3], []), item([4], [5, 6], [])])
    assert batch.input_ids.tolist() == [[1, 2, 4, 5]]
    assert batch.predictors.tolist() == [1, 2, 3]
    assert batch.targets.tolist() == [3, 5, 6]
    assert batch.counts == [0, 1, 0, 2, 0]


def test_lengths_are_of_the_tokens_that_are_read():
    assert [one.lengths for one in (PAIR, SHORT, THREE)] == [(3, 1, 0), (1, 2, 1), (2, 1, 0, 2)]
    assert item([1], []).lengths == (1, 0)


def test_pairs_of_an_item():
    assert [one.pairs for one in (PAIR, THREE, item([1], [2]))] == [1, 2, 1]


@given(st.lists(st.tuples(st.integers(1, 9), *[st.integers(0, 9)] * 3), min_size=1, max_size=5))
def test_every_target_is_predicted_from_what_stands_before_it(lengths):
    """What its state attends to, in the order of positions, is the prompt and the answer up to it."""
    ids = iter(range(1, 10_000))
    items = [item(*([next(ids) for _ in range(length)] for length in one)) for one in lengths]
    batch = pack(items)
    places, found = torch.arange(batch.input_ids.shape[1]), []
    for place, target in zip(batch.predictors, batch.targets.tolist(), strict=True):
        seen = places[batch.layout.attends(place, places)]
        found.append([*batch.input_ids[0, seen[batch.position_ids[0, seen].argsort()]].tolist(), target])
    texts = [[*one.prompt.tolist(), *response.tolist()] for one in items for response in one.responses]
    first = [len(one.prompt) for one in items for _ in one.responses]
    assert found == [text[: end + 1] for text, n in zip(texts, first, strict=True) for end in range(n, len(text))]


def test_items_without_reference_have_none():
    assert pack([item([1, 2], [3])]).reference is None


def test_an_item_without_prompt_is_refused():
    """Its first token would be predicted from the item before."""
    with pytest.raises(StudyError, match=r"^expected a prompt of at least one token, found none"):
        pack([PAIR, item([], [3])])


def test_moving_a_batch_keeps_all_of_it():
    batch = pack([PAIR, THREE])
    moved = batch.to(torch.device("meta"))
    assert moved.counts == batch.counts
    for part in (*TENSORS, "side_tokens", "weights"):
        assert getattr(moved, part).device.type == "meta"
        assert getattr(moved, part).shape == getattr(batch, part).shape
    for part in ("ends", "positions", "output_index"):
        assert getattr(moved.layout, part).device.type == "meta"
        assert getattr(moved.layout, part).shape == getattr(batch.layout, part).shape
    for bucket, own in zip(moved.layout.buckets, batch.layout.buckets, strict=True):
        assert {bucket.queries.device.type, bucket.keys.device.type, bucket.padding.device.type} == {"meta"}
        assert bucket.square == own.square
    assert pack([item([1, 2], [3])]).to(torch.device("meta")).reference is None
