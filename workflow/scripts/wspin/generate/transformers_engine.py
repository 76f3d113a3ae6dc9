"""Continuous batching with transformers, see `engine.decoding`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from wspin.config.stages import Generate
from wspin.engine.decoding import Request, Work, decode
from wspin.engine.sampling import Sampling
from wspin.models import folders

from .answer import Answer, OnAnswer, Prompts, RandomSource


def generate(
    model: Any,
    prompts: Prompts,
    uniforms: Callable[[int], np.ndarray],
    settings: Generate,
    eos: int,
    on_answer: OnAnswer = lambda index, answer: None,
) -> tuple[list[Answer], Work]:
    """Sample one answer per prompt, in the order of the prompts; `uniforms(i)`: random numbers of prompt i.

    `on_answer` gets each answer as it ends.
    """
    answers: dict[int, Answer] = {}

    def add(index: int, ids: list[int]) -> None:
        answers[index] = Answer(ids, "stop" if ids[-1] == eos else "length")
        on_answer(index, answers[index])

    requests = [Request(prompt, settings.max_new_tokens, lambda ids: ids[-1] == eos) for prompt in prompts]
    sampling = Sampling(settings.temperature, settings.top_p, uniforms)
    work = decode(model, requests, sampling, settings.batch_size, add)
    return [answers[i] for i in range(len(prompts))], work


class TransformersEngine:
    """transformers in this process, in float32."""

    def __init__(self, folder: str, settings: Generate, eos: int):
        self.settings, self.eos = settings, eos
        self.model = folders.load_model(folder, folders.best_device())
        folders.check_eos(self.model, eos, folder)
        attention = self.model.config._attn_implementation
        self.made_with = {"dtype": "float32", "autocast": "float32", "attention": attention}

    def generate(self, prompts: Prompts, random_source: RandomSource, on_answer: OnAnswer) -> dict[str, Any]:
        """Answer the prompts; returns the work of it."""
        settings, limit = self.settings, self.settings.max_new_tokens
        _, work = generate(self.model, prompts, lambda i: random_source(i).random(limit), settings, self.eos, on_answer)
        return {**asdict(work), "useful": work.useful}
