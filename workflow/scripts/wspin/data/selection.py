"""Selects the study's rows: drawn once by the seed. Rows that do not fit every model are dropped here, never later."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wspin.config.stages import Dialogue
from wspin.errors import StudyError
from wspin.models import folders
from wspin.progress import progress_printer
from wspin.templates import MARKERS, is_rendered

from .chat import UNKNOWN, ChatTokenizer
from .records import SEVERAL_TURNS, SYSTEM, Record

Reason = str | None  # why a record is passed over; None if it is not
Check = Callable[["LengthLimits", str, str], Reason]  # of a model, a prompt and a response

RENDERED = "with a template in the prompt"
ENDED = "with a special token at the end of an answer"
DUPLICATE = "duplicate"
IN_TRAINING = "with a prompt of the training split"

REMEDIES = {  # for a source whose rows are mostly passed over for this reason
    RENDERED: 'write "{prompt}" as template of the models, or remove the template from the prompts',
    ENDED: "remove it from the answers: every answer gets its end later",
    SYSTEM: "templates have no place for it; write it into the prompts, or remove it",
    SEVERAL_TURNS: "choose a source of answers to first turns",
    IN_TRAINING: "choose another split",
    UNKNOWN: "take a model whose tokenizer spells them, or remove them from the texts",
}


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

    @cached_property
    def markers(self) -> list[tuple[str, str]]:
        """Beginnings and ends of templates in which a prompt must not stand yet; none if this one opens no answer."""
        before, after = self.chat.template.before.strip(), self.chat.template.after.strip()
        return [*MARKERS, *([(before, after)] if before and len(after) > 1 else [])] if after else []

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts that end no answer: the study's EOS and the model's special tokens."""
        return (self.chat.settings.eos, *filter(str.strip, self.chat.special_tokens))

    def why_marked(self, prompt: str, response: str) -> Reason:
        """Why the texts would get a second template or end."""
        if is_rendered(prompt, self.markers):
            return RENDERED
        return ENDED if response.rstrip().endswith(self.special_tokens) else None

    def why_unfit(self, prompt: str, response: str) -> Reason:
        """Why a conversation does not fit the model; its EOS is counted, which the tokenizer need not have."""
        prompt_ids, response_ids = self.chat.prompt_ids(prompt), self.chat.tokenize_response(response)[0]
        if len(prompt_ids) > self.max_prompt_tokens:
            return "prompt too long"
        if len(prompt_ids) + len(response_ids) + 1 > self.max_tokens:
            return "answer too long"
        return self.chat.why_unread(prompt_ids, response, response_ids)

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
        folders.verify_tokenizer(folder)
        chat = ChatTokenizer(folders.load_tokenizer(folder), settings.model_copy(update={"template": template}))
        limits.append(LengthLimits(chat, folders.context_length(folder), max_new_tokens))
    return limits


CHECKS = (LengthLimits.why_marked, LengthLimits.why_unfit)


def why_passed_over(record: Record, limits: Sequence[LengthLimits], checks: Sequence[Check] = CHECKS) -> Reason:
    """Why a record is passed over; None if its prompt and every response fit every model."""
    if isinstance(record, str):
        return record
    prompt, *responses = record
    answers = [response for response in responses if response is not None]
    reasons = (check(model, prompt, answer) for check in checks for model in limits for answer in answers)
    return next(filter(None, reasons), None)


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
    passed_over: Counter[str]  # by reason
    truncated: int | None = None  # prompts; None if none may be

    @property
    def repeated(self) -> int:
        """Rows whose prompt an earlier row has with another answer."""
        return len(self.indices) - len(set(self.columns[0]))

    @property
    def metadata(self) -> dict[str, Any]:
        """What the table's metadata records of the selection."""
        truncated = {} if self.truncated is None else {"cut": self.truncated}
        return {"passed_over": self.passed_over, **truncated, **({"repeated": self.repeated} if self.repeated else {})}

    def __str__(self) -> str:
        truncated = "" if self.truncated is None else f"; {self.truncated} prompts truncated on the left"
        repeated = f"; {self.repeated} prompts repeated with another answer" if self.repeated else ""
        return f"passed over: {_listed(self.passed_over)}{truncated}{repeated}"


def select(
    records: Sequence[Record],
    count: int,
    seed: int,
    limits: Sequence[LengthLimits],
    truncate: bool,
    excluded: Collection[str] = (),
) -> Selection:
    """Draw `count` rows that fit, equal rows once; `truncate` shortens prompts that are too long.

    `excluded`: prompts that no drawn row may have. Raises `StudyError` if too few rows fit.
    """
    drawn: dict[Record, None] = {}  # in the order of their indices

    def fitted(record: Record) -> Record:
        return truncate_prompt(record, limits) if truncate else record

    def reason(record: Record) -> Reason:
        if why := why_passed_over(record, limits, (LengthLimits.why_marked,)):  # truncation may remove a template
            return why
        if record[0] in excluded:
            return IN_TRAINING
        record = fitted(record)
        if record in drawn:
            return DUPLICATE
        if (why := why_passed_over(record, limits)) is None:
            drawn[record] = None
        return why

    indices, passed_over = draw(records, count, seed, reason)
    pairs = zip(indices, drawn, strict=True)
    truncated = sum(records[i][0] != record[0] for i, record in pairs) if truncate else None
    return Selection(indices, list(zip(*drawn, strict=True)), passed_over, truncated)


def draw(
    records: Sequence[Any], count: int, seed: int, why_passed_over: Callable[[Any], Reason]
) -> tuple[list[int], Counter[str]]:
    """(`count` indices in a seeded random order, rows passed over by reason). Raises `StudyError` if too few fit."""
    indices, passed_over = [], Counter()
    print_progress = progress_printer("data", count, "rows")
    for index in np.random.default_rng(seed).permutation(len(records)).tolist():
        if len(indices) == count:
            break
        reason = why_passed_over(records[index])
        if reason is None:
            indices.append(index)
            print_progress(len(indices))
        else:
            passed_over[reason] += 1
    if len(indices) < count:
        listed = _listed(passed_over) if passed_over else "none passed over"
        remedies = ["reduce the number of rows"] if indices else []
        remedies += [REMEDIES[reason] for reason, _ in passed_over.most_common(1) if reason in REMEDIES]
        found = f"found {len(indices)} of {len(records)} ({listed}); {' or '.join(remedies) or 'choose other rows'}"
        raise StudyError(f"data: expected {count} rows that fit, {found}")
    return indices, passed_over


def _listed(passed_over: Counter[str]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in sorted(passed_over.items())) or "none"
