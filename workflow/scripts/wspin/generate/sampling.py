"""Answers all prompts of a shard with an engine, and keeps finished answers: a killed job goes on with the rest.

An answer depends on its prompt and on its own random numbers alone, so what was kept is what would be made again; up to
rounding, since other prompts now stand beside the rest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wspin.config.stages import Generate
from wspin.progress import progress_printer
from wspin.storage.files import writing

from .answer import Answer, RandomSource
from .transformers_engine import Transformers


def answer(
    engine: Any, prompts: Sequence[Sequence[int]], draws: RandomSource, state: Path
) -> tuple[list[Answer], dict[str, Any]]:
    """(answers in the order of the prompts, what they took now); `state`: a folder whose lock the caller holds."""
    kept = Kept(state)
    left = [i for i in range(len(prompts)) if i not in kept.answers]
    if len(left) < len(prompts):
        print(f"generate: {len(kept.answers)} of {len(prompts)} answers kept from an earlier attempt", flush=True)
    tell = progress_printer("generate", len(prompts))

    def finished(i: int, answer: Answer) -> None:
        kept.add(left[i], answer)
        tell(len(kept.answers))

    began = time.perf_counter()
    work = engine.generate([prompts[i] for i in left], lambda i: draws(left[i]), finished)
    tokens = sum(len(kept.answers[i].ids) for i in left)
    work |= {"kept": len(prompts) - len(left), "tokens_per_second": tokens / (time.perf_counter() - began)}
    return [kept.answers[i] for i in range(len(prompts))], work


class Kept:
    """The answers in a state folder, by the number of their prompts."""

    def __init__(self, state: Path):
        state.mkdir(parents=True, exist_ok=True)
        path = state / "answers.jsonl"
        path.touch()
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1  # the last line may be torn
        os.truncate(path, whole)
        found = map(json.loads, text[:whole].splitlines())
        self.answers = {number: Answer(ids, finish_reason) for number, ids, finish_reason in found}
        self.path = path

    def add(self, number: int, answer: Answer) -> None:
        """Keep an answer: it is there even if the process is killed right after this."""
        self.answers[number] = answer
        with writing(self.path), open(self.path, "a") as file:
            file.write(json.dumps([number, answer.ids, answer.finish_reason]) + "\n")


def load_engine(folder: str, settings: Generate, eos: int, longest: int) -> Any:
    """The engine of the settings, with the model in `folder`; `longest`: tokens of the longest prompt and its answer.

    Raises `StudyError` if the engine is not installed, or the model would stop elsewhere than on `eos`.
    """
    if settings.engine == "vllm":
        from .vllm_engine import Vllm  # imports vllm, which has an environment of its own

        return Vllm(folder, settings, eos, longest)
    return Transformers(folder, settings, eos)
