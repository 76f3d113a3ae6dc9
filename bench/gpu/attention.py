"""FlexAttention beside the bucketed kernels, which the CPU's tests hold to plain forward passes.

Log-probabilities and gradients of packed pairs, log-probabilities of evaluation's packed prefixes, and what
FlexAttention costs beside its kernels: compiling for rows of changing length, and the mask of a long row.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from wspin.engine import attention
from wspin.engine.layout import PackedLayout
from wspin.engine.logprobs import autocast, continuation_logprobs, token_logprobs
from wspin.engine.packing import Batch, pack
from wspin.engine.prefixes import Continuation, pack_row, plan_rows

from ..cases.shapes import conversations
from ..measure import Clock, Row
from .steps import each

PRECISIONS = ("float32", "bfloat16")
BOUND = {"logprobs": 1e-3, "gradients": 1e-3}  # in float32: nats, and relative to the gradient's norm
ROUNDINGS = 4  # in bfloat16: as many times the buckets' own difference between bfloat16 and float32
SIZES = {"vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4}
SIZES |= {"num_attention_heads": 8, "max_position_embeddings": 4096}
SMALL = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WINDOW = 100  # tokens: shorter than most conversations, and no multiple of a block


@dataclass(frozen=True)
class Case:
    name: str
    settings: dict[str, Any]  # of the model
    prefixes: bool = False  # evaluation's rows in place of training's


GROUPED = {"num_key_value_heads": 2}
SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}  # and one layer without
CASES = (
    Case("training", {}),
    Case("training, grouped heads", GROUPED),
    Case("training, grouped heads, sliding window", GROUPED | SLIDING),
    Case("evaluation's prefixes", GROUPED, prefixes=True),
    Case("evaluation's prefixes, sliding window", GROUPED | SLIDING, prefixes=True),
)


def run(quick: bool, device: str) -> Iterator[Row]:
    measures = [lambda case=case: compare(case, quick, device) for case in CASES]
    measures += [lambda: changing_lengths(quick, device), lambda: long_masks(quick, device)]
    with on_device(device):
        yield from each(measures, lambda measure: measure())


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """On a CPU, FlexAttention runs uncompiled, which takes seconds where its compiler takes minutes."""
    if device == "cuda":
        yield
        return
    from torch.nn.attention import flex_attention

    before = flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        torch.compiler.set_stance("default")
        flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


def compare(case: Case, quick: bool, device: str) -> Iterator[Row]:
    """Differences, seconds and memory of both. Raises `AssertionError` for a difference beyond its bound."""
    model = make_model(case, quick, device)
    batch, logprobs = prefix_row(quick) if case.prefixes else (pack(items(quick)), token_logprobs)
    batch, exact, rounding = batch.to(model.device), None, {}
    for precision in PRECISIONS:
        results: dict[str, Measured] = {}
        for name in (attention.BUCKETED, attention.FLEX):
            model.set_attn_implementation(name)
            results[name], clock = measured(model, batch, precision, logprobs, device)
            contender = f"{precision}, {'buckets' if name == attention.BUCKETED else 'FlexAttention'}"
            for quantity, value in clock.quantities().items():
                yield Row("attention", case.name, contender, 0, quantity, value)
        exact = exact or results[attention.BUCKETED]
        rounding = differences(results[attention.BUCKETED], exact) if precision != "float32" else {}
        for quantity, value in differences(results[attention.FLEX], results[attention.BUCKETED]).items():
            bound = BOUND[quantity] if precision == "float32" else ROUNDINGS * rounding[quantity]
            yield Row("attention", case.name, precision, 0, quantity, value)
            yield Row("attention", case.name, precision, 0, f"{quantity} bound", bound)
            assert value <= bound, f"{case.name}, {precision}: {quantity} differ by {value:.2g}, expected {bound:.2g}"


def make_model(case: Case, quick: bool, device: str) -> Any:
    """A random model, its weights large enough that attention decides what it says."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = SMALL if quick else SIZES
    config = Qwen2Config(**{"num_key_value_heads": sizes["num_attention_heads"], **sizes, **case.settings})
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3.0)
    return model.to(device).requires_grad_(device == "cuda")  # FlexAttention has no backward pass on CPUs


