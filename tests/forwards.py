"""Small random models, and the log-probabilities and gradients of their plain forward passes."""

import numpy as np
import pytest
import torch
import transformers

from wspin.engine.logprobs import autocast, token_logprobs
from wspin.engine.packing import Item, pack

PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def names(families):
    return [",".join([name, *(f"{key}={value}" for key, value in more.items())]) for name, more, *_ in families]


def make(name, more):
    """A random model of a family, its weights large enough that attention decides what it says."""
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, **more})
    model = transformers.AutoModelForCausalLM.from_config(settings).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6.0)
    return model


def mixed(seed=0):
    """Prompts and answers of many lengths: answers that are empty, of one token, alone, and three to a prompt."""
    rng = np.random.default_rng(seed)
    lengths = [(6, 5, 8, 3), (2, 1), (9, 0, 7), (4, 1, 0, 1), (3, 4, 4), (7, 12), (1, 2, 6, 1), (5, 0)]
    ids = ([rng.integers(1, 50, n) for n in one] for one in lengths)
    return [Item(prompt, tuple(responses)) for prompt, *responses in ids]


def plain(model, items):
    """All answers' tokens, one answer and one whole forward pass at a time; the log-softmax in float64."""
    found = []
    for item in items:
        for response in item.responses:
            ids = torch.from_numpy(np.concatenate([item.prompt, response]).astype(np.int64))
            logits = model(input_ids=ids[None], use_cache=False).logits[0, len(item.prompt) - 1 : -1].double()
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
        return token_logprobs(model, pack(items))


def gradient(model, loss):
    """By name, zeros where a weight has no part in it."""
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in model.named_parameters()
    }


def close_gradients(found, expected, rel=1e-5):
    """All together, and each weight's own as far as it is more than rounding of the whole."""
    whole = torch.cat([one.flatten() for one in expected.values()]).norm()
    off = {name: (found[name] - one).norm() for name, one in expected.items()}
    assert torch.stack(list(off.values())).norm() < rel * whole
    assert [name for name, one in expected.items() if off[name] > rel * one.norm() + 0.01 * rel * whole] == []
