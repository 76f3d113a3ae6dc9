"""Every loss of pairs as the trainer computes it, beside its formula over whole forward passes in float64."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus
from trainings import UNBOUND, assert_agree, curve, plain_gradient, planned, shifted, trained, with_weights

from wspin.errors import StudyError
from wspin.train.trainer import StepTotals

BETA, ALPHA = 0.5, 0.4
NO_ALPHA = {"alpha": None}


def logistic(rewards):
    return softplus(-BETA * (rewards[0] - rewards[1]))


FORMULAS = {  # loss: of rewards M (chosen, rejected) and KL(reference || policy) of both
    "dpo": lambda m, kl: logistic(m),
    "spin": lambda m, kl: logistic(m),
    "hinge": lambda m, kl: (1 - BETA * (m[0] - m[1])).clamp(min=0),
    "ipo": lambda m, kl: (m[0] - m[1] - 1 / (2 * BETA)) ** 2,
    "tdpo1": lambda m, kl: softplus(-BETA * (m[0] - m[1] - (kl[1] - kl[0]))),
    "tdpo2": lambda m, kl: softplus(-BETA * (m[0] - m[1] - ALPHA * (kl[1] - kl[0].detach()))),
}
KEYS = {
    "dpo": NO_ALPHA,
    "spin": NO_ALPHA,
    "hinge": {**NO_ALPHA, "label_smoothing": None},
    "ipo": {**NO_ALPHA, "label_smoothing": None},
    "tdpo1": NO_ALPHA,
    "tdpo2": {"alpha": ALPHA},
}
ALPHAS = dict.fromkeys(("sft", "dpo", "spin", "hinge", "ipo", "tdpo1")) | {"tdpo2": ALPHA, "wspin": ALPHA}
KEPT = ("tdpo1", "tdpo2")  # losses that keep a reference model
AT_REFERENCE = {"hinge": 1.0, "ipo": 1 / (4 * BETA**2)} | dict.fromkeys(("dpo", "spin", *KEPT), np.log(2.0))


def moved(model, by=0.05):
    """A policy that has left the reference."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=noise))
    return model


def distributions(model, item, side):
    """Log-probabilities (N, V) of the next token at an answer's N tokens, and its ids."""
    ids = torch.from_numpy(np.concatenate([item.prompt, item.responses[side]]).astype(np.int64))
    return model(input_ids=ids[None]).logits[0, len(item.prompt) - 1 : -1].log_softmax(-1), ids[len(item.prompt) :]


def plain_loss(loss, policy, reference, item, reference_free=False):
    rewards, kls = [], []
    for side, stored in enumerate(item.reference):
        (own, ids), (other, _) = distributions(policy, item, side), distributions(reference, item, side)
        delta = own.gather(1, ids[:, None])[:, 0] - (0 if reference_free else torch.from_numpy(stored).double())
        rewards.append((delta * torch.from_numpy(item.weights[side]) if item.weights else delta).sum())
        kls.append((other.detach().exp() * (other.detach() - own)).sum())
    return FORMULAS[loss](rewards, kls)


def step_of(fresh, items, settings, state):
    """(loss, gradient) of one step of a policy that has left its reference, and the mean of the plain losses' too."""
    policy = moved(fresh())
    exact = copy.deepcopy(policy).double()
    unstarted, steps = planned(fresh(), items, settings, state)  # a reference that is kept is a copy of this model
    loss = unstarted.training_step(policy, steps[0]).item()
    gradient = torch.cat([weight.grad.flatten() for weight in policy.parameters()])
    return (loss, gradient), exact, [items[i] for i in steps[0]], unstarted


@pytest.mark.parametrize("loss", FORMULAS)
@pytest.mark.parametrize("token_budget", [1, 4096])
def test_a_step_is_the_formula(fresh, pairs, train_settings, tmp_path, loss, token_budget):
    settings = train_settings(loss=loss, token_budget=token_budget, margin_bound=UNBOUND, **KEYS[loss])
    found, exact, items, unstarted = step_of(fresh, shifted(pairs), settings, tmp_path)
    reference = fresh().double()
    total = sum(plain_loss(loss, exact, reference, item) for item in items)
    assert_agree(found, plain_gradient(exact, total / len(items)), 1.0)
    assert (unstarted.reference_model is not None) == (loss in KEPT)


