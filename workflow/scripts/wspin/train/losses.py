"""Losses, each a pure function of per-answer sums, with its source.

Notation: Delta_i = log pi(y_i | x, y_<i) - log ref(y_i | x, y_<i); M(y) = sum of Delta over the tokens of answer y, its
one EOS included, nothing normalised by length; h = M(chosen) - M(rejected), the margin before beta. B pairs. With
token weights w, constants without gradient, M_W(y) is the sum of w_i Delta_i and h_W its difference. With
`reference_free` Delta_i is log pi(y_i | x, y_<i) alone. What each loss reads: `config/losses.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from wspin.config.losses import POLICY_REFERENCE, REFERENCE_POLICY


def answer_sums(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Sum flat per-token values (T,) over each answer: (R,). Padding cannot enter, there is none in the values."""
    return torch.stack([answer.sum() for answer in values.split(list(counts))])


def sft(logprobs: Tensor) -> Tensor:
    """Negative log-likelihood, summed over the tokens (T,) of the answers: a scalar.

    The caller divides by tokens (`reduction: token_mean`) or rows (`sum`, as the DPO authors' code).
    """
    return -logprobs.sum()


def dpo(margin: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-(1 - eps) log sigma(beta h) - eps log sigma(-beta h), per pair (B,).

    Rafailov et al. 2023 (arXiv 2305.18290), eq. 7; eps > 0 is conservative DPO (Mitchell 2023).
    """
    return -(1.0 - label_smoothing) * logsigmoid(beta * margin) - label_smoothing * logsigmoid(-beta * margin)


def spin(margin: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """log(1 + exp(-beta h)), per pair (B,), real answers as chosen and the opponent's as rejected.

    Chen et al. 2024 (arXiv 2401.01335), eq. 4.7 with the logistic loss; lambda there is beta here. As a function of h
    it is DPO's loss: what makes it SPIN is where the pairs and the reference come from.
    """
    return dpo(margin, beta, label_smoothing)


def hinge(margin: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta h), per pair (B,). Zhao et al. 2023 (SLiC, arXiv 2305.10425); `hinge` of SPIN's code."""
    return (1.0 - beta * margin).relu()


def ipo(margin: Tensor, beta: float) -> Tensor:
    """(h - 1 / (2 beta))^2, per pair (B,). Azar et al. 2023 (arXiv 2310.12036), eq. 17; tau there is beta here.

    h is the difference of sums over tokens, as in the DPO authors' code; TRL divides each by the answer's length.
    """
    return (margin - 1.0 / (2.0 * beta)) ** 2


def tdpo1(margin: Tensor, beta: float, label_smoothing: float, chosen_kl: Tensor, rejected_kl: Tensor) -> Tensor:
    """-log sigma(beta (h - (KL(rejected) - KL(chosen)))), per pair (B,). Zeng et al. 2024 (arXiv 2404.11999).

    The KLs (B,) are sums of `reverse_token_kl` over the tokens of an answer, without weights.
    """
    return dpo(margin - (rejected_kl - chosen_kl), beta, label_smoothing)


def tdpo2(
    margin: Tensor, beta: float, label_smoothing: float, alpha: float, chosen_kl: Tensor, rejected_kl: Tensor
) -> Tensor:
    """-log sigma(beta (h - alpha (KL(rejected) - sg KL(chosen)))), per pair (B,), sg: no gradient passes.

    Zeng et al. 2024 (arXiv 2404.11999); the KLs as in `tdpo1`.
    """
    return dpo(margin - alpha * (rejected_kl - chosen_kl.detach()), beta, label_smoothing)


def wspin(
    margin: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
    alpha: float = 0.0,
    chosen_kl: Tensor | None = None,
    rejected_kl: Tensor | None = None,
) -> Tensor:
    """-log sigma(beta (h_W - alpha (KL_W(chosen) - KL_W(rejected)))), per pair (B,).

    `margin` is h_W = M_W(chosen) - M_W(rejected), M_W(y) the sum of w_i Delta_i; the KLs (B,) are weighted sums of
    `token_kl`, which alpha = 0 does not need. Weights of one make this `spin`. TIS-DPO (Liu et al. 2025,
    arXiv 2410.04350) as released; label smoothing as in `dpo`.
    """
    return dpo(margin if alpha == 0.0 else margin - alpha * (chosen_kl - rejected_kl), beta, label_smoothing)


def kl_factor(loss: str, alpha: float | None) -> float:
    """c of the reward beta (M + c KL) of an answer: the loss is a function of the difference of two such rewards."""
    return {"wspin": -(alpha or 0.0), "tdpo1": 1.0, "tdpo2": alpha or 0.0}.get(loss, 0.0)


def token_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) of the next token at every answer token, nats: (T,) of logits (T, V)."""
    policy, reference = policy.log_softmax(-1), reference.log_softmax(-1)
    return (policy.exp() * (policy - reference)).sum(-1)


def reverse_token_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || policy), the other direction of `token_kl`: (T,) of logits (T, V)."""
    return token_kl(reference, policy)


PREFERENCE = {
    "dpo": dpo,
    "spin": spin,
    "hinge": hinge,
    "ipo": ipo,
    "tdpo1": tdpo1,
    "tdpo2": tdpo2,
    "wspin": wspin,
}
DIVERGENCES = {POLICY_REFERENCE: token_kl, REFERENCE_POLICY: reverse_token_kl}
