"""lm-eval's model for transformers, with the forward passes of the shared-prefix engine.

lm-eval reads a question again for each of its choices. Here every context is read once, and so is the beginning that
contexts share, such as the examples before the questions of a subject. What is asked stays lm-eval's: its tokens, its
special tokens, its truncation. Greedy answers come from `generation`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from wspin.engine.logprobs import continuation_logprobs
from wspin.engine.precision import cast_linear_layers
from wspin.engine.prefixes import Continuation, pack_row, plan_rows
from wspin.errors import StudyError

from .encoding import EncodeOnce
from .generation import ContinuousBatchingLM

Request = tuple[tuple[str, str] | None, list[int], list[int]]  # texts, the context's ids, the continuation's ids


class SharedPrefixLM(EncodeOnce, ContinuousBatchingLM):
    """`ContinuousBatchingLM`; log-likelihoods are computed in packed rows of at most `token_budget` tokens."""

    def __init__(self, *args: Any, token_budget: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token_budget = token_budget
        if self.mixed_precision_dtype is not None:
            cast_linear_layers(self.model, self.mixed_precision_dtype)

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether it is the greedy continuation) of every request."""
        continuations = [self._continuation(context, answer) for _, context, answer in requests]
        responses: dict[int, tuple[float, bool]] = {}
        for row in plan_rows(continuations, self.token_budget):
            batch = pack_row(continuations, row).to(self.device)
            with torch.autocast(self.device.type, self.mixed_precision_dtype, self.mixed_precision_dtype is not None):
                scores = continuation_logprobs(self.model, batch)
            parts = (part.cpu().split(batch.counts) for part in scores)
            for i, logprobs, likeliest in zip(row.indices, *parts, strict=True):
                responses[i] = self._total(logprobs), bool(likeliest.all())
                if requests[i][0] is not None:  # a window of `loglikelihood_rolling` has no texts
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], responses[i])
            if self.on_progress:
                self.on_progress(len(responses))
        return [responses[i] for i in range(len(requests))]

    def _continuation(self, context: list[int], answer: list[int]) -> Continuation:
        """The last tokens that fit the model; the very last is predicted but not read, so one more fits."""
        if not (context and answer):
            raise StudyError("expected a context and an answer of a token or more, found none; correct the task's data")
        return Continuation(np.array([*context, *answer][-(self.max_length + 1) :], dtype=np.int32), len(answer))

    def _total(self, logprobs: torch.Tensor) -> float:
        total = float(logprobs.double().sum())
        if not np.isfinite(total):
            remedy = "look for NaN among the model's weights, or for an overflow (eval.autocast)"
            raise StudyError(f"{self.model.name_or_path}: expected finite log-likelihoods, found {total}; {remedy}")
        return total
