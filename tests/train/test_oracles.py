"""The losses beside oracles, in float64: their formulas token by token from probabilities, TRL, and torchtune."""

import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from trainings import UNBOUND, planned, scored, weights

from wspin.config.losses import LOSS_INPUTS, LOSSES, divergence_read
from wspin.train import losses

LOSSES_OF_PAIRS = LOSSES[1:]
VALUES = {"beta": 0.3, "label_smoothing": 0.1, "alpha": 0.5}
PAIRS, TOKENS, VOCABULARY = 6, 7, 11


@pytest.fixture
def logits():
    """Of policy and reference, of both answers of every pair: (B, 2, n, V) each; with token ids and weights."""
    draw = torch.Generator().manual_seed(7)
    shape = (PAIRS, 2, TOKENS)
    policy, reference = (2.0 * torch.randn(*shape, VOCABULARY, dtype=torch.float64, generator=draw) for _ in range(2))
    ids = torch.randint(0, VOCABULARY, shape, generator=draw)
    weights = torch.rand(shape, dtype=torch.float64, generator=draw) + 0.5
    return SimpleNamespace(policy=policy.requires_grad_(), reference=reference, ids=ids, weights=weights)


def of_library(loss, logits, values):
    """Loss of every pair (B,), by the functions that the trainer calls."""

    def logprobs(part):
        return part.log_softmax(-1).gather(-1, logits.ids[..., None])[..., 0]

    inputs, counts = LOSS_INPUTS[loss], [TOKENS] * 2 * PAIRS
    weights = logits.weights if inputs.weights else torch.ones_like(logits.weights)
    delta = logprobs(logits.policy) - logprobs(logits.reference)
    sums = losses.answer_sums((weights * delta).flatten(), counts)
    options = {key: values[key] for key in inputs.keys}
    if divergence := losses.DIVERGENCES.get(divergence_read(loss, values["alpha"])):
        kl = losses.answer_sums((weights * divergence(logits.policy, logits.reference)).flatten(), counts)
        options |= {"chosen_kl": kl[0::2], "rejected_kl": kl[1::2]}
    return losses.PREFERENCE[loss](sums[0::2] - sums[1::2], **options)


def by_hand(loss, logits, values):
    """Loss of every pair (B,), token by token, from probabilities, which float64 holds for these logits."""
    p, q = (part.exp() / part.exp().sum(-1, keepdim=True) for part in (logits.policy, logits.reference))
    pairs = []
    for pair in range(PAIRS):
        sums = [side_by_hand(loss, logits, p, q, (pair, side)) for side in (0, 1)]
        (chosen, chosen_kl), (rejected, rejected_kl) = sums
        pairs.append(pair_by_hand(loss, chosen - rejected, chosen_kl, rejected_kl, **values))
    return torch.stack(pairs)


def side_by_hand(loss, logits, p, q, place):
    """(M, KL) of an answer, both with the token weights where the loss has them."""
    total, kl = 0.0, 0.0
    for token in range(TOKENS):
        own, other, chosen = p[place][token], q[place][token], logits.ids[place][token]
        weight = logits.weights[place][token].item() if loss == "wspin" else 1.0
        first, second = (own, other) if loss == "wspin" else (other, own)  # the direction of the KL
        total = total + weight * torch.log(own[chosen] / other[chosen])
        kl = kl + weight * sum(a * torch.log(a / b) for a, b in zip(first, second, strict=True))
    return total, kl


def pair_by_hand(loss, h, chosen_kl, rejected_kl, beta, label_smoothing, alpha):
    if loss == "hinge":
        return torch.clamp(1 - beta * h, min=0.0)
    if loss == "ipo":
        return torch.square(h - 1 / (2 * beta))
    if loss == "wspin":
        h = h - alpha * (chosen_kl - rejected_kl)
    elif loss == "tdpo1":
        h = h - (rejected_kl - chosen_kl)
    elif loss == "tdpo2":
        h = h - alpha * (rejected_kl - chosen_kl.detach())
    right, wrong = torch.sigmoid(beta * h), torch.sigmoid(-beta * h)
    return -(1 - label_smoothing) * torch.log(right) - label_smoothing * torch.log(wrong)


