"""pytest tests/test_logprobs.py: log-probabilities against whole forward passes, one answer at a time."""

import math

import numpy as np
import pytest
import torch
import transformers

from wspin import StudyError, losses, models
from wspin.logprobs import autocast, check_head, score, token_logprobs
from wspin.packing import Item, lay_out, micro_batches

PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def plain(model, items):
    """All answers' tokens, one answer and one whole forward pass at a time; the log-softmax in float64."""
    found = []
    for item in items:
        for response in item.responses:
            ids = torch.from_numpy(np.concatenate([item.prompt, response]).astype(np.int64))
            logits = model(input_ids=ids[None]).logits[0, len(item.prompt) - 1 : -1].double()
            found.append(logits.log_softmax(-1)[torch.arange(len(response)), ids[len(item.prompt) :]])
    return torch.cat(found)


def close(found, expected, rel=1e-5):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=rel, atol=0.0)


def by_answer(scored):
    return torch.from_numpy(np.concatenate([answer for item in scored for answer in item]))


def policy(model, items, precision):
    """Log-probabilities as training computes them."""
    model.train()
    with autocast(CPU, precision):
        return token_logprobs(model, lay_out(items, pad=0))


@torch.no_grad()
def test_equals_plain_forward_passes(model, make_items):
    items = make_items(12, answers=3)
    close(token_logprobs(model, lay_out(items, pad=0)), plain(model, items))


def test_gradient_equals_the_plain_one(model, make_items):
    """Each answer weighted differently, so that no token's gradient can stand for another's."""
    items = make_items(6)
    batch, gradients = lay_out(items, pad=0), []
    weights = torch.linspace(-1.0, 2.0, len(batch.targets), dtype=torch.float64)
    for logprobs in (token_logprobs(model, batch), plain(model, items)):
        model.zero_grad()
        (weights * logprobs).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


@torch.no_grad()
def test_padding_order_and_company_do_not_matter(model, make_items):
    items = make_items(8)
    together = token_logprobs(model, lay_out(items, pad=0))
    close(torch.cat([token_logprobs(model, lay_out([item], pad=0)) for item in items]), together)
    backward = token_logprobs(model, lay_out(items[::-1], pad=0)).split(lay_out(items[::-1], pad=0).counts)
    first, second = backward[0::2][::-1], backward[1::2][::-1]
    close(torch.cat([answer for pair in zip(first, second, strict=True) for answer in pair]), together)
    long = Item(np.arange(1, 60, dtype=np.int32), (np.arange(1, 40, dtype=np.int32),))
    close(token_logprobs(model, lay_out([*items, long], pad=0))[: len(together)], together)


@torch.no_grad()
def test_pad_may_be_eos_or_any_other_id(model, make_items):
    """EOS counts where it is said, and is nothing where it pads."""
    items = [*make_items(6), Item(np.array([5, 0, 9]), (np.array([4, 0, 3, 0]), np.array([0])))]
    with_eos, other = (token_logprobs(model, lay_out(items, pad=pad)) for pad in (0, 123))
    assert torch.equal(with_eos, other)
    close(with_eos, plain(model, items))


@torch.no_grad()
def test_an_answer_has_no_part_in_the_others(model, make_items):
    """In one layout, other ids in one answer leave every bit of the other answers as it is."""
    items = make_items(5)
    changed = [
        *items[:2],
        Item(items[2].prompt, (items[2].responses[0], (items[2].responses[1] + 1) % 270)),
        *items[3:],
    ]
    counts = lay_out(items, pad=0).counts
    before, after = (token_logprobs(model, lay_out(some, pad=0)).split(counts) for some in (items, changed))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [i != 5 for i in range(10)]


def test_extreme_logits_stay_finite(model, make_items):
    """The head scaled by 1e4: most probabilities are zero in float32, their logarithms are not infinite."""
    items = make_items(4)
    model.lm_head.weight = torch.nn.Parameter(1e4 * model.lm_head.weight.detach())
    found = token_logprobs(model, lay_out(items, pad=0))
    found.sum().backward()
    close(found.detach(), plain(model, items).detach(), rel=1e-4)
    assert found.min() < -1000
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@PRECISIONS
def test_values_are_float32(model, make_items, precision):
    logprobs = policy(model, make_items(3), precision)
    assert logprobs.dtype == torch.float32
    assert {answer.dtype for item in score(model, make_items(3), 4096, precision) for answer in item} == {
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
    reference = by_answer(score(model, items, 4096, precision))
    logprobs = policy(model, items, precision)
    assert logprobs.requires_grad
    assert torch.equal(logprobs.detach(), reference)
    moved = losses.answer_sums(logprobs - reference, lay_out(items, pad=0).counts)
    margin = moved[0::2] - moved[1::2]
    assert margin.tolist() == [0.0] * 8
    assert losses.PREFERENCE[loss](margin, 0.1).tolist() == [torch.tensor(math.log(2)).item()] * 8


@pytest.mark.parametrize("budget", [1, 40, 150, 10_000])
def test_score_returns_items_in_their_order(model, make_items, budget):
    items, told = make_items(9, answers=3), []
    scored = score(model, items, budget, "float32", told.append)
    assert [[len(answer) for answer in one] for one in scored] == [[len(r) for r in item.responses] for item in items]
    close(by_answer(scored), plain(model, items).detach())
    assert told == sorted(told)
    assert told[-1] == 9


def test_score_leaves_the_model_without_gradients(model, make_items):
    scored = score(model, make_items(2), 4096, "float32")
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    scored[0][0][:] = 0.0  # the caller's own array


@pytest.mark.parametrize("name", ["Qwen2", "GPT2"])
def test_dropout_is_off_whatever_the_model_says(name, make_items, tmp_path):
    """Policy and reference would differ by it, at every step."""
    rates = {"attention_dropout": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, "vocab_size": 270}, **rates)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    model = models.load_model(tmp_path, CPU)
    assert torch.equal(policy(model, make_items(4), "float32"), policy(model, make_items(4), "float32"))


@pytest.mark.parametrize("key", ["final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"])
def test_a_scaled_or_capped_head_is_refused(model, make_items, key):
    check_head(model)
    setattr(model.config, key, 30.0)
    with pytest.raises(StudyError, match=r"qwen2: expected logits = head.*, found a scaled or capped head"):
        score(model, make_items(1), 4096, "float32")


@pytest.mark.parametrize(
    ("name", "more", "refused"),
    [
        *((name, {}, False) for name in ("Qwen2", "Qwen3", "Llama", "Mistral", "GPT2", "Phi3")),
        *(("Gemma2", {}, True), ("Cohere", {}, True), ("Granite", {"logits_scaling": 8.0}, True)),
    ],
)
def test_other_architectures_agree_or_are_refused(name, more, refused):
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name}Config")(**SMALL, **more)
    model = transformers.AutoModelForCausalLM.from_config(settings)
    rng = np.random.default_rng(0)
    items = [Item(rng.integers(1, 50, 5), (rng.integers(1, 50, 4), rng.integers(1, 50, 7))) for _ in range(3)]
    if refused:
        with pytest.raises(StudyError):
            score(model, items, 4096, "float32")
    else:
        close(by_answer(score(model, items, 4096, "float32")), plain(model, items).detach())
