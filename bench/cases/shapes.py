"""Models and conversations of the benchmarks: random weights, random tokens, lengths as in UltraChat."""

from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, Self

import numpy as np
import torch

from wspin.config.sources import Scratch
from wspin.engine.packing import Item
from wspin.models.scratch import scratch_config

EOS = 0


Shape = partial(Scratch, architecture="qwen2", text="", context=4096)  # a Qwen2 with tied embeddings
TINY = Shape(vocabulary=2048, hidden=128, layers=4, heads=4, intermediate=384)
SMALL = Shape(vocabulary=4096, hidden=384, layers=6, heads=6, intermediate=1024)  # 12 million parameters
WIDE = Shape(vocabulary=151_936, hidden=64, layers=2, heads=2, intermediate=128)  # Qwen1.5's vocabulary
TEACHER = Shape(vocabulary=2048, hidden=256, layers=6, heads=8, intermediate=768)  # five times the FLOPs of `TINY`
LARGE = Shape(vocabulary=151_936, hidden=2048, layers=24, heads=16, intermediate=5504)  # as Qwen1.5-1.8B, for GPUs
MINUTE = Shape(vocabulary=64, hidden=32, layers=1, heads=2, intermediate=64)


@dataclass(frozen=True)
class Case:
    """One size of a benchmark."""

    name: str
    shape: Scratch
    pairs: int
    rounds: int
    scale: float = 1.0  # of all lengths

    def conversations(self) -> list[Item]:
        return conversations(self.pairs, self.shape.vocabulary, scale=self.scale)


def model(shape: Scratch, seed: int = 0, device: str = "cpu") -> Any:
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    with torch.device(device):  # a GPU draws billions of numbers faster than a CPU
        return Qwen2ForCausalLM(scratch_config(shape, EOS))


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution clipped at `most`: mean in tokens after clipping, spread of the logarithm."""

    mean: float
    spread: float
    most: int
    least: int = 2

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Quantiles in random order, so that a few conversations have the mean of many."""
        quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
        raw = np.exp(self.spread * np.array(quantiles))
        low, high = 0.0, 16.0 * self.most
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(middle * raw, self.most).mean() < self.mean else (low, middle)
        return rng.permutation(np.minimum(low * raw, self.most).round().astype(int).clip(min=self.least))

    def scaled(self, factor: float) -> Self:
        return Lengths(self.mean * factor, self.spread, max(self.least, round(self.most * factor)), self.least)


PROMPT = Lengths(137, 0.8, 512)
HUMAN = Lengths(273, 0.6, 768)
GENERATED = Lengths(229, 0.6, 256)


def conversations(count: int, vocabulary: int, seed: int = 0, scale: float = 1.0) -> list[Item]:
    """Prompts, each with a human and a generated answer; both answers end in EOS."""
    rng = np.random.default_rng([seed, count])
    sizes = [lengths.scaled(scale).draw(count, rng) for lengths in (PROMPT, HUMAN, GENERATED)]

    def ids(length: int) -> np.ndarray:
        return rng.integers(EOS + 1, vocabulary, length).astype(np.int32)

    def response(length: int) -> np.ndarray:
        return np.append(ids(length - 1), np.int32(EOS))

    return [
        Item(ids(prompt), (response(human), response(generated)))
        for prompt, human, generated in zip(*sizes, strict=True)
    ]
