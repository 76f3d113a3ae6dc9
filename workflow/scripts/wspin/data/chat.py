"""Renders and tokenises conversations, for data, generation, scoring, training and evaluation alike.

A prompt is the template with the user's text in it. A response is its own tokens and, unless it was truncated, the
study's one EOS. Prompt and response are tokenised apart and joined: the ids that a model generates from are a prefix of
the ids it is trained on.
"""

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wspin.config.stages import Dialogue
from wspin.errors import StudyError
from wspin.templates import CHAT, TEMPLATES, known_templates


def render(template: str, prompt: str, tokenizer: Any = None) -> str:
    """The text of a prompt, template included.

    `template`: a name of `TEMPLATES`, a text with {prompt} once, or `chat`, which needs the model's tokenizer.
    """
    return template_text(template, tokenizer).replace("{prompt}", prompt)


def template_text(template: str, tokenizer: Any = None) -> str:
    """A template with {prompt} in place of the user's text. Raises `StudyError` if there is no such template."""
    text = _chat_template(tokenizer) if template == CHAT else TEMPLATES.get(template, template)
    if text.count("{prompt}") != 1:
        raise StudyError(f"template {template!r}: expected {known_templates()}")
    return text


def _chat_template(tokenizer: Any) -> str:
    """The tokenizer's chat template around one user turn. It is rendered without the user's text, which some trim.

    Raises `StudyError` if the tokenizer has none, or one that contains the date and so would change from day to day.
    """
    remedy = "write the template's text out in the config, with {prompt} in it"
    source = getattr(tokenizer, "chat_template", None)
    if not isinstance(source, str):
        raise StudyError(f"template {CHAT!r}: expected a tokenizer with one chat template, found none; {remedy}")
    if "strftime_now" in source:
        raise StudyError(f"template {CHAT!r}: expected a template without the date, found strftime_now; {remedy}")
    turn = {"role": "user", "content": "{prompt}"}
    return tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)


ANCHORS = ("\n", "a", ".")  # texts to put before a response, one of which ends at a token boundary


@dataclass(frozen=True)
class ChatTokenizer:
    """One template with one fast tokenizer of transformers: conversations to token ids and back."""

    tokenizer: Any
    settings: Dialogue

    @cached_property
    def eos(self) -> int:
        """Id of the end-of-answer token. Raises `StudyError` if it is not a single token of the tokenizer."""
        token = self.settings.eos
        eos = self.tokenizer.convert_tokens_to_ids(token)
        if eos is None or self.tokenizer.convert_ids_to_tokens(eos) != token:
            raise StudyError(f"dialogue.eos: expected one token of the tokenizer, found {token!r}, which is none")
        return eos

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Ids of all special tokens by their text, with a role (EOS, unknown, ...) or without."""
        added = {token.content: i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return added | dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))

    @cached_property
    def _template_pieces(self) -> list[str]:
        """The template split at its special tokens: only these become special tokens, never the user's text."""
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        pieces = re.split(f"({pattern})", template_text(self.settings.template, self.tokenizer))
        return [piece for piece in pieces if piece]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of the rendered prompt. No BOS is added: a template that needs one contains it."""
        ids = []
        for piece in self._template_pieces:
            is_special = piece in self.special_tokens
            ids += [self.special_tokens[piece]] if is_special else self._text_ids(piece.replace("{prompt}", prompt))
        return ids

    def response_ids(self, response: str) -> list[int]:
        """Ids of a complete response: its tokens and EOS."""
        return [*self.tokenize_response(response)[0], self.eos]

    def generated_ids(self, ids: list[int], finish_reason: str) -> list[int]:
        """Ids of a generated response as trained on: a truncated one gets an EOS only with `eos_on_cut`."""
        return [*ids, self.eos] if finish_reason == "length" and self.settings.eos_on_cut else list(ids)

    def tokenize_response(self, response: str) -> tuple[list[int], list[int]]:
        """(ids, ends) of a response's text as it follows a prompt, without EOS; token ends in characters of the text.

        Sentencepiece-like tokenizers prepend a space to a text, which a response does not begin with. An anchor text
        before the response takes that space, provided that a token ends where the response begins.
        """
        for anchor in (*ANCHORS, "") if self._prepends_space else ("",):
            encoding = self._encode(anchor + response, return_offsets_mapping=True)
            spans = [(begin - len(anchor), end - len(anchor)) for begin, end in encoding["offset_mapping"]]
            skipped = sum(end <= 0 for _, end in spans) if anchor else 0
            if skipped and spans[skipped - 1][1] == 0 and all(begin >= 0 for begin, _ in spans[skipped:]):
                break
        return encoding["input_ids"][skipped:], _monotone_ends(response, spans[skipped:])

    @cached_property
    def _prepends_space(self) -> bool:
        alone, after_newline = self._text_ids("a"), self._text_ids("\na")
        return len(alone) > 1 or alone != after_newline[-1:]

    def token_counts(self, prompt: str, response: str) -> tuple[int, int]:
        """Tokens of the rendered prompt, and of the response with EOS, which the tokenizer need not have."""
        return len(self.prompt_ids(prompt)), len(self.tokenize_response(response)[0]) + 1

    def decode_response(self, ids: list[int]) -> str:
        """Text of a response, without its final EOS."""
        return self._decode(self._without_eos(ids))

    def token_ends(self, ids: list[int]) -> list[int]:
        """End of each token in `decode_response(ids)`, in characters.

        Tokens that hold bytes of one character share its end; a final EOS ends where the text does. Ids are decoded
        from the last complete character but one, because a token's text can depend on the token before it.
        """
        body = self._without_eos(ids)
        ends: list[int] = []
        length, window, complete = 0, 0, 0
        for i in range(len(body)):
            before, after = self._decode(body[window:complete]), self._decode(body[window : i + 1])
            if after.endswith("\ufffd") and i + 1 < len(body):
                continue  # inside a character
            length += len(after) - len(before)
            ends += [length] * (i + 1 - len(ends))
            window, complete = complete, i + 1
        if length != (total := len(self._decode(body))):  # invalid bytes can change the text before them
            ends = [min(len(self._decode(body[: i + 1])), total) for i in range(len(body) - 1)]
            ends, length = [*itertools.accumulate(ends, max), total], total
        return ends + [length] * (len(ids) - len(body))

    def _without_eos(self, ids: list[int]) -> list[int]:
        return ids[:-1] if len(ids) and ids[-1] == self.eos else ids

    def _text_ids(self, text: str) -> list[int]:
        return self._encode(text)["input_ids"]

    def _encode(self, text: str, **options: bool) -> Any:
        """The tokenizer's encoding of a text, in which the strings of special tokens are plain text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, **options)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _monotone_ends(text: str, spans: list[tuple[int, int]]) -> list[int]:
    """Non-decreasing token ends from the tokenizer's (begin, end) offsets.

    Characters that no token covers, such as marks that normalisation composed into the letter before them, belong to
    the token before them; dropped white space belongs to the token after it.
    """
    next_begins = [*(begin for begin, _ in spans[1:]), len(text)][: len(spans)]
    ends = []
    for (_, end), next_begin in zip(spans, next_begins, strict=True):
        while 0 < end < next_begin and not text[end].isspace():
            end += 1
        ends.append(end)
    return list(itertools.accumulate(ends, max))