def items(quick: bool) -> list[Any]:
    """Pairs of UltraChat's lengths: a row of about 8,000 tokens."""
    return conversations(3, 64, scale=1 / 8) if quick else conversations(13, 4096)


def prefix_row(quick: bool) -> tuple[Batch, Callable[[Any, Batch], torch.Tensor]]:
    """Questions of four choices that follow the same examples, and how their log-probabilities are computed."""
    rng, vocabulary = np.random.default_rng(0), 64 if quick else 4096
    examples, questions = rng.integers(1, vocabulary, 60 if quick else 900), 3 if quick else 24

    def text(context: np.ndarray) -> Continuation:
        choice = rng.integers(1, vocabulary, rng.integers(1, 12))
        return Continuation(np.concatenate([examples, context, choice]).astype(np.int32), len(choice))

    contexts = [rng.integers(1, vocabulary, rng.integers(10, 80)) for _ in range(questions)]
    texts = [text(context) for context in contexts for _ in range(4)]
    (row,) = plan_rows(texts, np.inf)
    return pack_row(texts, row), lambda model, batch: continuation_logprobs(model, batch)[0]


Measured = tuple[torch.Tensor, torch.Tensor | None]  # log-probabilities (A,), all gradients in one vector


def measured(
    model: Any, batch: Batch, precision: str, logprobs: Callable[..., Any], device: str
) -> tuple[Measured, Clock]:
    """Log-probabilities, gradients where there are any, and the clock of the second of two passes."""
    for clock in (Clock(device), Clock(device)):  # the first compiles
        model.zero_grad()
        with clock:
            with autocast(model.device, precision):
                values = logprobs(model, batch)
            if values.requires_grad:
                values.sum().backward()
    if not values.requires_grad:
        return (values, None), clock
    return (values.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])), clock


def differences(values: Measured, expected: Measured) -> dict[str, float]:
    """The largest difference of log-probabilities, in nats, and the gradients' distance relative to their norm."""
    result = {"logprobs": float((values[0] - expected[0]).abs().max())}
    if values[1] is not None:
        result["gradients"] = float((values[1] - expected[1]).norm() / expected[1].norm())
    return result


def changing_lengths(quick: bool, device: str) -> Iterator[Row]:
    """Seconds of rows that all have other lengths, as in training, and the graphs that they compile."""
    from torch._dynamo.utils import counters

    model = make_model(Case("", GROUPED | SLIDING), quick, device).requires_grad_(False)
    model.set_attn_implementation(attention.FLEX)
    pairs, seconds, before = items(quick), [], counters["stats"]["unique_graphs"]
    rows = [pairs[: 1 + i % len(pairs)] for i in range(4 if quick else 24)]
    for row in rows:
        clock = Clock(device)
        with clock, torch.no_grad(), autocast(model.device, "bfloat16"):
            token_logprobs(model, pack(row).to(model.device))
        seconds.append(clock.wall)
    graphs = counters["stats"]["unique_graphs"] - before
    figures = {"rows": len(rows), "graphs": graphs, "slowest": max(seconds), "median": median(seconds)}
    yield from (Row("attention", "rows of changing length", "", 0, *figure) for figure in figures.items())


def long_masks(quick: bool, device: str) -> Iterator[Row]:
    """Seconds and memory of a long row's layout and mask."""
    for tokens in (512,) if quick else (8192, 16384, 32768):
        lengths = [(137, 273, 229)] * (tokens // 639 or 1)
        began = time.perf_counter()
        layout = PackedLayout.of(lengths)
        yield Row("attention", f"{tokens:,} tokens", "layout", 0, "seconds", time.perf_counter() - began)
        layout = layout.to(torch.device(device))
        layout.block_mask(None)  # the first loads kernels
        with Clock(device) as clock:
            layout.block_mask(WINDOW)
        for quantity, value in clock.quantities().items():
            yield Row("attention", f"{tokens:,} tokens", "block mask", 0, quantity, value)
