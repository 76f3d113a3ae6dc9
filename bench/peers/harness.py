"""Work of lm-eval 0.4.13's `HFLM`: a pass per request, with the head on every position.

Continuations of one token that follow one context share a pass. Requests are read the longest first, `batch_size` at a
time, padded on the right.
"""

from collections.abc import Iterable

from wspin.engine.flops import Work


def work(requests: Iterable[tuple[object, list[int], list[int]]], batch_size: int) -> Work:
    """Work of `_loglikelihood_tokens`; its attention is causal, without a mask, padding included."""
    inputs = {(*context, *answer[:-1]) for _, context, answer in requests}
    widths = sorted(map(len, inputs), reverse=True)
    batches = [widths[first : first + batch_size] for first in range(0, len(widths), batch_size)]
    tokens = sum(len(batch) * batch[0] for batch in batches)
    return Work(tokens, sum(len(batch) * batch[0] * (batch[0] + 1) // 2 for batch in batches), tokens)
