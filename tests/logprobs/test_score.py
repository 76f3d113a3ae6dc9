"""Scoring: every answer's log-probabilities, in the order of the items."""

import numpy as np
import pytest
import torch
import transformers
from forwards import CPU, SMALL, by_answer, close, mixed, plain, policy

from wspin.engine.packing import Item
from wspin.errors import StudyError
from wspin.logprobs.score import score_items
from wspin.models import folders


@pytest.mark.parametrize("budget", [1, 40, 150, 10_000])
def test_score_returns_items_in_their_order(model, make_items, budget):
    items, progress = make_items(9, answers=3), []
    scored = score_items(model, items, budget, "float32", progress.append)
    assert [[len(answer) for answer in one] for one in scored] == [[len(r) for r in item.responses] for item in items]
    close(by_answer(scored), plain(model, items).detach())
    assert progress == sorted(progress)
    assert progress[-1] == 9


def test_score_takes_empty_answers_and_items_without_any(model):
    items, progress = mixed(), []
    scored = score_items(model, items, 30, "float32", progress.append)
    assert [[len(answer) for answer in one] for one in scored] == [[len(r) for r in item.responses] for item in items]
    close(by_answer(scored), plain(model, items).detach())
    assert progress[-1] == len(items)
    assert [one.shape for one in score_items(model, items[-1:], 30, "float32")[0]] == [(0,)]


def test_a_shifted_reading_is_that_of_the_token_before(model):
    """Of the prompt's last token at an answer's first; in one whole forward pass each, in float64."""
    items = mixed()
    scored = by_answer(score_items(model, items, 30, "float32", shifted=True))
    model.double()
    by_hand = []
    for item in items:
        for response in item.responses:
            row = torch.from_numpy(np.concatenate([item.prompt, response]).astype(np.int64))
            logprobs = model(input_ids=row[None], use_cache=False).logits[0].log_softmax(-1)
            by_hand += [logprobs[i, row[i]] for i in range(len(item.prompt) - 1, len(row) - 1)]
    close(scored, torch.stack(by_hand).detach(), rel=2e-5)
    assert not np.allclose(scored, plain(model, items).detach())


def test_score_leaves_the_model_without_gradients(model, make_items):
    model.train()
    scored = score_items(model, make_items(2), 4096, "float32")
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    scored[0][0][:] = 0.0  # the caller's own array
    assert scored[0][0].base is None


@pytest.mark.parametrize("name", ["Qwen2", "GPT2"])
def test_dropout_is_off_whatever_the_model_says(name, make_items, tmp_path):
    """Policy and reference would differ by it, at every step."""
    rates = {"attention_dropout": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, "vocab_size": 270}, **rates)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    model = folders.load_model(tmp_path, CPU)
    assert torch.equal(policy(model, make_items(4), "float32"), policy(model, make_items(4), "float32"))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_log_probability_that_is_not_finite_names_model_and_prompt(model, scratch_model, number):
    """One token's embedding is damaged; a prompt that has it stops the scoring, not the training three stages later."""
    with torch.no_grad():
        model.get_input_embeddings().weight[200] = number
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    items = [Item(np.array([token, 1]), (np.array([2]),)) for token in (5, 200, 6)]
    with pytest.raises(StudyError) as error:
        score_items(model, items, 1, "float32", ids=["t-0", "t-1", "t-2"])
    found = "t-1: expected finite log-probabilities, found nan"
    remedy = "look for NaN among the model's weights, or for an overflow in float32 (logprobs.autocast)"
    assert str(error.value) == f"{scratch_model}: {found}; {remedy}"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_is_loaded_in_bfloat16_scores_in_float32(scratch_model, make_items, precision):
    """As a teacher too large for float32: products in its own dtype, or in autocast's; what follows them in float32."""
    rounded, exact = (folders.load_model(scratch_model, CPU, dtype) for dtype in ("bfloat16", "float32"))
    assert {weight.dtype for weight in rounded.parameters()} == {torch.bfloat16}
    items = make_items(6)
    found, expected = (
        np.concatenate([answer for item in score_items(model, items, 4096, which) for answer in item])
        for model, which in ((rounded, precision), (exact, "float32"))
    )
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.1
    assert (found != torch.tensor(found).bfloat16().float().numpy()).mean() > 0.5


def test_bfloat16_weights_are_loaded_without_a_copy_in_float32(scratch_model, tmp_path, monkeypatch):
    """A model of 32 billion parameters would need 131 GB for it."""
    model = folders.load_model(scratch_model, CPU, "bfloat16")
    model.save_pretrained(tmp_path)
    for file in scratch_model.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made, to = [], torch.Tensor.to

    def watched(tensor, *arguments, **options):
        result = to(tensor, *arguments, **options)
        if result.device.type != "meta":
            made.append((result.numel(), result.dtype))
        return result

    monkeypatch.setattr(torch.Tensor, "to", watched)
    loaded = folders.load_model(tmp_path, CPU, "bfloat16")
    large = min(weight.numel() for weight in loaded.parameters() if weight.dim() > 1)
    assert not [size for size, dtype in made if size >= large and dtype == torch.float32]
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), loaded.parameters(), strict=True))
