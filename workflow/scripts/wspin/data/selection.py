"""Which rows the study holds: drawn once by the seed, dropped here if they fit no model, and never dropped later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wspin.config.stages import Dialogue as Settings
from wspin.errors import StudyError
from wspin.models import folders

from .chat import ChatTokenizer

Reason = str | None


@dataclass(frozen=True)
class Fit:
    """The room that one model gives to a conversation."""

    dialogue: ChatTokenizer
    context: int  # longest sequence of the model, tokens
    max_new_tokens: int  # generation budget

    def described(self) -> dict[str, Any]:
        """What a table's metadata keeps of it."""
        tokenizer = folders.tokenizer_hash(self.dialogue.tokenizer)
        return {"tokenizer": tokenizer, "template": self.dialogue.settings.template, "context": self.context}

    @property
    def room(self) -> int:
        """Longest prompt with its answer, tokens."""
        return min(self.dialogue.settings.max_tokens, self.context)

    @property
    def prompt_room(self) -> int:
        """Longest prompt, tokens: one after which the generation has its budget."""
        return min(self.dialogue.settings.max_prompt_tokens, self.room - self.max_new_tokens)

    def refuses(self, prompt: str, response: str) -> Reason:
        """Why a conversation does not fit; None if it does."""
        asked, answered = self.dialogue.token_counts(prompt, response)
        if asked > self.prompt_room:
            return "prompt too long"
        return "answer too long" if asked + answered > self.room else None

    def cut(self, prompt: str) -> str:
        """The longest end of a prompt that fits, the template whole; empty if the template alone is too long."""
        while prompt and (over := len(self.dialogue.prompt_ids(prompt)) - self.prompt_room) > 0:
            ends = self.dialogue.tokenize_response(prompt)[1]
            # A token's end may lie inside what the text is (bytes of one character): something goes in any case.
            prompt = prompt[max(1, ends[over - 1]) if over <= len(ends) else len(prompt) :]
        return prompt


def fits(models: Sequence[str], templates: Sequence[str], settings: Settings, max_new_tokens: int) -> list[Fit]:
    """The rooms of the models of `data.fits`, each seeing a prompt in its own template."""
    made = []
    for folder, template in zip(models, templates, strict=True):
        dialogue = ChatTokenizer(folders.load_tokenizer(folder), settings.model_copy(update={"template": template}))
        made.append(Fit(dialogue, folders.context(folder), max_new_tokens))
    return made


def judge(row: Sequence[str | None] | None, rooms: Sequence[Fit]) -> Reason:
    """Why (prompt, answer, ...) is passed over; None if every model has room for every answer."""
    if row is None:
        return "without prompt or answer"
    prompt, *answers = row
    reasons = (room.refuses(prompt, answer) for room in rooms for answer in answers if answer is not None)
    return next((reason for reason in reasons if reason), None)


def cut(row: Sequence[str | None] | None, rooms: Sequence[Fit]) -> Sequence[str | None] | None:
    """The row with its prompt cut on the left until every model has room for it; None for none."""
    if row is None:
        return None
    prompt, before = row[0], None
    while prompt != before:  # one model's cut can make another one's tokens fall otherwise
        before = prompt
        for room in rooms:
            prompt = room.cut(prompt)
    return (prompt, *row[1:])


def prompt_id(split: str, index: int) -> str:
    """A row's name for the whole study: its split and its place in the source at the pinned revision."""
    return f"{split}-{index:07d}"


def choose(
    rows: Sequence[Any], count: int, seed: int, rooms: Sequence[Fit], shorten: bool
) -> tuple[list[int], list[tuple[Any, ...]], dict[str, Any]]:
    """(indices, columns, what metadata keeps) of `count` rows that fit, drawn by the seed; `shorten` cuts prompts.

    Raises `StudyError` if the rows run out.
    """

    def fitted(row: Any) -> Any:
        return cut(row, rooms) if shorten else row

    kept, passed_over = draw(rows, count, seed, lambda row: judge(fitted(row), rooms))
    chosen = [fitted(rows[i]) for i in kept]
    told: dict[str, Any] = {"passed_over": passed_over}
    if shorten:
        told["cut"] = sum(rows[i][0] != row[0] for i, row in zip(kept, chosen, strict=True))
    return kept, list(zip(*chosen, strict=True)), told


def draw(rows: Sequence[Any], count: int, seed: int, judge: Callable[[Any], Reason]) -> tuple[list[int], Counter[str]]:
    """Indices of `count` rows in a seeded random order, and how many were passed over for each reason.

    Raises `StudyError` if the rows run out.
    """
    kept: list[int] = []
    passed_over: Counter[str] = Counter()
    for index in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if len(kept) == count:
            break
        reason = judge(rows[index])
        if reason is None:
            kept.append(index)
        else:
            passed_over[reason] += 1
    if len(kept) < count:
        why = ", ".join(f"{number} {reason}" for reason, number in sorted(passed_over.items())) or "none passed over"
        raise StudyError(
            f"data: expected {count} rows that fit, found {len(kept)} of {len(rows)} ({why}); ask for fewer rows"
        )
    return kept, passed_over