@pytest.mark.parametrize("loss", ["dpo", "spin", "hinge", "ipo", "wspin"])
def test_a_reference_free_step_leaves_the_reference_out(fresh, pairs, train_settings, tmp_path, loss):
    """Whatever is stored, and without the bound of the first margin."""
    keys = {"alpha": 0.0} if loss == "wspin" else KEYS[loss]
    settings = train_settings(loss=loss, reference_free=True, **keys)
    items = with_weights(shifted(pairs)) if loss == "wspin" else shifted(pairs)
    found, exact, chosen, _ = step_of(fresh, items, settings, tmp_path)
    plain = [plain_loss("dpo" if loss == "wspin" else loss, exact, exact, item, True) for item in chosen]
    assert_agree(found, plain_gradient(exact, sum(plain) / len(plain)), 1.0)


@pytest.mark.parametrize("loss", FORMULAS)
def test_where_the_policy_is_the_reference_the_loss_is_a_constant(fresh, pairs, train_settings, tmp_path, loss):
    settings = train_settings(loss=loss, **KEYS[loss])
    trained(fresh(), pairs, settings, tmp_path / "run")
    assert curve(tmp_path / "run")[0]["loss"] == pytest.approx(AT_REFERENCE[loss], rel=1e-4)


@pytest.mark.parametrize("loss", ["hinge", "tdpo1"])
def test_a_stored_reference_that_is_not_the_start_stops_a_training(fresh, pairs, train_settings, tmp_path, loss):
    with pytest.raises(StudyError, match="margin"):
        trained(fresh(), shifted(pairs), train_settings(loss=loss, **KEYS[loss]), tmp_path / "run")


@pytest.mark.parametrize(("loss", "factor"), [("tdpo1", 1.0), ("tdpo2", ALPHA)])
def test_rewards_hold_the_divergence(fresh, pairs, train_settings, tmp_path, loss, factor):
    """Of one pair: its margin is what the loss is a function of."""
    settings = train_settings(loss=loss, margin_bound=UNBOUND, global_batch=1, **KEYS[loss])
    (value, _), _, _, unstarted = step_of(fresh, shifted(pairs)[:1], settings, tmp_path)
    metrics = unstarted.step_metrics
    assert value == pytest.approx(np.log1p(np.exp(-metrics["rewards/margin"])), rel=1e-5)
    term = BETA * factor * (metrics["kl/chosen"] - metrics["kl/rejected"])
    assert metrics["rewards/margin"] == pytest.approx(metrics["unweighted/margin"] + term, rel=1e-4)
    assert metrics["kl/chosen"] > 1e-3


@pytest.mark.parametrize(("loss", "alpha"), [*ALPHAS.items(), ("wspin", 0.0)])
def test_a_frozen_reference_is_kept_exactly_where_a_divergence_is_read(
    fresh, pairs, train_settings, tmp_path, loss, alpha
):
    unstarted, _ = planned(fresh(), pairs, train_settings(loss=loss, alpha=alpha), tmp_path)
    reference = unstarted.reference_model
    assert (reference is not None) == (loss in KEPT or (loss == "wspin" and alpha > 0))
    assert reference is None or not any(weight.requires_grad for weight in reference.parameters())


@pytest.mark.parametrize("loss", ["tdpo1", "wspin"])
def test_the_totals_of_two_processes_are_those_of_one(fresh, pairs, train_settings, tmp_path, loss):
    """Metrics of the whole step, divergences too, from the sums that each process gathers."""
    keys = {"alpha": ALPHA} if loss == "wspin" else KEYS[loss]
    settings = train_settings(loss=loss, margin_bound=UNBOUND, global_batch=10, **keys)
    policy = moved(fresh())
    unstarted, (step,) = planned(fresh(), with_weights(shifted(pairs)), settings, tmp_path)
    whole, *halves = (unstarted._run_passes(policy, part, 0.1) for part in (step, step[:3], step[3:]))
    totals = StepTotals.over_ranks(halves)
    assert totals.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)
    found, expected = (unstarted._preference_metrics(each.answer_sums) for each in (totals, whole))
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected["kl/rejected"] > 1e-3


def test_the_work_of_a_kept_reference_is_counted(fresh, pairs, train_settings, tmp_path):
    """Needed: a fourth pass beside the three of a forward and a backward one. Computed: logits too."""
    work = {}
    for loss in ("dpo", "tdpo1"):
        unstarted, steps = planned(fresh(), pairs, train_settings(loss=loss, **KEYS[loss]), tmp_path)
        unstarted.training_step(fresh(), steps[0])
        work[loss] = unstarted.step_metrics
    assert work["tdpo1"]["work/needed"] * 3 == work["dpo"]["work/needed"] * 4
    assert work["tdpo1"]["work/computed"] * 3 > work["dpo"]["work/computed"] * 4
