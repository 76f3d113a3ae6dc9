"""Who attends to whom in a packed row, in the rule, the buckets and the kernels."""

from types import SimpleNamespace

import pytest
import torch
from attention_states import bucketed, states_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers.integrations.flex_attention import WrappedFlexAttention

from wspin.engine import attention
from wspin.engine.layout import Branch, PackedLayout

ITEM = st.lists(st.integers(0, 12), max_size=4).map(tuple)
LENGTHS = st.lists(st.tuples(st.integers(1, 20), ITEM).map(lambda one: (one[0], *one[1])), min_size=1, max_size=8)
WINDOWS = pytest.mark.parametrize("window", [None, 1, 3])
LARGE = [(30, 20, 5, 41), (90,), (7, 60, 60), (50, 1, 0, 2), (3, 8)]  # three blocks of 128


def dense(layout, window=None):
    """The rule for every pair of places, (N, N)."""
    places = torch.arange(len(layout.positions))
    return layout.attends(places[:, None], places, window)


def seen_in_buckets(layout, window):
    """How often every token's query sees every token's key, (N, N)."""
    rows = []
    for bucket, mask in zip(layout.buckets, layout.bucket_masks(window), strict=True):
        size = bucket.keys.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool).tril() if mask is None else mask[:, 0]
        hits = torch.zeros(*bucket.queries.shape, len(layout.positions), dtype=torch.int64)
        keys = bucket.keys[:, None, :].expand(mask.shape if mask.dim() == 3 else (len(bucket.keys), *mask.shape))
        rows.append(hits.scatter_add_(2, keys, mask.expand(keys.shape).long()).flatten(0, 1))
    return torch.cat(rows)[layout.output_index]


# The rule


