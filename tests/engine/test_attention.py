"""Who attends to whom in a packed row, and how a model is brought to it."""

from contextlib import nullcontext
from types import SimpleNamespace

import forwards
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers.integrations.flex_attention import WrappedFlexAttention

from wspin.engine import attention
from wspin.engine.attention import shared_prefix
from wspin.engine.layout import Branch, PackedLayout
from wspin.engine.logprobs import autocast
from wspin.errors import StudyError

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


def states_of(layout, heads=(4, 2, 2), width=8):
    torch.manual_seed(0)
    size = len(layout.positions)
    return [torch.randn(1, n, size, width, dtype=torch.float64, requires_grad=True) for n in heads]


def by_the_rule(layout, states, window, scaling):
    """Softmax over the whole row, written out: (1, N, heads, width)."""
    query, key, value = (one.repeat_interleave(4 // one.shape[1], dim=1) for one in states)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~dense(layout, window), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def bucketed(layout, states, window=None, scaling=None, module=None):
    more = {"scaling": scaling, "layout": layout, "sliding_window": window}
    return attention._bucketed_attention(module or SimpleNamespace(), *states, None, **more)[0]


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


# What transformers asks for


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"softcap": 50.0}, "softcap"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"head_mask": torch.zeros(1)}, "head_mask"),
        ({"dropout": 0.1}, "dropout"),
        ({"attention_mask": torch.zeros(1)}, "attention_mask"),
        ({"dropout": 0.1, "softcap": 50.0}, "softcap, dropout"),
    ],
)
@pytest.mark.parametrize("forward", [attention._bucketed_attention, attention._flex_attention])
def test_more_than_plain_causal_attention_is_refused(forward, options, names):
    layout = PackedLayout.of([(3, 2)])
    call = {"attention_mask": None, "scaling": None, "layout": layout, **options}
    with pytest.raises(StudyError, match=f"^SimpleNamespace: expected plain causal attention, found {names}$"):
        forward(SimpleNamespace(), *states_of(layout), **call)


def test_what_asks_for_nothing_is_let_through():
    layout = PackedLayout.of([(3, 2)])
    more = {"softcap": None, "s_aux": None, "dropout": 0.0, "is_causal": True, "use_cache": False}
    found, weights = attention._bucketed_attention(
        SimpleNamespace(), *states_of(layout), None, scaling=None, layout=layout, **more
    )
    assert torch.equal(found, bucketed(layout, states_of(layout)))
    assert weights is None


@pytest.mark.parametrize("forward", [attention._bucketed_attention, attention._flex_attention])
def test_attention_without_a_layout_is_refused(forward):
    with pytest.raises(StudyError, match=r"^SimpleNamespace: expected the layout of a packed row, found none"):
        forward(SimpleNamespace(), *states_of(PackedLayout.of([(3, 2)])), None, scaling=None)


def test_a_window_must_be_where_the_config_says():
    """Or a model's own idea of its layers would be lost in silence."""
    layout = PackedLayout.of([(3, 2)])
    config = SimpleNamespace(layer_types=["full_attention", "sliding_attention"])
    full, sliding = (SimpleNamespace(config=config, layer_idx=index) for index in (0, 1))
    assert bucketed(layout, states_of(layout), None, module=full).shape == (1, 5, 4, 8)
    assert bucketed(layout, states_of(layout), 2, module=sliding).shape == (1, 5, 4, 8)
    with pytest.raises(
        StudyError,
        match=r"^SimpleNamespace: layer 0: expected full_attention as in layer_types, found sliding window 2$",
    ):
        bucketed(layout, states_of(layout), 2, module=full)
    with pytest.raises(
        StudyError,
        match=r"^SimpleNamespace: layer 1: expected sliding_attention as in layer_types, found sliding window None$",
    ):
        bucketed(layout, states_of(layout), None, module=sliding)


