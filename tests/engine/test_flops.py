"""Operations counted beforehand are those that a forward pass makes."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from wspin.engine import flops
from wspin.engine.flops import Cost, attending_pairs, scoring_flops
from wspin.engine.layout import PackedLayout
from wspin.engine.logprobs import patched_forward, token_logprobs
from wspin.engine.packing import Item, pack
from wspin.logprobs import score
from wspin.train.losses import token_kl

ITEM = st.tuples(st.integers(1, 20), st.lists(st.integers(0, 12), min_size=1, max_size=4)).map(
    lambda one: (one[0], *one[1])
)
SETTINGS = {
    "Qwen2": {"intermediate_size": 384, "num_key_value_heads": 2, "max_position_embeddings": 128},
    "GPT2": {"n_positions": 128},
}
ARCHITECTURES = pytest.mark.parametrize("name", SETTINGS)


def make(name, **more):
    """Of the demo's size."""
    torch.manual_seed(0)
    settings = {"vocab_size": 280, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = getattr(transformers, f"{name}Config")(**{**settings, **SETTINGS[name], **more})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def items_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    ids = ([rng.integers(1, 280, n) for n in one] for one in lengths)
    return [Item(prompt, tuple(responses)) for prompt, *responses in ids]


def as_in_the_demo(count):
    """Prompts of 30 to 45 tokens, answers of 3 to 9."""
    rng = np.random.default_rng(0)
    return items_of([(rng.integers(30, 46), *rng.integers(3, 10, 2)) for _ in range(count)])


def attention(query, key, value, *more, out_shape=None, **named):
    """Two products over the full rectangle of queries and keys; torch has no formula for the CPU's own kernel."""
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def counted(run):
    """Operations of `run`, but for the angles of rotary positions, which torch makes by a matrix product."""
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    by_module = counter.get_flop_counts()
    angles = sum(sum(counts.values()) for name, counts in by_module.items() if name.endswith(".rotary_emb"))
    return counter.get_total_flops() - angles


@ARCHITECTURES
@pytest.mark.parametrize(
    "lengths", [[(7, 3)], [(5, 4, 3), (9, 2), (3, 1, 1, 6)], [(30, 5, 8), (31, 4, 9), (4, 0, 1)]], ids=len
)
def test_what_a_layout_computes(name, lengths):
    model, batch = make(name), pack(items_of(lengths))
    assert Cost.of(model).computed(batch) == counted(lambda: token_logprobs(model, batch))


@ARCHITECTURES
def test_what_a_divergence_adds_to_a_training_pass(name):
    """The reference's forward pass, and the logits of both models, once more for the backward pass."""
    model, reference, batch = make(name), make(name), pack(items_of([(5, 4, 3), (9, 2), (3, 1, 1, 6)]))
    cost = Cost.of(model)

    def step(divergence, frozen):
        with torch.enable_grad(), patched_forward(model):
            logprobs, kl = model(batch, divergence, frozen)
            (logprobs.sum() if kl is None else logprobs.sum() + kl.sum()).backward()

    plain = counted(lambda: step(None, None))
    extra = counted(lambda: step(token_kl, reference.requires_grad_(False))) - plain
    assert extra == cost.training_computed(batch, True) - cost.training_computed(batch, False)
    assert cost.training_computed(batch, False) == 3 * cost.computed(batch)


@ARCHITECTURES
def test_what_scoring_computes(name, monkeypatch):
    """Over all its batches; an item with empty answers alone is not read."""
    monkeypatch.setattr(score, "check_model", lambda model: None)
    model, items = make(name), items_of([(5, 4, 3), (9, 2), (8, 0, 0), (3, 1, 1, 6), (11, 2, 2)])
    counts = scoring_flops(model, items, 25)
    assert counts["computed"] == counted(lambda: score.score_items(model, items, 25, "float32"))
    cost = Cost.of(model)
    assert counts["needed"] == cost.needed([one for one in items if one.responses[0].size])


def test_cost_of_a_model_by_hand():
    """Projections of queries and outputs 128 x 128, of keys and values 128 x 64; three products of the MLP."""
    cost = Cost.of(make("Qwen2"))
    assert cost.per_token == 2 * 3 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384)
    assert cost.per_pair == 3 * 4 * 128
    assert cost.per_prediction == 2 * 128 * 280
    assert Cost.of(make("GPT2")).per_token == 2 * 3 * 12 * 128 * 128
    assert Cost.of(make("Qwen2", head_dim=16)).per_pair == 3 * 4 * 64


def test_needed_by_hand():
    """A prompt of 3 tokens with answers of 2 and 1, of which 1 and 0 are read: 6 pairs in the prompt, 4 after it."""
    (item,) = items_of([(3, 2, 1)])
    assert Cost(per_token=1000, per_pair=10, per_prediction=1).needed([item]) == 4 * 1000 + 10 * 10 + 3
    assert Cost(per_token=1000, per_pair=10, per_prediction=1).needed([item, item]) == 2 * (4 * 1000 + 10 * 10 + 3)


def test_computed_by_hand():
    """Stretches of 3 and 1 tokens, the second with the prompt's two keys: 9 + 3 pairs, of which 9 are needed."""
    (item,) = items_of([(2, 2, 2)])
    cost = Cost(per_token=1000, per_pair=10, per_prediction=1)
    assert cost.computed(pack([item])) == 4 * 1000 + 12 * 10 + 4
    assert cost.needed([item]) == 4 * 1000 + 9 * 10 + 4


@given(ITEM)
def test_attended_pairs_are_those_of_the_rule(lengths):
    places = torch.arange(sum(lengths))
    assert attending_pairs(lengths) == PackedLayout.of([lengths]).attends(places[:, None], places).sum()


@given(st.lists(ITEM, min_size=1, max_size=6))
def test_no_layout_computes_less_than_is_needed(lengths):
    items = items_of(lengths)
    cost = Cost(per_token=0, per_pair=1, per_prediction=1)
    assert cost.needed(items) <= cost.computed(pack(items))


@pytest.mark.parametrize("budget", [512, 4096])
def test_little_is_computed_in_vain(budget):
    """At the demo's lengths, with the demo's model."""
    counts = scoring_flops(make("Qwen2"), as_in_the_demo(300), budget)
    assert 1.0 <= counts["computed"] / counts["needed"] <= 1.05


def test_the_rate_of_a_large_product():
    """In operations per second, within what any machine can do."""
    assert 1e8 < flops.matmul_rate(torch.device("cpu"), torch.float32) < 1e14
