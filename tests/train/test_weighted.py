"""Token weights, the KL term, and pairs of one prompt that share a forward pass."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from trainings import (
    UNBOUND,
    assert_agree,
    curve,
    plain_gradient,
    planned,
    scored,
    shifted,
    trained,
    with_weights,
)

from wspin.errors import StudyError
from wspin.train import run, trainer
from wspin.train.inputs import group_by_prompt

# Token weights


def plain_logits(model, item, side):
    ids = torch.from_numpy(np.concatenate([item.prompt, item.responses[side]]).astype(np.int64))
    return model(input_ids=ids[None]).logits[0, len(item.prompt) - 1 : -1].log_softmax(-1), ids[len(item.prompt) :]


def plain_weighted_margin(model, reference, item, alpha):
    """h_W - alpha (KL_W(chosen) - KL_W(rejected)) from whole forward passes, token by token."""
    sums = []
    for side, (weights, stored) in enumerate(zip(item.weights, item.reference, strict=True)):
        (own, ids), (other, _) = plain_logits(model, item, side), plain_logits(reference, item, side)
        total = 0.0
        for i, token in enumerate(ids.tolist()):
            kl = (own[i].exp() * (own[i] - other[i].detach())).sum()
            total = total + float(weights[i]) * (own[i, token] - float(stored[i]) - alpha * kl)
        sums.append(total)
    return sums[0] - sums[1]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("token_budget", [1, 4096])
def test_a_weighted_step_is_the_formula(fresh, pairs, train_settings, tmp_path, token_budget, alpha):
    """With a policy that has left the reference, so that the KL term is not zero."""
    settings = train_settings(loss="wspin", alpha=alpha, token_budget=token_budget, margin_bound=UNBOUND)
    items, policy, reference = with_weights(shifted(pairs)), fresh(), fresh()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    exact = copy.deepcopy(policy).double()
    unstarted, steps = planned(reference, items, settings, tmp_path)  # its model is kept as the frozen reference
    loss = unstarted.training_step(policy, steps[0]).item()
    found = loss, torch.cat([weight.grad.flatten() for weight in policy.parameters()])
    total = 0.0
    for item in (items[i] for i in steps[0]):
        total = total + torch.log1p(torch.exp(-0.5 * plain_weighted_margin(exact, fresh().double(), item, alpha)))
    assert_agree(found, plain_gradient(exact, total / 4), 1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_trap_20_rewards_hold_the_kl_term_as_the_loss_does(fresh, pairs, train_settings, tmp_path, alpha):
    """Their margin, pair by pair, is what the loss is a function of: here of one pair, of which both are known."""
    settings = train_settings(loss="wspin", alpha=alpha, margin_bound=UNBOUND, global_batch=1)
    items, policy = with_weights(shifted(pairs))[:1], fresh()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.05)
    unstarted, steps = planned(fresh(), items, settings, tmp_path)
    loss = unstarted.training_step(policy, steps[0]).item()
    metrics = unstarted.step_metrics
    assert loss == pytest.approx(math.log1p(math.exp(-metrics["rewards/margin"])), rel=1e-5)
    assert metrics["rewards/margin"] == pytest.approx(metrics["rewards/chosen"] - metrics["rewards/rejected"], rel=1e-5)
    if alpha:
        assert abs(metrics["kl/chosen"]) > 1e-3


def test_weights_of_one_are_spin_bit_for_bit(fresh, pairs, train_settings, tmp_path):
    """Models and curves."""
    ones = [replace(item, weights=tuple(np.ones_like(one) for one in item.reference)) for item in pairs]
    plain = trained(fresh(), pairs, train_settings(epochs=3), tmp_path / "spin")
    same = trained(fresh(), ones, train_settings(epochs=3, loss="wspin", alpha=0.0), tmp_path / "wspin")
    assert torch.equal(plain, same)
    assert curve(tmp_path / "spin") == curve(tmp_path / "wspin")
    other = trained(fresh(), with_weights(pairs), train_settings(epochs=3, loss="wspin", alpha=0.0), tmp_path / "other")
    assert not torch.allclose(plain, other)


def test_without_alpha_there_is_no_reference_and_no_divergence(monkeypatch, fresh, pairs, train_settings, tmp_path):
    def computed(*_):
        raise AssertionError("a KL was computed")

    monkeypatch.setattr(trainer.losses, "DIVERGENCES", dict.fromkeys(trainer.losses.DIVERGENCES, computed))
    trained(fresh(), with_weights(pairs), train_settings(loss="wspin", alpha=0.0), tmp_path / "none")
    with pytest.raises(AssertionError, match="a KL was computed"):
        trained(fresh(), with_weights(pairs), train_settings(loss="wspin", alpha=0.1), tmp_path / "some")


def test_the_curve_has_weighted_and_unweighted_rewards(fresh, pairs, train_settings, tmp_path):
    items = with_weights(shifted(pairs))
    trained(
        fresh(), items, train_settings(loss="wspin", alpha=0.0, margin_bound=UNBOUND, global_batch=10), tmp_path / "one"
    )
    delta = [
        [own - then for own, then in zip(now.reference, left.reference, strict=True)]
        for now, left in zip(pairs, items, strict=True)
    ]
    plain = np.array([[one.sum() for one in sides] for sides in delta])
    heavy = np.array(
        [
            [(w * one).sum() for w, one in zip(item.weights, sides, strict=True)]
            for item, sides in zip(items, delta, strict=True)
        ]
    )
    (line,) = curve(tmp_path / "one")
    for name, sums in (("rewards", heavy), ("unweighted", plain)):
        rewards = {key: line[f"{name}/{key}"] for key in ("chosen", "rejected", "margin", "accuracy")}
        margin = sums[:, 0] - sums[:, 1]
        expected = {"chosen": 0.5 * sums[:, 0].mean(), "rejected": 0.5 * sums[:, 1].mean()}
        expected |= {"margin": 0.5 * margin.mean(), "accuracy": (margin > 0).mean()}
        assert rewards == pytest.approx(expected, rel=1e-4)
    assert line["margin/largest"] == pytest.approx(abs(plain[:, 0] - plain[:, 1]).max(), rel=1e-4)


# Triplets


def test_pairs_of_one_prompt_read_together_train_as_apart(fresh, model, make_items, train_settings, tmp_path):
    """One step over all of them: loss, gradient and curve are those of the pairs."""
    triples = make_items(6, answers=3)
    sets = []
    for place in (1, 2):
        pair = [replace(one, responses=(one.responses[0], one.responses[place])) for one in triples]
        sets.append(with_weights(shifted(scored(model, pair), by=0.5), seed=place))
    pairs, kept = [*sets[0], *sets[1]], group_by_prompt(sets)
    assert [item.sides for item in kept] == [(0, 1, 0, 2)] * 6
    assert sum(sum(item.lengths) for item in kept) < sum(sum(item.lengths) for item in pairs)
    for alpha in (0.0, 0.5):
        settings = train_settings(loss="wspin", alpha=alpha, global_batch=12, margin_bound=UNBOUND)
        found = []
        for items in (pairs, kept):
            policy = fresh()
            with torch.no_grad():
                for weight in policy.parameters():
                    weight.mul_(1.05)
            unstarted, steps = planned(fresh(), items, settings, tmp_path)
            assert len(steps) == 1
            loss = unstarted.training_step(policy, steps[0]).item()
            gradient = torch.cat([weight.grad.flatten() for weight in policy.parameters()])
            found.append(
                (loss, gradient, {k: v for k, v in unstarted.step_metrics.items() if not k.startswith("work/")})
            )
        assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
        assert (found[1][1] - found[0][1]).norm() < 1e-5 * found[0][1].norm()
        assert found[1][2] == pytest.approx(found[0][2], rel=1e-4)


def test_a_step_holds_whole_triplets(train_settings, make_items):
    kept = [replace(item, sides=(0, 1, 0, 2)) for item in make_items(4, answers=3)]
    assert run.items_per_step(kept, train_settings(global_batch=6)) == 3
    with pytest.raises(
        StudyError,
        match=r"train.global_batch: expected a multiple of the 2 pairs of an item \(train.triplets\), found 5",
    ):
        run.items_per_step(kept, train_settings(global_batch=5))
    assert run.items_per_step(make_items(4, answers=1), train_settings(global_batch=5)) == 5
