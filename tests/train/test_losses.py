"""The losses against numbers worked out by hand and formulas written out again."""

import math

import pytest
import torch

from wspin.train import losses

MARGINS = [-7.5, -1.0, -1e-3, 0.0, 0.25, 2.0, 30.0]
PREFERENCE = pytest.mark.parametrize("loss", [losses.dpo, losses.spin, losses.wspin])


def softplus(x):
    """log(1 + e^x), in Python's own float64."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def test_dpo_by_hand():
    """h = 2, beta = 0.1: log(1 + e^-0.2) = log 1.8187307530779818."""
    assert losses.dpo(torch.tensor([2.0]), 0.1).item() == pytest.approx(0.5981388693815918, rel=1e-6)
    assert losses.dpo(torch.tensor([-2.0]), 0.1).item() == pytest.approx(0.7981388693815918, rel=1e-6)


def test_label_smoothing_by_hand():
    """With eps = 0.25 a quarter of the loss comes from the swapped pair: 0.598139 + 0.25 * 0.2."""
    assert losses.dpo(torch.tensor([2.0]), 0.1, 0.25).item() == pytest.approx(0.6481388693815918, rel=1e-6)


@PREFERENCE
@pytest.mark.parametrize("beta", [0.1, 5.0])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_every_pair_has_its_own_loss(loss, beta, eps):
    expected = [(1 - eps) * softplus(-beta * h) + eps * softplus(beta * h) for h in MARGINS]
    assert loss(torch.tensor(MARGINS, dtype=torch.float64), beta, eps).tolist() == pytest.approx(expected, rel=1e-12)


@PREFERENCE
@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_log_2_at_zero_margin_exactly(loss, beta):
    assert loss(torch.zeros(1), beta).item() == torch.tensor(math.log(2)).item()


def test_spin_is_dpo_without_smoothing_bit_for_bit():
    margin = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 50
    assert torch.equal(losses.spin(margin, 0.1), losses.dpo(margin, 0.1, label_smoothing=0.0))


def test_gradient_by_the_margin():
    """dL/dh = -beta sigma(-beta h)."""
    margin = torch.tensor(MARGINS, dtype=torch.float64, requires_grad=True)
    losses.spin(margin, 0.5).sum().backward()
    expected = [-0.5 / (1.0 + math.exp(0.5 * h)) for h in MARGINS]
    assert margin.grad.tolist() == pytest.approx(expected, rel=1e-12)


@PREFERENCE
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_gradient_by_finite_differences(loss, eps):
    margin = torch.tensor(MARGINS, dtype=torch.float64, requires_grad=True)
    loss(margin, 0.5, eps).sum().backward()
    step = 1e-5
    ahead, behind = (loss(margin.detach() + side, 0.5, eps) for side in (step, -step))
    assert margin.grad.tolist() == pytest.approx(((ahead - behind) / (2 * step)).tolist(), rel=1e-6, abs=1e-9)


@PREFERENCE
@pytest.mark.parametrize(("eps", "slopes"), [(0.0, [0.0, -1.0]), (0.1, [0.1, -0.9])])
def test_extreme_margins_stay_finite(loss, eps, slopes):
    """The loss becomes a straight line far from zero, and no term of it overflows."""
    margin = torch.tensor([1e4, -1e4], requires_grad=True)
    value = loss(margin, 1.0, eps)
    value.sum().backward()
    assert value.tolist() == pytest.approx([eps * 1e4, (1 - eps) * 1e4], rel=1e-6)
    assert margin.grad.tolist() == pytest.approx(slopes, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "values", "slopes"),
    [
        (lambda h, kl: losses.hinge(h, 1.0), [0.0, 1e4 + 1], [0.0, -1.0]),
        (lambda h, kl: losses.ipo(h, 1.0), [1e8, 1e8], [2e4, -2e4]),
        (lambda h, kl: losses.tdpo1(h, 1.0, 0.1, kl, 2 * kl), [800.0, 9900.0], [0.1, -0.9]),
        (lambda h, kl: losses.tdpo2(h, 1.0, 0.1, 0.5, kl, 2 * kl), [900.0, 9450.0], [0.1, -0.9]),
    ],
)
def test_losses_of_extreme_margins_and_divergences_stay_finite(loss, values, slopes):
    """Straight lines far from zero, with slopes -(1 - eps) and eps, of h less its KL term; ipo is a parabola."""
    margin, kl = torch.tensor([1e4, -1e4], requires_grad=True), torch.tensor([2e3, 1e3])
    value = loss(margin, kl)
    value.sum().backward()
    assert value.tolist() == pytest.approx(values, rel=1e-3)
    assert margin.grad.tolist() == pytest.approx(slopes, rel=1e-3)


@PREFERENCE
def test_swapping_chosen_and_rejected_flips_the_margin(loss):
    """h becomes -h, and log sigma(-t) = log sigma(t) - t."""
    logprobs = torch.tensor([-1.0, -2.5, -0.5, -3.0, -0.125])
    chosen, rejected = losses.answer_sums(logprobs, [2, 3])
    swapped = losses.answer_sums(torch.cat([logprobs[2:], logprobs[:2]]), [3, 2])
    margin = chosen - rejected
    assert (swapped[0] - swapped[1]).item() == -margin.item() != 0.0
    assert (loss(-margin, 0.5) - loss(margin, 0.5)).item() == pytest.approx(0.5 * margin.item(), rel=1e-5)


def test_sft_is_the_negative_sum():
    logprobs = torch.tensor([-0.5, -1.25, -4.0], requires_grad=True)
    loss = losses.sft(logprobs)
    loss.backward()
    assert loss.item() == 5.75
    assert logprobs.grad.tolist() == [-1.0, -1.0, -1.0]


def test_answer_sums_add_up_answer_by_answer():
    counts = [3, 1, 7, 2]
    values = torch.randn(sum(counts), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, left = [], values.tolist()
    for count in counts:
        expected.append(sum(left[:count]))
        left = left[count:]
    assert losses.answer_sums(values, counts).tolist() == pytest.approx(expected, rel=1e-12)


def test_answer_sums_pass_the_gradient_to_every_token():
    values = torch.ones(5, requires_grad=True)
    (losses.answer_sums(values, [2, 3]) * torch.tensor([1.0, -2.0])).sum().backward()
    assert values.grad.tolist() == [1.0, 1.0, -2.0, -2.0, -2.0]


def test_answer_sums_refuse_counts_of_other_tokens():
    with pytest.raises(RuntimeError):
        losses.answer_sums(torch.ones(5), [2, 2])


# Token weights and the KL term


def weighted_margin(delta, weights):
    """h_W of pairs of two answers: (B, 2, n) each."""
    moved = (delta * weights).sum(-1)
    return moved[:, 0] - moved[:, 1]


def weighted_kls(kl, weights):
    """The weighted KL of the chosen answers, and that of the rejected ones."""
    return (kl * weights).sum(-1).unbind(1)


@pytest.fixture
def tokens():
    """Delta, weights and KL of every token of five pairs."""
    draw = torch.Generator().manual_seed(3)
    delta, weights, kl = (torch.randn(5, 2, 7, generator=draw, dtype=torch.float64) for _ in range(3))
    return delta, weights.exp(), kl.abs()


def weighed_loss(tokens, beta, alpha, factor=1.0):
    delta, weights, kl = tokens
    margin = weighted_margin(delta, factor * weights)
    return losses.wspin(margin, beta, 0.1, alpha, *weighted_kls(kl, factor * weights))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_trap_18_a_factor_of_all_weights_is_a_factor_of_beta(tokens, alpha, factor):
    scaled, stronger = weighed_loss(tokens, 0.2, alpha, factor), weighed_loss(tokens, 0.2 * factor, alpha)
    assert scaled.tolist() == pytest.approx(stronger.tolist(), rel=1e-12)
    assert scaled.tolist() != pytest.approx(weighed_loss(tokens, 0.2, alpha).tolist(), rel=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_swapped_sides_turn_the_margin_round(tokens, alpha):
    """With their weights: the loss is then that of the other label, sigma(-x) for sigma(x)."""
    swapped = [part.flip(1) for part in tokens]
    delta, weights, kl = tokens
    margin = weighted_margin(delta, weights) - alpha * weighted_margin(kl, weights)
    assert weighted_margin(*swapped[:2]).tolist() == (-weighted_margin(delta, weights)).tolist()
    expected = [softplus(0.3 * h) for h in margin.tolist()]
    loss = losses.wspin(weighted_margin(*swapped[:2]), 0.3, 0.0, alpha, *weighted_kls(swapped[2], swapped[1]))
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


def test_trap_19_without_alpha_no_divergence_is_looked_at(tokens):
    margin = weighted_margin(*tokens[:2])
    assert torch.equal(losses.wspin(margin, 0.1), losses.spin(margin, 0.1))
    missing = torch.full_like(margin, math.nan)
    assert torch.equal(losses.wspin(margin, 0.1, 0.0, 0.0, missing, missing), losses.spin(margin, 0.1))


def test_trap_20_kl_of_two_tokens_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2 = 0.130812; the other way round 0.143841."""
    p, q = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log()
    assert losses.token_kl(p, q).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)
    assert losses.token_kl(q, p).item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), rel=1e-6)
    assert losses.reverse_token_kl(p, q).item() == losses.token_kl(q, p).item() == pytest.approx(0.143841, rel=1e-5)
    assert losses.token_kl(p, p + 7.0).item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("divergence", losses.DIVERGENCES.values())
def test_trap_19_kl_of_extreme_logits_is_finite(divergence):
    extreme = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    kl = divergence(extreme, extreme.detach().flip(-1))
    kl.sum().backward()
    assert torch.isfinite(kl).all()
    assert torch.isfinite(extreme.grad).all()