def test_the_rule_by_hand():
    """A prompt p p with answers a and b b, then a prompt q with an answer c."""
    layout = PackedLayout.of([(2, 1, 2), (1, 1)])
    assert layout.ends.tolist() == [5, 5, 3, 5, 5, 7, 7]
    assert layout.positions.tolist() == [0, 1, 2, 2, 3, 0, 1]
    assert dense(layout).int().tolist() == [
        # p  p  a  b  b  q  c
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_the_rule_with_a_sliding_window_by_hand():
    """Of two tokens: distances are those of the text, not of the row. The second b is too far from p."""
    assert dense(PackedLayout.of([(2, 1, 2), (1, 1)]), 2).int().tolist() == [
        # p  p  a  b  b  q  c
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


BRANCHES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=9)


@given(drawn=BRANCHES)
def test_a_token_attends_to_the_beginning_that_its_branch_keeps(drawn):
    """Branches of branches: token by token, against conversations spelled out."""
    branches, conversation, expected = [], [], []
    for kept, new in [(0, 3), *drawn]:
        branches.append(Branch(min(kept, len(conversation)), new))
        conversation = conversation[: branches[-1].kept]
        for _ in range(new):
            conversation.append(len(expected))
            expected.append(set(conversation))
    layout = PackedLayout.of_branches(branches)
    assert [set(row.nonzero()[:, 0].tolist()) for row in dense(layout)] == expected
    assert layout.positions.tolist() == [len(seen) - 1 for seen in expected]
    for window in (None, 2):
        assert torch.equal(seen_in_buckets(layout, window), dense(layout, window).long())


# The buckets


@WINDOWS
@given(lengths=LENGTHS)
@settings(max_examples=40)
def test_buckets_keep_the_rule(window, lengths):
    """Every key once: padding repeats keys, and no query whose output is read sees them twice."""
    layout = PackedLayout.of(lengths)
    assert torch.equal(seen_in_buckets(layout, window), dense(layout, window).long())


@given(lengths=LENGTHS)
def test_every_token_is_read_from_a_query_of_its_own(lengths):
    layout = PackedLayout.of(lengths)
    queries = torch.cat([bucket.queries.flatten() for bucket in layout.buckets])
    size = sum(map(sum, lengths))
    assert len(layout.positions) == len(layout.ends) == size
    assert queries[layout.output_index].tolist() == list(range(size))
    first = {place: row for row, place in reversed(list(enumerate(queries.tolist())))}
    assert layout.output_index.tolist() == [first[place] for place in range(size)]


@given(lengths=LENGTHS)
def test_buckets_hold_little_padding(lengths):
    layout, work = PackedLayout.of(lengths), 0
    for bucket in layout.buckets:
        rows = zip(bucket.queries.tolist(), bucket.padding, strict=True)
        real = [len(set(queries)) * int((~padding).sum()) for queries, padding in rows]
        assert 0 < bucket.queries.numel() * bucket.keys.shape[1] <= 1.125 * sum(real)
        work += sum(real)
    first = [prompt + (answers[0] if answers else 0) for prompt, *answers in lengths]
    further = [n * (one[0] + n) for one in lengths for n in one[2:]]
    assert work == sum(n * n for n in first) + sum(further)  # what the stretches need, each once


def test_items_of_like_length_share_a_bucket():
    """Prompts with their first answers in one, all further answers in another."""
    layout = PackedLayout.of([(50, 9, 8), (49, 9, 8), (48, 9, 8, 8)])
    assert [tuple(bucket.queries.shape) for bucket in layout.buckets] == [(3, 59), (4, 8)]
    assert [bucket.keys.shape[1] for bucket in layout.buckets] == [59, 58]
    assert [bucket.square for bucket in layout.buckets] == [True, False]
    assert len(PackedLayout.of([(50, 9), (10, 2)]).buckets) == 2
    assert [bucket.square for bucket in PackedLayout.of([(8,), (1, 7, 8)]).buckets] == [True, False]


def test_plain_causal_attention_needs_no_mask():
    """None is what the fast kernels want; a window that no token can see past is none."""
    layout = PackedLayout.of([(5, 3, 2), (4, 4)])
    square, further = layout.bucket_masks(None)
    assert square is None
    assert further.shape == (1, 1, 2, 7)
    assert layout.bucket_masks(8)[0] is None
    assert layout.bucket_masks(7)[0] is not None


def test_masks_are_made_once():
    layout = PackedLayout.of([(5, 3, 2)])
    assert layout.bucket_masks(3)[0] is layout.bucket_masks(3)[0]
    assert layout.bucket_masks(3)[0] is not layout.bucket_masks(2)[0]
    assert layout.block_mask(3) is layout.block_mask(3)
    assert layout.block_mask(3) is not layout.block_mask(None)


# The kernels


def by_the_rule(layout, states, window, scaling):
    """Softmax over the whole row, written out: (1, N, heads, width)."""
    query, key, value = (one.repeat_interleave(4 // one.shape[1], dim=1) for one in states)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~dense(layout, window), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@WINDOWS
@given(lengths=LENGTHS)
@settings(max_examples=15)
def test_bucketed_attention_is_softmax_under_the_rule(window, lengths):
    """Values and gradients, with grouped queries."""
    layout, found = PackedLayout.of(lengths), []
    states = states_of(layout)
    weights = torch.randn(1, len(layout.positions), 4, 8, dtype=torch.float64)
    for out in (bucketed(layout, states, window, 0.3), by_the_rule(layout, states, window, 0.3)):
        found.append((out, *torch.autograd.grad((out * weights).sum(), states)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_without_a_scaling_it_is_the_usual_one():
    layout = PackedLayout.of([(5, 3, 2), (4, 4)])
    states = states_of(layout)
    torch.testing.assert_close(bucketed(layout, states), bucketed(layout, states, scaling=8**-0.5))


@WINDOWS
def test_block_mask_keeps_the_rule(window):
    """Of FlexAttention: what is asked for single pairs, and the blocks that it does not skip."""
    layout = PackedLayout.of(LARGE)
    mask, places = layout.block_mask(window), torch.arange(len(layout.positions))
    expected = dense(layout, window)
    assert torch.equal(mask.mask_mod(0, 0, places[:, None], places), expected)
    blocks = torch.zeros(3 * 128, 3 * 128, dtype=torch.bool)
    blocks[: len(places), : len(places)] = expected
    blocks = blocks.view(3, 128, 3, 128).transpose(1, 2).flatten(2).any(2)
    assert torch.equal(mask.to_dense()[0, 0].bool(), blocks)
    assert not blocks.all()


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("lengths", [[(1,)], [(100, 20, 8)], [(500, 200, 7), (90, 300), (60, 30)], [(700, 600)] * 2])
def test_blocks_are_those_of_the_whole_square(window, lengths):
    """torch computes them from the mask of all pairs of tokens, here they are counted in slices."""
    layout = PackedLayout.of(lengths)
    size, mask = len(layout.positions), layout.block_mask(window)
    whole = create_block_mask(
        lambda b, h, query, key: layout.attends(query, key, window), None, None, size, size, "cpu"
    )
    assert mask.shape == whole.shape
    for part in (
        "kv_num_blocks",
        "kv_indices",
        "full_kv_num_blocks",
        "full_kv_indices",
        "q_num_blocks",
        "full_q_indices",
    ):
        found, expected = getattr(mask, part), getattr(whole, part)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_no_mask_of_a_long_row_is_ever_whole(monkeypatch):
    """All pairs of 32,000 tokens would be gigabytes, several times over."""
    layout, asked, attends = PackedLayout.of([(200, 300, 140)] * 10), [], PackedLayout.attends

    def counting(self, query, key, window=None):
        asked.append(query.numel() * key.numel())
        return attends(self, query, key, window)

    monkeypatch.setattr(PackedLayout, "attends", counting)
    layout.block_mask(None)
    assert max(asked) <= 1024 * 6400
    assert sum(asked) == 6400**2


@torch.no_grad()
def test_flex_attention_compiles_once_for_all_rows_and_windows(monkeypatch):
    """Past a limit torch compiles no more and computes all scores in silence. No kernel is compiled here."""
    import torch._dynamo
    from torch._dynamo.testing import CompileCounterWithBackend

    backend, compiled = CompileCounterWithBackend("eager"), torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **more: compiled(function, **{"backend": backend, **more}))
    monkeypatch.setattr(WrappedFlexAttention, "_is_flex_compiled", False)
    for size in (150, 300, 450, 700):  # several blocks each
        layout = PackedLayout.of([(size // 2, size // 3), (30, 20, 10)])
        states = [one.float() for one in states_of(layout, width=16)]
        for window in (None, 7, size):
            call = {"layout": layout, "sliding_window": window}
            attention._flex_attention(SimpleNamespace(training=False), *states, None, None, **call)
    assert backend.frame_count <= 2  # for the first length, and for all others


@WINDOWS
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_flex_attention_under_its_mask_is_the_bucketed_one(window):
    """Eager, as CPUs can."""
    layout = PackedLayout.of(LARGE)
    states = [one.float() for one in states_of(layout, width=16)]
    found = flex_attention(*states, block_mask=layout.block_mask(window), enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(found, bucketed(layout, states, window), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sizes_of_a_layout_do_not_move_its_values():
    """A stretch's output is the same in a bucket of its own and in company that pads it."""
    small, large = (7, 3, 4), (8, 3, 4)
    layout, alone = PackedLayout.of([large, small]), PackedLayout.of([small])
    states = states_of(layout)
    own = [one[:, :, sum(large) :] for one in states]
    assert any(bucket.padding.any() for bucket in layout.buckets)
    torch.testing.assert_close(bucketed(layout, states)[:, sum(large) :], bucketed(alone, own), rtol=1e-12, atol=1e-12)