def assert_same(found, expected, leaf):
    """Values, and gradients of their means, within 1e-6 of one another."""
    gradients = [torch.autograd.grad(value.mean(), leaf)[0] for value in (found, expected)]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)
    assert gradients[0].norm() > 1e-3


@pytest.mark.parametrize(("loss", "alpha"), [*((loss, VALUES["alpha"]) for loss in LOSSES_OF_PAIRS), ("wspin", 0.0)])
def test_every_loss_is_its_formula_from_probabilities(loss, alpha, logits):
    values = VALUES | {"alpha": alpha}
    assert_same(of_library(loss, logits, values), by_hand(loss, logits, values), logits.policy)


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize("loss", LOSSES_OF_PAIRS)
def test_where_the_policy_is_the_reference_every_loss_has_its_value(loss, beta, logits):
    logits.policy = logits.reference.clone().requires_grad_()
    expected = {"hinge": 1.0, "ipo": 1 / (4 * beta**2)}.get(loss, math.log(2))
    found = of_library(loss, logits, VALUES | {"beta": beta})
    assert found.tolist() == pytest.approx([expected] * PAIRS, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES_OF_PAIRS)
def test_gradients_are_those_of_finite_differences(loss):
    """By margin and KL; the chosen KL of tdpo2 has none, so its slope is tested below."""
    draw = torch.Generator().manual_seed(1)
    margin, chosen, rejected = (torch.randn(5, dtype=torch.float64, generator=draw).requires_grad_() for _ in range(3))
    options = {key: VALUES[key] for key in LOSS_INPUTS[loss].keys}

    def of_margin(margin, *kls):
        return losses.PREFERENCE[loss](margin, **options, **dict(zip(("chosen_kl", "rejected_kl"), kls, strict=False)))

    if loss == "tdpo2":
        assert torch.autograd.gradcheck(lambda h, kl: of_margin(h, chosen.detach(), kl), (margin, rejected))
    else:
        kls = (chosen, rejected) if LOSS_INPUTS[loss].divergence else ()
        assert torch.autograd.gradcheck(of_margin, (margin, *kls))


@pytest.mark.parametrize(("loss", "slope"), [("tdpo1", 1.0), ("tdpo2", 0.0)])
def test_the_chosen_kl_of_tdpo2_passes_no_gradient(loss, slope):
    kl = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    options = {key: VALUES[key] for key in LOSS_INPUTS[loss].keys} | {"label_smoothing": 0.0}
    rejected = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    margin = torch.tensor([2.0], dtype=torch.float64)
    losses.PREFERENCE[loss](margin, **options, chosen_kl=kl, rejected_kl=rejected).sum().backward()
    h = 2.0 - options.get("alpha", 1.0) * 0.2
    expected = 0.3 / (1.0 + math.exp(0.3 * h))
    assert (0.0 if kl.grad is None else kl.grad.item()) == pytest.approx(-slope * expected, rel=1e-12)
    assert rejected.grad.item() == pytest.approx(options.get("alpha", 1.0) * expected, rel=1e-12)


# Other libraries


@pytest.fixture
def answers():
    """Log-probabilities of the policy's and the reference's tokens, all chosen answers, then the rejected: (2 B, n)."""
    draw = torch.Generator().manual_seed(11)
    policy, reference = (-3 * torch.rand(2 * PAIRS, TOKENS, dtype=torch.float64, generator=draw) for _ in range(2))
    return policy.requires_grad_(), reference


def margins(answers):
    chosen, rejected = (answers[0] - answers[1]).sum(1).chunk(2)
    return chosen - rejected


