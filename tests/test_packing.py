"""pytest tests/test_packing.py: which items meet in a step, a micro-batch and a tensor."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wspin.packing import Item, lay_out, micro_batches, plan

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=60)
SHAPES = {"global_batch": st.integers(1, 16), "token_budget": st.integers(1, 400), "epochs": st.integers(1, 3)}
EQUAL = [(5, 3, 4)] * 101


def flat(step):
    return [index for batch in step for index in batch]


def epochs(steps, per_epoch):
    return [steps[i : i + per_epoch] for i in range(0, len(steps), per_epoch)]


def tokens(lengths, batch):
    """Size of a micro-batch's tensor: every row as wide as the widest."""
    rows = [lengths[i][0] + answer for i in batch for answer in lengths[i][1:]]
    return len(rows) * max(rows)


@given(lengths=LENGTHS, **SHAPES)
def test_every_item_once_per_epoch(lengths, global_batch, token_budget, epochs):
    per_epoch = -(-len(lengths) // global_batch)
    steps = plan(lengths, [1, 0], global_batch, token_budget, epochs)
    assert len(steps) == epochs * per_epoch
    for first in range(0, len(steps), per_epoch):
        used = Counter(index for step in steps[first : first + per_epoch] for index in flat(step))
        assert used == Counter(range(len(lengths)))


@given(lengths=LENGTHS, **SHAPES)
def test_every_step_is_full_but_the_last_of_an_epoch(lengths, global_batch, token_budget, epochs):
    sizes = [len(flat(step)) for step in plan(lengths, [1, 0], global_batch, token_budget, epochs)]
    full, rest = divmod(len(lengths), global_batch)
    assert sizes == ([global_batch] * full + [rest] * (rest > 0)) * epochs


@given(lengths=LENGTHS, token_budget=st.integers(1, 400))
def test_micro_batches_keep_to_the_budget(lengths, token_budget):
    """Unless a single item is longer."""
    batches = micro_batches(lengths, range(len(lengths)), token_budget)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert all(batch for batch in batches)
    assert all(len(batch) == 1 or tokens(lengths, batch) <= token_budget for batch in batches)


@given(lengths=LENGTHS, token_budget=st.integers(1, 400))
def test_micro_batches_are_filled_longest_first(lengths, token_budget):
    """No batch could have taken the item that opens the next one."""
    batches = micro_batches(lengths, range(len(lengths)), token_budget)
    widths = [max(lengths[i][0] + answer for answer in lengths[i][1:]) for i in flat(batches)]
    assert widths == sorted(widths, reverse=True)
    assert all(tokens(lengths, [*a, b[0]]) > token_budget for a, b in pairwise(batches))


def test_equal_seeds_agree_and_others_differ():
    plans = [plan(EQUAL, seed, 8, 100, epochs=2) for seed in ([42, 0], [42, 0], [43, 0], [42, 1])]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3] != plans[2]


def test_epochs_come_in_different_orders():
    first, second, third = epochs(plan(EQUAL, [42, 0], 8, 100, epochs=3), per_epoch=13)
    assert first != second != third != first


def test_items_are_shuffled():
    order = [index for step in plan(EQUAL, [42, 0], 1, 100) for index in flat(step)]
    assert np.abs(np.diff(order)).mean() > 20  # a third of the length where the order is random, 1 where it is sorted


def test_plan_depends_on_nothing_but_lengths_and_seed(monkeypatch):
    rng = np.random.default_rng(0)
    lengths = [tuple(rng.integers(1, 40, 3).tolist()) for _ in range(50)]
    expected = plan(lengths, [42, 0], 8, 200, epochs=2)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    for seed in (np.random.seed, random.seed, torch.manual_seed):
        seed(99)
    assert plan(list(map(list, lengths)), [42, 0], 8, 200, epochs=2) == expected


def test_token_budget_moves_no_item_to_another_step():
    rng = np.random.default_rng(0)
    lengths = [tuple(rng.integers(1, 40, 3).tolist()) for _ in range(50)]
    steps = [[sorted(flat(step)) for step in plan(lengths, [42, 0], 8, budget)] for budget in (1, 100, 10_000)]
    assert steps[0] == steps[1] == steps[2]


def item(prompt, *responses, reference=()):
    ids = [np.array(response, dtype=np.int32) for response in responses]
    return Item(np.array(prompt, dtype=np.int32), tuple(ids), tuple(np.array(r, dtype=np.float32) for r in reference))


PAIR = item([11, 12, 13], [21, 22], [31], reference=[[-0.5, -1.0], [-2.0]])
SHORT = item([14], [41, 42, 43], [51, 52], reference=[[-3.0, -4.0, -5.0], [-6.0, -7.0]])


def test_layout_by_hand():
    """The state at position P - 1 predicts the first token after P tokens of prompt."""
    batch = lay_out([PAIR, SHORT], pad=0)
    assert batch.input_ids.tolist() == [
        [11, 12, 13, 21, 22],
        [11, 12, 13, 31, 0],
        [14, 41, 42, 43, 0],
        [14, 51, 52, 0, 0],
    ]
    assert batch.counts == [2, 1, 3, 2]
    assert batch.rows.tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
    assert batch.positions.tolist() == [2, 3, 2, 0, 1, 2, 0, 1]
    assert batch.targets.tolist() == [21, 22, 31, 41, 42, 43, 51, 52]
    assert batch.reference.tolist() == [-0.5, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0]
    assert batch.input_ids.dtype == batch.targets.dtype == batch.positions.dtype == torch.int64
    assert batch.reference.dtype == torch.float32


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_targets_are_the_ids_after_their_positions(lengths):
    ids = iter(range(1, 10_000))
    items = [item(*([next(ids) for _ in range(length)] for length in one)) for one in lengths]
    batch = lay_out(items, pad=0)
    assert torch.equal(batch.input_ids[batch.rows, batch.positions + 1], batch.targets)
    assert batch.targets.tolist() == [i for one in items for response in one.responses for i in response.tolist()]


@pytest.mark.parametrize("pad", [21, 14, 269])
def test_pad_is_of_no_consequence(pad):
    """Not even where it is an id that the answers hold."""
    usual, other = lay_out([PAIR, SHORT], pad=0), lay_out([PAIR, SHORT], pad=pad)
    assert other.input_ids[1].tolist() == [11, 12, 13, 31, pad]
    assert other.counts == usual.counts
    for part in ("rows", "positions", "targets", "reference"):
        assert torch.equal(getattr(other, part), getattr(usual, part))


def test_items_without_reference_have_none():
    assert lay_out([item([1, 2], [3])], pad=0).reference is None


def test_moving_a_batch_keeps_all_of_it():
    batch = lay_out([PAIR, SHORT], pad=0)
    moved = batch.to(torch.device("meta"))
    assert moved.counts == batch.counts
    for part in ("input_ids", "rows", "positions", "targets", "reference"):
        assert getattr(moved, part).device.type == "meta"
        assert getattr(moved, part).shape == getattr(batch, part).shape
    assert lay_out([item([1, 2], [3])], pad=0).to(torch.device("meta")).reference is None
