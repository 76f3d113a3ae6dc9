"""Log-probabilities against whole forward passes, one answer at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from forwards import EXPERTS, PRECISIONS, by_answer, close, close_gradients, gradient, make, mixed, names, plain, policy

from wspin.engine.batches import micro_batches
from wspin.engine.logprobs import token_logprobs
from wspin.engine.packing import Item, pack
from wspin.engine.support import check_model
from wspin.logprobs.score import score_items
from wspin.train import losses

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # GPTBigCode's own
FAMILIES = [
    ("Qwen2", {}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),  # of two: full, sliding
    ("Qwen3", {}),
    ("Llama", {}),
    ("Llama", {"num_key_value_heads": 1}),
    *(("Mistral", {"sliding_window": window}) for window in (2, 5, 64)),
    ("Gemma", {}),
    ("Gemma3Text", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    ("GPTNeoX", {}),
    ("GPT2", {}),
    ("GPT2", {"scale_attn_by_inverse_layer_idx": True}),
    ("OPT", {}),
    ("Phi", {}),
    ("Phi3", {"sliding_window": 4}),
    ("Starcoder2", {"sliding_window": 4}),
    ("GPTBigCode", {}),
    ("Olmo2", {}),
    ("Granite", {}),
    ("SmolLM3", {}),
    ("Exaone4", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    ("Mixtral", EXPERTS),
    *((name, {}) for name in ("Apertus", "Arcee", "BioGpt", "Ernie4_5", "Glm", "Glm4", "HunYuanDenseV1", "Jais2")),
    *((name, {"sliding_window": 4}) for name in ("Cwm", "Ministral", "Ministral3", "Olmo3")),
    *((name, EXPERTS) for name in ("GraniteMoe", "Phimoe")),
    ("Olmo", {}),
    ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "use_sliding_window": True, "sliding_window": 4}),
]


# Against plain forward passes


@torch.no_grad()
def test_equals_plain_forward_passes(model, make_items):
    items = make_items(12, answers=3)
    close(token_logprobs(model, pack(items)), plain(model, items))


@torch.no_grad()
def test_items_with_one_answer_each_equal_plain_forward_passes(model, make_items):
    """Packed, nothing shared."""
    items = make_items(12, answers=1)
    close(token_logprobs(model, pack(items)), plain(model, items))


def test_gradient_equals_the_plain_one(model, make_items):
    """Each answer weighted differently, so that no token's gradient can stand for another's."""
    items = make_items(6)
    weights = torch.linspace(-1.0, 2.0, sum(pack(items).counts), dtype=torch.float64)
    both = (token_logprobs(model, pack(items)), plain(model, items))
    close_gradients(*(gradient(model, (weights * logprobs).sum()) for logprobs in both))


@pytest.mark.parametrize(("name", "more"), FAMILIES, ids=names(FAMILIES))
def test_every_family_equals_its_plain_forward_passes(name, more):
    """Values and the whole gradient."""
    model, items = make(name, more), mixed()
    check_model(model)
    expected = plain(model, items)
    found = token_logprobs(model, pack(items))
    close(found.detach(), expected.detach())
    reads = plain(model, [Item(np.roll(item.prompt, 1) % 49 + 1, item.responses) for item in items]).detach()
    assert (expected.detach() - reads).abs().median() > 0.01  # or nothing would be tested
    weights = torch.linspace(-1.0, 2.0, len(expected), dtype=torch.float64)
    close_gradients(*(gradient(model, (weights * one).sum()) for one in (found, expected)))


@pytest.mark.parametrize(("name", "more"), FAMILIES, ids=names(FAMILIES))
def test_a_shared_prompt_has_the_gradient_of_its_pairs(name, more):
    """Of chosen, rejected and replayed: read together, and as two pairs in batches of their own."""
    model = make(name, more)
    prompt, answers, pairs = mixed()[0].prompt, mixed()[0].responses, [(0, 1), (0, 2)]
    sizes = [sum(len(answers[i]) for i in pair) for pair in pairs]
    values = torch.linspace(-1.0, 2.0, sum(sizes))
    shared = pack([Item(prompt, answers, sides=sum(pairs, ()))])
    together = gradient(model, (values * token_logprobs(model, shared)[shared.side_tokens]).sum())
    apart = [torch.zeros_like(weight) for weight in together.values()]
    for pair, own in zip(pairs, values.split(sizes), strict=True):
        loss = (own * token_logprobs(model, pack([Item(prompt, tuple(answers[i] for i in pair))]))).sum()
        apart = [one + more for one, more in zip(apart, gradient(model, loss).values(), strict=True)]
    close_gradients(together, dict(zip(together, apart, strict=True)))


@torch.no_grad()
def test_order_and_company_do_not_matter(model, make_items):
    items = make_items(8)
    together = token_logprobs(model, pack(items))
    close(torch.cat([token_logprobs(model, pack([item])) for item in items]), together)
    backward = token_logprobs(model, pack(items[::-1])).split(pack(items[::-1]).counts)
    first, second = backward[0::2][::-1], backward[1::2][::-1]
    close(torch.cat([answer for pair in zip(first, second, strict=True) for answer in pair]), together)
    long = Item(np.arange(1, 60, dtype=np.int32), (np.arange(1, 40, dtype=np.int32),))
    close(token_logprobs(model, pack([long, *items]))[39:], together)


@torch.no_grad()
def test_answers_may_stand_in_any_order(model, make_items):
    items = make_items(6, answers=3)
    turned = [Item(item.prompt, item.responses[::-1]) for item in items]
    backward = token_logprobs(model, pack(turned)).split(pack(turned).counts)
    again = [backward[3 * i + j] for i in range(6) for j in (2, 1, 0)]
    close(torch.cat(again), token_logprobs(model, pack(items)))


@torch.no_grad()
def test_trap_12_eos_is_an_id_as_any_other(model):
    """In the prompt, in the middle of an answer, and as all of it: it separates nothing."""
    items = [
        Item(np.array([5, 0, 9]), (np.array([4, 0, 3, 0]), np.array([0]))),
        Item(np.array([0]), (np.array([0, 0]),)),
    ]
    close(token_logprobs(model, pack(items)), plain(model, items))


@torch.no_grad()
def test_a_token_matters_to_what_attends_to_it_and_to_nothing_else(model):
    """Another id at one place: the bits of all other answers, of the item and of its neighbours, stay as they are."""
    batch = pack(mixed()[:5])
    before = token_logprobs(model, batch)
    for place in range(batch.input_ids.shape[1]):
        ids = batch.input_ids.clone()
        ids[0, place] = (ids[0, place] + 100) % 270
        after = token_logprobs(model, replace(batch, input_ids=ids))
        expected = batch.layout.attends(batch.predictors, torch.tensor(place))
        assert (after != before).tolist() == expected.tolist()


@torch.no_grad()
def test_a_cache_cannot_join_the_items(model, make_items):
    """With the library's default, use_cache=True, items that are packed by positions alone read each other."""
    items = make_items(4, answers=1)
    batch, expected = pack(items), plain(model, items)
    packed = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    off = {}
    for cache in (False, True):
        logits = model(**packed, use_cache=cache).logits[0, batch.predictors].double()
        found = logits.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
        off[cache] = (found - expected).abs().max()
    assert off[False] < 1e-5
    assert off[True] > 0.1
    model.config.use_cache = True
    close(token_logprobs(model, batch), expected)


