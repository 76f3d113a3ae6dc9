"""Answers all prompts of a shard with an engine and stores each finished answer: a killed job resumes with the others.

An answer depends on its prompt and its own random numbers alone, so resuming gives the same answers, up to rounding:
the remaining prompts now stand in other batches.
"""

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from wspin.config.stages import Generate
from wspin.progress import progress_printer
from wspin.storage import strict_json
from wspin.storage.files import whole_file, writing
from wspin.storage.opening import regular

from .answer import Answer, Prompts, RandomSource
from .transformers_engine import TransformersEngine

DIGITS = 16  # of a line's checksum, sha256 in hex


def sample_answers(
    engine: Any, prompts: Prompts, random_source: RandomSource, state: Path, vocabulary: int
) -> tuple[list[Answer], dict[str, Any]]:
    """(answers in the order of the prompts, work of this run).

    `state`: a folder whose lock the caller holds. `vocabulary`: ids that the model can generate.
    """
    store = AnswerStore(state, len(prompts), vocabulary)
    remaining = [i for i in range(len(prompts)) if i not in store.answers]
    kept = len(store.answers)
    if kept:
        print(f"generate: {kept} of {len(prompts)} answers kept from an earlier attempt", flush=True)
    print_progress = progress_printer("generate", len(prompts), "answers")

    def on_answer(i: int, answer: Answer) -> None:
        store.add(remaining[i], answer)
        print_progress(len(store.answers), kept)

    began = time.perf_counter()
    work = engine.generate([prompts[i] for i in remaining], lambda i: random_source(remaining[i]), on_answer)
    tokens = sum(len(store.answers[i].ids) for i in remaining)
    work |= {"kept": kept, "tokens_per_second": tokens / (time.perf_counter() - began)}
    return [store.answers[i] for i in range(len(prompts))], work


class AnswerStore:
    """The finished answers in a state folder, by the index of their prompt; every line begins with its checksum."""

    def __init__(self, state: Path, prompts: int, vocabulary: int):
        state.mkdir(parents=True, exist_ok=True)
        self.path = state / "answers.jsonl"
        with open(self.path, "a+b", opener=regular) as file:
            file.seek(0)
            lines = [line for line in file.read().split(b"\n") if line]
        answers = {line: _entry(line, prompts, vocabulary) for line in lines}
        kept = [line for line in lines if answers[line]]
        with whole_file(self.path) as temporary:  # a kill or a full disk may have left the last line incomplete
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
        if dropped := len(lines) - len(kept):
            print(f"generate: {dropped} of {len(lines)} kept answers are damaged and sampled again", flush=True)
        self.answers = dict(answers[line] for line in kept)

    def add(self, index: int, answer: Answer) -> None:
        """Store an answer; a process killed after this keeps it."""
        self.answers[index] = answer
        text = b" " + json.dumps([index, answer.ids, answer.finish_reason]).encode()
        with writing(self.path), open(self.path, "ab", opener=regular) as file:
            file.write(_checksum(text) + text + b"\n")


def _entry(line: bytes, prompts: int, vocabulary: int) -> tuple[int, Answer] | None:
    """The answer in a line, with the index of its prompt; None in one that is damaged, or no answer to these."""
    if line[:DIGITS] != _checksum(line[DIGITS:]):
        return None
    with contextlib.suppress(ValueError, TypeError):
        index, ids, reason = strict_json.parse(line[DIGITS:])
        are_ids = isinstance(ids, list) and bool(ids) and {type(i) for i in ids} == {int}
        is_prompt = type(index) is int and 0 <= index < prompts
        if are_ids and is_prompt and 0 <= min(ids) <= max(ids) < vocabulary and reason in ("stop", "length"):
            return index, Answer(ids, reason)
    return None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:DIGITS].encode()


def load_engine(folder: str, settings: Generate, eos: int, context: int) -> Any:
    """The engine of the settings with the model in `folder`; `context`: tokens of the longest prompt and its answer.

    Raises `StudyError` if the engine is not installed, or the model would stop elsewhere than on `eos`.
    """
    if settings.engine == "vllm":
        from .vllm_engine import VllmEngine  # imports vllm, which has an environment of its own

        return VllmEngine(folder, settings, eos, context)
    return TransformersEngine(folder, settings, eos)
