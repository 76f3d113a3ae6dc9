"""Selects the study's rows: drawn once by the seed. Rows that do not fit every model are dropped here, never later."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wspin.config.stages import Dialogue
from wspin.errors import StudyError
from wspin.models import folders

from .chat import ChatTokenizer
from .records import Record

Reason = str | None  # why a record is passed over; None if it is not


@dataclass(frozen=True)
class LengthLimits:
    """How long conversations may be for one model, in tokens of its template and tokenizer."""

    chat: ChatTokenizer
    context: int  # longest sequence of the model
    max_new_tokens: int  # generation budget

    def metadata(self) -> dict[str, Any]:
        """What a table's metadata records of the model."""
        tokenizer = folders.tokenizer_hash(self.chat.tokenizer)
        return {"tokenizer": tokenizer, "template": self.chat.settings.template, "context": self.context}

    @property
    def max_tokens(self) -> int:
        """Longest prompt with its response."""
        return min(self.chat.settings.max_tokens, self.context)

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt that leaves the generation its budget."""
        return min(self.chat.settings.max_prompt_tokens, self.max_tokens - self.max_new_tokens)

    def why_too_long(self, prompt: str, response: str) -> Reason:
        prompt_tokens, response_tokens = self.chat.token_counts(prompt, response)
        if prompt_tokens > self.max_prompt_tokens:
            return "prompt too long"
        return "answer too long" if prompt_tokens + response_tokens > self.max_tokens else None

    def truncate(self, prompt: str) -> str:
        """The longest end of a prompt that fits, the template whole; empty if the template alone is too long."""
        while prompt and (excess := len(self.chat.prompt_ids(prompt)) - self.max_prompt_tokens) > 0:
            ends = self.chat.tokenize_response(prompt)[1]
            # At least one character goes: a token of some bytes of a character may end where the text begins.
            prompt = prompt[max(1, ends[excess - 1]) if excess <= len(ends) else len(prompt) :]
        return prompt


def model_limits(
    models: Sequence[str], templates: Sequence[str], settings: Dialogue, max_new_tokens: int
) -> list[LengthLimits]:
    """The limits of the models in these folders, each with its own template."""
    limits = []
    for folder, template in zip(models, templates, strict=True):
        chat = ChatTokenizer(folders.load_tokenizer(folder), settings.model_copy(update={"template": template}))
        limits.append(LengthLimits(chat, folders.context_length(folder), max_new_tokens))
    return limits


def why_passed_over(record: Record, limits: Sequence[LengthLimits]) -> Reason:
    """Why a record is passed over; None if its prompt and every response fit every model."""
    if isinstance(record, str):
        return record
    prompt, *responses = record
    answers = [response for response in responses if response is not None]
    return next(filter(None, (model.why_too_long(prompt, answer) for model in limits for answer in answers)), None)


def truncate_prompt(record: Record, limits: Sequence[LengthLimits]) -> Record:
    """The record with its prompt truncated on the left until it fits every model."""
    if isinstance(record, str):
        return record
    prompt, before = record[0], None
    while prompt != before:  # truncation for one model can change the tokens of another
        before = prompt
        for model in limits:
            prompt = model.truncate(prompt)
    return (prompt, *record[1:])


def prompt_id(split: str, index: int) -> str:
    """A row's id in the whole study: its split and its index in the source at the pinned revision."""
    return f"{split}-{index:07d}"


@dataclass(frozen=True)
class Selection:
    """Rows drawn from a source: their indices in it, and a column for the prompts and for each response."""

    indices: list[int]
    columns: list[tuple[Any, ...]]
    metadata: dict[str, Any]  # how many rows were passed over, by reason, and how many prompts were truncated


def select(
    records: Sequence[Record], count: int, seed: int, limits: Sequence[LengthLimits], truncate: bool
) -> Selection:
    """Draw `count` rows that fit; `truncate` shortens prompts that are too long. Raises `StudyError` if too few fit."""

    def fitted(record: Record) -> Record:
        return truncate_prompt(record, limits) if truncate else record

    indices, passed_over = draw(records, count, seed, lambda record: why_passed_over(fitted(record), limits))
    selected = [fitted(records[i]) for i in indices]
    metadata = {"passed_over": passed_over}
    if truncate:
        metadata["cut"] = sum(records[i][0] != record[0] for i, record in zip(indices, selected, strict=True))
    return Selection(indices, list(zip(*selected, strict=True)), metadata)


def draw(
    records: Sequence[Any], count: int, seed: int, why_passed_over: Callable[[Any], Reason]
) -> tuple[list[int], Counter[str]]:
    """(`count` indices in a seeded random order, rows passed over by reason). Raises `StudyError` if too few fit."""
    indices, passed_over = [], Counter()
    for index in np.random.default_rng(seed).permutation(len(records)).tolist():
        if len(indices) == count:
            break
        reason = why_passed_over(records[index])
        if reason is None:
            indices.append(index)
        else:
            passed_over[reason] += 1
    if len(indices) < count:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(passed_over.items()))
        found = f"found {len(indices)} of {len(records)} ({reasons or 'none passed over'})"
        raise StudyError(f"data: expected {count} rows that fit, {found}; reduce the number of rows")
    return indices, passed_over
