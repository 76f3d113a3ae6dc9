"""What holds on the CPU holds on CUDA. Skipped where there is none."""

import copy
import json
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from wspin.config.stages import Generate
from wspin.engine import attention, head
from wspin.engine.layout import PackedLayout
from wspin.engine.logprobs import autocast, token_logprobs
from wspin.engine.packing import pack
from wspin.generate.transformers_engine import generate
from wspin.logprobs.score import score_items
from wspin.train import trainer
from wspin.train.run import train

pytestmark = pytest.mark.gpu
SEED = (42, 0)


class Killed(Exception):
    pass


@pytest.fixture
def cuda(model):
    """The model on the first GPU, with matrix products in full float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield copy.deepcopy(model).to("cuda")
    torch.set_float32_matmul_precision(before)


def flat(scored):
    return torch.from_numpy(np.concatenate([answer for item in scored for answer in item]))


def with_reference(model, items, token_budget, precision):
    scores = score_items(model, items, token_budget, precision)
    return [replace(item, reference=tuple(own)) for item, own in zip(items, scores, strict=True)]


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def curve(state):
    return [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]


def test_log_probabilities_are_those_of_the_cpu(model, cuda, make_items):
    items = make_items(12, answers=3)
    expected, found = (flat(score_items(one, items, 4096, "float32")) for one in (model, cuda))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [None, 7])
def test_flex_attention_is_the_bucketed_one(window):
    """Values and gradients, with grouped queries and over several blocks of 128."""
    rng = np.random.default_rng(0)
    layout = PackedLayout.of([tuple(rng.integers(1, 120, 4)) for _ in range(6)]).to(torch.device("cuda"))
    torch.manual_seed(0)
    size = len(layout.positions)
    states = [torch.randn(1, heads, size, 32, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
    module = types.SimpleNamespace(training=True)
    weights, found = torch.randn(1, size, 4, 32, device="cuda"), []
    for forward in (attention._bucketed_attention, attention._flex_attention):
        out, _ = forward(module, *states, None, 32**-0.5, layout=layout, sliding_window=window)
        found.append((out, *torch.autograd.grad((out * weights).sum(), states)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_flex_attention_is_what_a_gpu_gets(cuda, context):
    attention._flex_compiles.cache_clear()
    with context(), attention.shared_prefix(cuda):
        assert cuda.config._attn_implementation == attention.FLEX


def test_logits_of_a_large_vocabulary_are_never_whole():
    """4096 rows of 151,936 logits would be 2.5 GB in float32; a chunk and the head's gradient are less."""
    states, weight = (torch.randn(n, 64, device="cuda", requires_grad=True) for n in (4096, 151_936))
    targets = torch.randint(151_936, (4096,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    head.ChunkedTokenLogprobs.apply(states, weight, None, targets, torch.float32, False).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 1.8e9


def test_gradients_are_those_of_the_cpu(model, cuda, make_items):
    batch, gradients = pack(make_items(8)), []
    for one in (model, cuda):
        token_logprobs(one, batch.to(one.device)).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten().cpu() for weight in one.parameters()]))
    assert (gradients[1] - gradients[0]).norm() < 1e-4 * gradients[0].norm()


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_scoring_and_training_agree_on_one_batch(cuda, make_items, precision, bound):
    items = make_items(1)
    reference = flat(score_items(cuda, items, 4096, precision))
    cuda.train()
    with autocast(cuda.device, precision):
        logprobs = token_logprobs(cuda, pack(items).to(cuda.device))
    torch.testing.assert_close(logprobs.detach().cpu(), reference, rtol=0.0, atol=bound)


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 1.0)])
def test_the_first_margin_is_small(cuda, make_items, train_settings, tmp_path, precision, bound):
    """Scored in other batches than those it is trained in."""
    items = with_reference(cuda, make_items(32), 4096, precision)
    train(cuda, items, train_settings(global_batch=8, token_budget=60), precision, SEED, tmp_path)
    assert curve(tmp_path)[0]["margin/largest"] <= bound


def test_greedy_answers_do_not_depend_on_the_batch(cuda):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 270, rng.integers(1, 10)).tolist() for _ in range(20)]
    settings = {"engine": "transformers", "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 12}
    first, *others = (
        generate(cuda, prompts, lambda i: np.zeros(12), Generate(batch_size=size, **settings), 0)[0]
        for size in (1, 3, 8)
    )
    assert others == [first, first]


def test_sampled_answers_are_made_again(cuda):
    settings = Generate(engine="transformers", temperature=1.0, top_p=0.9, max_new_tokens=12, batch_size=8)
    numbers = np.random.default_rng(0).random((10, 12))
    first, again = (generate(cuda, [[5, 6]] * 10, numbers.__getitem__, settings, 0)[0] for _ in range(2))
    assert first == again
    assert len({tuple(answer.ids) for answer in first}) > 5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_resumes(monkeypatch, capsys, cuda, make_items, train_settings, tmp_path, precision):
    """Five steps, interrupted in the fourth, after a state was saved at the second."""
    items = with_reference(cuda, make_items(20), 4096, precision)
    models, settings = [copy.deepcopy(cuda) for _ in range(3)], train_settings(global_batch=4)
    states = [tmp_path / name for name in ("whole", "parts")]
    for state in states:
        state.mkdir()
    train(models[0], items, settings, precision, SEED, states[0])
    step = trainer.PlannedTrainer.training_step

    def dies(self, *arguments):
        if self.state.global_step == 3:
            raise Killed
        return step(self, *arguments)

    monkeypatch.setattr(trainer.PlannedTrainer, "training_step", dies)
    with pytest.raises(Killed):
        train(models[1], items, settings, precision, SEED, states[1])
    monkeypatch.undo()
    capsys.readouterr()
    train(models[2], items, settings, precision, SEED, states[1])
    assert capsys.readouterr().out.startswith("train: 2 of 5 steps, resumed")
    whole, parts = map(curve, states)
    assert [line["step"] for line in parts] == [line["step"] for line in whole] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], rel=1e-3)
    start, one, other = map(weights, (cuda, models[0], models[2]))
    assert (one - other).norm() < 0.01 * (one - start).norm()
