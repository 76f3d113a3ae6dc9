"""Prompts with a common beginning, limits of their own, and the precision of the cache; see `tests/generate` too."""

import numpy as np
import pytest
import torch
from families import FAMILIES, random_model

from wspin.engine.cache import PreallocatedLayer
from wspin.engine.decoding import PASS_TOKENS, Request, Work, decode
from wspin.engine.logprobs import autocast
from wspin.engine.sampling import Sampling

TOKENS = 12
EOS = 7


@pytest.fixture(params=FAMILIES, ids=[f"{kind}{len(own)}" for kind, own in FAMILIES])
def model(request):
    return random_model(*request.param)


@pytest.fixture(scope="module")
def prompts():
    """Ends of 1 to 9 tokens behind one beginning of 12."""
    rng = np.random.default_rng(0)
    beginning = rng.integers(1, 270, 12).tolist()
    return [beginning + rng.integers(1, 270, rng.integers(1, 10)).tolist() for _ in range(12)]


def answers(model, prompts, slots=4, beginning=(), limits=None, sampling=None):
    """(answers in the order of the prompts, work)"""
    ended = {}
    limits = limits or [TOKENS] * len(prompts)
    requests = [Request(ids, limit, lambda ids: ids[-1] == EOS) for ids, limit in zip(prompts, limits, strict=True)]
    work = decode(model, requests, sampling or Sampling(), slots, ended.setdefault, beginning)
    return [ended[i] for i in range(len(prompts))], work


@pytest.mark.parametrize("slots", [3, 8])
def test_a_beginning_that_is_read_once_changes_no_answer(model, prompts, slots):
    sampling = Sampling(0.8, 0.9, lambda i: np.random.default_rng(i).random(TOKENS))
    for one in (None, sampling):
        expected, separate = answers(model, prompts, slots, sampling=one)
        found, work = answers(model, prompts, slots, prompts[0][:12], sampling=one)
        assert found == expected
        assert len({tuple(ids) for ids in found}) > 5
        assert work.slot_steps == separate.slot_steps == work.useful_slot_steps
        assert work.prompt_tokens == sum(map(len, prompts))
        assert work.computed_prompt_tokens == separate.computed_prompt_tokens - 12 * (len(prompts) - 1)


def test_ends_may_be_longer_than_the_beginning(prompts):
    """Prompts shorter than the longest end are padded, the others read a part of the beginning again."""
    model = random_model("Qwen2", {})
    for beginning in ([], prompts[0][:1], prompts[0][:5]):
        texts = [beginning + ids[12:] for ids in prompts]
        assert answers(model, texts, 8, beginning)[0] == answers(model, texts, 1)[0]


def test_work_of_a_common_beginning():
    model = random_model("Qwen2", {})
    _, work = answers(model, [[1, 2, 3, 4], [1, 2, 3, 5, 6]], 2, [1, 2, 3], limits=[1, 1])
    assert work == Work(slot_steps=0, useful_slot_steps=0, prompt_tokens=9, computed_prompt_tokens=3 + 2 * 2)


def test_a_pass_over_prompts_is_bounded(model, prompts, monkeypatch):
    """A longer prompt is read alone; the answers stay, and less is padded."""
    expected, whole = answers(model, prompts, 12)
    monkeypatch.setitem(PASS_TOKENS, "cpu", 32)
    shapes = []
    model.register_forward_pre_hook(lambda _, __, named: shapes.append(named["input_ids"].shape), with_kwargs=True)
    found, work = answers(model, [*prompts, prompts[0] * 3], 13)
    passes = [(count, new) for count, new in shapes if new > 1]
    assert found[:-1] == expected
    assert sum(count for count, _ in passes) == 13
    assert passes[0] == (1, 3 * len(prompts[0]))
    assert all(count * new <= 32 for count, new in passes[1:])
    assert work.computed_prompt_tokens < whole.computed_prompt_tokens + 3 * len(prompts[0])


def test_every_answer_has_a_limit_of_its_own(prompts):
    model, limits = random_model("Qwen2", {}), [1 + i for i in range(12)]
    whole, _ = answers(model, prompts)
    for slots in (1, 3, 8):
        found, work = answers(model, prompts, slots, limits=limits)
        assert found == [ids[:limit] for ids, limit in zip(whole, limits, strict=True)]
        assert work.useful == 1.0


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_cache_has_the_precision_of_the_products(model, prompts, monkeypatch, precision, dtype):
    """As autocast casts the states at every step: the same answers as with transformers' own cache."""
    dtypes = set()
    update = PreallocatedLayer.update

    def watched(self, *states, **named):
        keys, values = update(self, *states, **named)
        dtypes.update((keys.dtype, values.dtype))
        return keys, values

    monkeypatch.setattr(PreallocatedLayer, "update", watched)
    with autocast(model.device, precision):
        found, _ = answers(model, prompts[:4], 1)
        options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": EOS, "pad_token_id": 0}
        for prompt, ids in zip(prompts[:4], found, strict=True):
            whole = model.generate(torch.tensor([prompt]), **options)[0].tolist()
            assert ids == whole[len(prompt) :]
    assert dtypes == {dtype}