@torch.no_grad()
def test_no_cache_is_made(model, make_items, monkeypatch):
    forward, calls = model.base_model.forward, []
    monkeypatch.setattr(model.base_model, "forward", lambda **more: calls.append(more) or forward(**more))
    token_logprobs(model, pack(make_items(2)))
    assert [more["use_cache"] for more in calls] == [False]


def test_trap_19_extreme_logits_stay_finite(model, make_items):
    """The head scaled by 1e4: most probabilities are zero in float32, their logarithms are not infinite."""
    items = make_items(4)
    model.lm_head.weight = torch.nn.Parameter(1e4 * model.lm_head.weight.detach())
    found = token_logprobs(model, pack(items))
    found.sum().backward()
    close(found.detach(), plain(model, items).detach(), rel=1e-4)
    assert found.min() < -1000
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


# Precision


@PRECISIONS
def test_values_are_float32(model, make_items, precision):
    logprobs = policy(model, make_items(3), precision)
    assert logprobs.dtype == torch.float32
    assert {answer.dtype for item in score_items(model, make_items(3), 4096, precision) for answer in item} == {
        np.dtype("f4")
    }


@torch.no_grad()
def test_log_softmax_happens_in_float32(model, make_items):
    """Under bfloat16 the products are rounded, what follows is not: e^log-probabilities still add up to one."""
    prompt = np.array([3, 1, 4], dtype=np.int32)
    every = Item(prompt, tuple(np.array([i], dtype=np.int32) for i in range(270)))
    assert policy(model, [every], "bfloat16").double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    items = make_items(8)
    off = (policy(model, items, "bfloat16") - policy(model, items, "float32")).abs().max()
    assert 1e-4 < off < 0.3


@PRECISIONS
@pytest.mark.parametrize("loss", ["spin", "dpo"])
def test_policy_equal_to_its_reference_gives_log_2_exactly(model, make_items, precision, loss):
    items = make_items(8)
    (order,) = micro_batches([item.lengths for item in items], range(8), 4096)
    items = [items[i] for i in order]
    reference = by_answer(score_items(model, items, 4096, precision))
    logprobs = policy(model, items, precision)
    assert logprobs.requires_grad
    assert torch.equal(logprobs.detach(), reference)
    moved = losses.answer_sums(logprobs - reference, pack(items).counts)
    margin = moved[0::2] - moved[1::2]
    assert margin.tolist() == [0.0] * 8
    assert losses.PREFERENCE[loss](margin, 0.1).tolist() == [torch.tensor(math.log(2)).item()] * 8