def trl_loss(kind, answers, beta, eps=0.0):
    """TRL's own loss, a mean over pairs, of log-probabilities in the place of a model's output."""
    missing = "trl comes with `make bench`"
    library = pytest.importorskip("trl.trainer.dpo_trainer", reason=missing, exc_type=ImportError)
    policy, reference = answers
    ids = torch.zeros(len(policy), TOKENS + 1, dtype=torch.int64)
    mask = torch.ones_like(ids).index_fill(1, torch.tensor([0]), 0)
    sums = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference.sum(1).chunk(2), strict=True))
    inputs = {"input_ids": ids, "attention_mask": ids + 1, "completion_mask": mask, **sums}
    metrics = dict.fromkeys(("entropy", "mean_logits"), torch.zeros_like(reference))
    outputs = SimpleNamespace(log_probs=policy, is_top1=torch.ones_like(reference, dtype=torch.bool), **metrics)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=torch.clone, gather_for_metrics=torch.clone),
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        label_smoothing=eps,
        beta=beta,
        aux_loss_enabled=False,
        use_weighting=False,
        ld_alpha=None,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    return library.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize(
    ("loss", "kind"), [("dpo", "sigmoid"), ("spin", "sigmoid"), ("wspin", "sigmoid"), ("hinge", "hinge")]
)
def test_losses_are_those_of_trl(loss, kind, beta, answers):
    """TRL's ipo divides by lengths: it is another loss."""
    assert_same(losses.PREFERENCE[loss](margins(answers), beta).mean(), trl_loss(kind, answers, beta), answers[0])


@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_label_smoothing_beside_the_robust_loss_of_trl(eps, answers):
    """With L(h) = -log sigma(beta h) it is ((1 - eps) L(h) - eps L(-h)) / (1 - 2 eps); ours adds eps L(-h) instead."""
    h = margins(answers)
    robust = (losses.dpo(h, 0.5, eps) + 2 * eps * logsigmoid(-0.5 * h)) / (1 - 2 * eps)
    assert_same(robust.mean(), trl_loss("robust", answers, 0.5, eps), answers[0])


@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_losses_are_those_of_torchtune(eps, answers):
    missing = "torchtune is in no environment of this project"
    library = pytest.importorskip("torchtune.rlhf.loss", reason=missing, exc_type=ImportError)
    sums = [half for part in answers for half in part.sum(1).chunk(2)]
    assert_same(losses.dpo(margins(answers), 0.2, eps), library.DPOLoss(0.2, eps)(*sums)[0], answers[0])
    assert_same(losses.hinge(margins(answers), 0.2), library.RSOLoss(0.2)(*sums)[0], answers[0])


@pytest.mark.parametrize(
    ("loss", "kind", "weight"), [("dpo", "sigmoid", 1.0), ("hinge", "hinge", 1.0), ("wspin", "sigmoid", 0.5)]
)
@pytest.mark.parametrize("steps", [1, 2])
def test_steps_are_those_of_trl(
    monkeypatch, root, fresh, model, make_items, train_settings, tmp_path, loss, kind, weight, steps
):
    """Constant weights are a factor of beta. By SGD, unclipped: steps are gradients. At the second h is not zero."""
    monkeypatch.syspath_prepend(root)
    pytest.importorskip("trl", reason="trl comes with `make bench`", exc_type=ImportError)
    from bench.peers import trl

    items = scored(model, make_items(4 * steps))
    items = [replace(item, weights=tuple(np.full_like(part, weight) for part in item.reference)) for item in items]
    keys = {"hinge": {"label_smoothing": None}, "wspin": {"alpha": 0.0}}.get(loss, {})
    settings = train_settings(loss=loss, margin_bound=UNBOUND, max_grad_norm=1e6, **keys)
    own, other = fresh(), fresh()
    ours, plan = planned(own, items, settings, tmp_path)
    ours.optimizer_cls_and_kwargs = optimizer = torch.optim.SGD, {"lr": 0.01}
    ordered = [items[i] for step in plan for i in step]
    theirs = trl.trainer(other, None, ordered, ours.args, 2, 2, settings.beta * weight, optimizer, [], kind=kind)
    ours.train()
    theirs.train()
    start, found, expected = map(weights, (model, own, other))
    assert len(plan) == steps
    assert (found - start).norm() > 1e-3
    assert (found - expected).norm() < 1e-4 * (expected - start).norm()