@pytest.mark.parametrize("usual", ["sdpa", "eager"])
def test_the_model_is_given_back_as_it_was(model, usual):
    model.set_attn_implementation(usual)
    ids = torch.arange(5)[None]
    before = model(input_ids=ids).logits
    with shared_prefix(model):
        assert model.config._attn_implementation == attention.BUCKETED
        with pytest.raises(StudyError, match=r"^Qwen2Attention: expected the layout"):
            model(input_ids=ids)
    assert model.config._attn_implementation == usual
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_model_is_given_back_after_an_error(model):
    with pytest.raises(ZeroDivisionError), shared_prefix(model):
        _ = 1 / 0
    assert model.config._attn_implementation == "sdpa"


def test_one_may_stand_within_another(model):
    with shared_prefix(model):
        with pytest.raises(ZeroDivisionError), shared_prefix(model):
            _ = 1 / 0
        assert model.config._attn_implementation == attention.BUCKETED
    assert model.config._attn_implementation == "sdpa"


def test_without_a_gpu_nothing_is_compiled(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    with shared_prefix(model):
        assert model.config._attn_implementation == attention.BUCKETED


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, nullcontext])
def test_whether_flex_attention_compiles_is_tried_with_gradients(monkeypatch, capsys, context):
    """Wherever it is asked first: `check_model` runs without them, and its answer is kept."""
    shapes = []

    def flex(module, *states, **more):
        shapes.append([tuple(one.shape) for one in states[:3]])
        return attention._bucketed_attention(module, *states, **more)

    monkeypatch.setattr(attention, "_flex_attention", flex)
    with context():
        assert attention._flex_compiles.__wrapped__(torch.device("cpu"), 4, 2, 16)
    assert shapes == [[(1, 4, 300, 16), (1, 2, 300, 16), (1, 2, 300, 16)]]
    assert capsys.readouterr().out == ""


def test_where_flex_attention_does_not_compile_the_log_says_so(capsys):
    """On a CPU it has no backward pass."""
    assert not attention._flex_compiles.__wrapped__(torch.device("cpu"), 4, 2, 16)
    assert capsys.readouterr().out.startswith("attention: FlexAttention does not compile here (")


def test_past_the_limit_of_compilations_there_is_an_error():
    """In place of a kernel that computes all scores at once."""
    from torch._dynamo import config

    with config.patch(fail_on_recompile_limit_hit=False, recompile_limit=8):
        attention._flex_compiles.__wrapped__(torch.device("cpu"), 4, 2, 16)
        assert (config.fail_on_recompile_limit_hit, config.recompile_limit) == (True, attention.RECOMPILATIONS)


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_flex_attention_gets_states_of_one_type(monkeypatch, precision, dtype):
    """Under autocast the keys are float32 by their positions, and the values bfloat16 by their projection."""
    found = []

    def forward(module, *states, scaling):
        found.extend(one.dtype for one in states[:3])
        return states[0], None

    monkeypatch.setattr(attention, "flex_attention_forward", forward)
    layout = PackedLayout.of([(3, 2)])
    query, key, value = (one.float() for one in states_of(layout))
    with autocast(torch.device("cpu"), precision):
        attention._flex_attention(SimpleNamespace(), query, key, value.to(dtype), None, None, layout=layout)
    assert found == [dtype] * 3


@pytest.mark.parametrize(
    ("settings", "shape"), [({}, (4, 2, 8)), ({"num_key_value_heads": None, "head_dim": 32}, (4, 4, 32))]
)
def test_heads_have_the_shape_of_the_config(settings, shape):
    model = SimpleNamespace(config=transformers.Qwen3Config(**{**forwards.SMALL, **settings}))
    assert attention._head_shape(model) == shape


@torch.no_grad()
def test_sizes_of_a_layout_do_not_move_its_values():
    """A stretch's output is the same in a bucket of its own and in company that pads it."""
    small, large = (7, 3, 4), (8, 3, 4)
    layout, alone = PackedLayout.of([large, small]), PackedLayout.of([small])
    states = states_of(layout)
    own = [one[:, :, sum(large) :] for one in states]
    assert any(bucket.padding.any() for bucket in layout.buckets)
    torch.testing.assert_close(bucketed(layout, states)[:, sum(large) :], bucketed(alone, own), rtol=1e-12, atol=1e-12)
