"""Weights that are cast once give the bits that autocast gives."""

import weakref
from unittest import mock

import numpy as np
import pytest
import torch
from families import FAMILIES, random_model
from torch import nn

from wspin.engine import precision
from wspin.engine.logprobs import autocast, continuation_logprobs
from wspin.engine.precision import cast_linear_layers
from wspin.engine.prefixes import Continuation, pack_row, plan_rows

IDS = torch.arange(1, 61).view(2, 30)
MORE = [("Qwen3", {}), ("Gemma2", {}), ("Phi3", {}), ("OPT", {"word_embed_proj_dim": 32, "ffn_dim": 64})]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MORE += [("Qwen2", {"tie_word_embeddings": True}), ("Qwen3Moe", EXPERTS)]


@pytest.mark.parametrize(("kind", "own"), FAMILIES + MORE)
def test_the_logits_are_those_of_autocast_bit_for_bit(kind, own):
    """With Conv1D (GPT-2), biases, experts, heads that share the embedding; with past states and without."""
    model = random_model(kind, own)
    with torch.inference_mode(), autocast(model.device, "bfloat16"):
        expected = run(model)
        cast_linear_layers(model, torch.bfloat16)
        for before, after in zip(expected, run(model), strict=True):
            assert before.dtype == after.dtype
            assert torch.equal(before, after)


def run(model):
    whole = model(input_ids=IDS)
    step = model(input_ids=IDS[:, :1], past_key_values=whole.past_key_values)
    return whole.logits, step.logits


@pytest.mark.parametrize("own", [{"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
def test_linear_layers_alone_are_cast(own):
    model = random_model("Qwen2", own)
    before = [weight.clone() for weight in model.get_input_embeddings().parameters()]
    cast_linear_layers(model, torch.bfloat16)
    for module in model.modules():
        expected = torch.bfloat16 if isinstance(module, nn.Linear) else torch.float32
        assert all(weight.dtype == expected for weight in module.parameters(recurse=False))
    assert torch.equal(*before, model.get_input_embeddings().weight)
    assert model.dtype == torch.float32


def test_weights_are_freed_one_by_one():
    """Never do all of them lie in memory in both precisions."""
    model = random_model("Qwen2", {"tie_word_embeddings": True})
    weights = [weakref.ref(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)]
    alive, plain = [], nn.Parameter

    def parameter(*args, **more):
        alive.append(sum(weight() is not None for weight in weights))
        return plain(*args, **more)

    with mock.patch.object(precision.nn, "Parameter", parameter):
        cast_linear_layers(model, torch.bfloat16)
    assert alive[-1] <= 2  # the head, which is the embedding, and the layer before it


@pytest.mark.parametrize("kind", ["Qwen2", "Llama", "Mistral", "GPTNeoX"])
def test_packed_log_probabilities_are_those_of_autocast_bit_for_bit(kind):
    model = random_model(kind, {})
    texts = [Continuation(np.array([1, 2, 3, 4, *rest], dtype=np.int32), 2) for rest in ([5, 6], [5, 7, 8], [9])]
    (row,) = plan_rows(texts, 100, 1)
    with autocast(model.device, "bfloat16"):
        expected = continuation_logprobs(model, pack_row(texts, row))
        cast_linear_layers(model, torch.bfloat16)
        for before, after in zip(expected, continuation_logprobs(model, pack_row(texts, row)), strict=True):
            assert torch.equal(before, after)
