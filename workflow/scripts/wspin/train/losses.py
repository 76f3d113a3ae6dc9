"""Losses, each a pure function of per-answer sums, with its source.

Notation: Delta_i = log pi(y_i | x, y_<i) - log ref(y_i | x, y_<i); M(y) = sum of Delta over the tokens of answer y, its
one EOS included, nothing normalised by length; h = M(chosen) - M(rejected), the margin before beta. B pairs. With
token weights w, constants without gradient, M_W(y) is the sum of w_i Delta_i and h_W its difference.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


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


def wspin(
    margin: Tensor, beta: float, label_smoothing: float = 0.0, alpha: float = 0.0, divergence: Tensor | None = None
) -> Tensor:
    """-log sigma(beta (h_W - alpha (KL_W(chosen) - KL_W(rejected)))), per pair (B,).

    `margin` is h_W = M_W(chosen) - M_W(rejected), M_W(y) the sum of w_i Delta_i; `divergence` (B,) the difference of
    the weighted sums of `token_kl`, which alpha = 0 does not need. Weights of one make this `spin`. TIS-DPO (Liu et al.
    2025, arXiv 2410.04350) as released; label smoothing as in `dpo`.
    """
    return dpo(margin if alpha == 0.0 else margin - alpha * divergence, beta, label_smoothing)


def token_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) of the next token at every answer token, nats: (T,) of logits (T, V)."""
    policy, reference = policy.log_softmax(-1), reference.log_softmax(-1)
    return (policy.exp() * (policy - reference)).sum(-1)


PREFERENCE = {"dpo": dpo, "spin": spin, "wspin": wspin}
