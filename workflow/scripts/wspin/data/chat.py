"""The one place that renders and tokenises a conversation: data, generation, scoring, training and evaluation call it.

A prompt is the template with the user's text in it; an answer is its own tokens and, if it ended by itself, the study's
one EOS. They are tokenised apart and joined, so the ids that a model answers are a prefix of those it trains on.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wspin.config.stages import Dialogue as Settings
from wspin.errors import StudyError
from wspin.templates import CHAT, TEMPLATES, known_templates


def render(template: str, prompt: str, tokenizer: Any = None) -> str:
    """The text a model reads before it answers.

    `template`: a name of `TEMPLATES`, a text with {prompt} once, or `chat`, for which the model's tokenizer is needed.
    """
    return template_text(template, tokenizer).replace("{prompt}", prompt)


def template_text(template: str, tokenizer: Any = None) -> str:
    """A template with {prompt} where the user's text goes. Raises `StudyError` if there is no such template."""
    text = _chat(tokenizer) if template == CHAT else TEMPLATES.get(template, template)
    if text.count("{prompt}") != 1:
        raise StudyError(f"template {template!r}: expected {known_templates()}")
    return text


def _chat(tokenizer: Any) -> str:
    """The tokenizer's chat template around one user turn; the user's text is never trimmed, whatever the template does.

    Raises `StudyError` if the tokenizer has none, or one that tells the date: it would not be the same tomorrow.
    """
    written = "write the template's text out in the config, with {prompt} in it"
    source = getattr(tokenizer, "chat_template", None)
    if not isinstance(source, str):
        raise StudyError(f"template {CHAT!r}: expected a tokenizer with one chat template, found none; {written}")
    if "strftime_now" in source:
        raise StudyError(f"template {CHAT!r}: the tokenizer's template reads the clock; {written}")
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": "{prompt}"}], tokenize=False, add_generation_prompt=True
    )


ANCHORS = ("\n", "a", ".")  # may stand before an answer that is tokenised: one of them is cut off cleanly


@dataclass(frozen=True)
class ChatTokenizer:
    """Conversations in one template and one tokenizer (a fast tokenizer of transformers)."""

    tokenizer: Any
    settings: Settings

    @cached_property
    def eos(self) -> int:
        """Id of the end-of-answer token. Raises `StudyError` if the tokenizer does not hold it as one token."""
        token = self.settings.eos
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or self.tokenizer.convert_ids_to_tokens(found) != token:
            raise StudyError(f"dialogue.eos: expected one token of the tokenizer, found {token!r}, which is none")
        return found

    @cached_property
    def special(self) -> dict[str, int]:
        """Ids of all special tokens, those with a role (EOS, unknown, ...) and those without."""
        added = {one.content: i for i, one in self.tokenizer.added_tokens_decoder.items() if one.special}
        return added | dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))

    @cached_property
    def _pieces(self) -> list[str]:
        """The template cut at its own special tokens: only those may become special, never the user's text."""
        special = sorted(self.special, key=len, reverse=True)
        cut = "|".join(map(re.escape, special)) or r"(?!)"
        return [piece for piece in re.split(f"({cut})", template_text(self.settings.template, self.tokenizer)) if piece]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of the rendered prompt; no BOS is added, a template that wants one spells it out."""
        ids = []
        for piece in self._pieces:
            if piece in self.special:
                ids.append(self.special[piece])
            else:
                ids += self._plain(piece.replace("{prompt}", prompt))
        return ids

    def response_ids(self, response: str) -> list[int]:
        """Ids of a real answer, which always ended by itself: its tokens and EOS."""
        return [*self.continued(response)[0], self.eos]

    def continued(self, response: str) -> tuple[list[int], list[int]]:
        """(ids, ends) of an answer's text as it follows a prompt; ends of tokens in the text itself, in characters.

        Sentencepiece-like tokenizers put a blank before a text, which no answer begins with: something before it takes
        the blank, if a token ends there.
        """
        for anchor in (*ANCHORS, "") if self._prepends else ("",):
            encoded = self._encode(anchor + response, return_offsets_mapping=True)
            spans = [(begin - len(anchor), end - len(anchor)) for begin, end in encoded["offset_mapping"]]
            before = sum(end <= 0 for _, end in spans) if anchor else 0
            if before and spans[before - 1][1] == 0 and all(begin >= 0 for begin, _ in spans[before:]):
                break
        return encoded["input_ids"][before:], _ends(response, spans[before:])

    @cached_property
    def _prepends(self) -> bool:
        """Whether the tokenizer puts a blank before a text."""
        alone, after = self._plain("a"), self._plain("\na")
        return len(alone) > 1 or alone != after[-1:]

    def lengths(self, prompt: str, response: str) -> tuple[int, int]:
        """Tokens of a prompt and of its answer with EOS, in a tokenizer that need not hold the study's EOS."""
        return len(self.prompt_ids(prompt)), len(self.continued(response)[0]) + 1

    def completed(self, ids: list[int], finish_reason: str) -> list[int]:
        """Ids of a generated answer as it is trained on: cut answers have no EOS unless `eos_on_cut` asks for one."""
        cut = finish_reason == "length" and self.settings.eos_on_cut
        return [*ids, self.eos] if cut else list(ids)

    def text(self, ids: list[int]) -> str:
        """Text of an answer, without its closing EOS."""
        ids = ids[:-1] if len(ids) and ids[-1] == self.eos else ids
        return self._decode(ids)

    def ends(self, ids: list[int]) -> list[int]:
        """End of each token in `text(ids)`, in characters.

        Tokens that hold some bytes of one character share its end; the closing EOS ends where the text does. Decoding
        goes window by window, because a token's text can depend on the one before it.
        """
        body = ids[:-1] if len(ids) and ids[-1] == self.eos else ids
        ends: list[int] = []
        done, window, fresh = 0, 0, 0
        for i in range(len(body)):
            before, now = self._decode(body[window:fresh]), self._decode(body[window : i + 1])
            if now.endswith("\ufffd") and i + 1 < len(body):
                continue  # inside a character
            done += len(now) - len(before)
            ends += [done] * (i + 1 - len(ends))
            window, fresh = fresh, i + 1
        if done != (whole := len(self._decode(body))):  # bytes that are no text can change what stands before them
            ends = [min(len(self._decode(body[: i + 1])), whole) for i in range(len(body) - 1)]
            ends, done = [*itertools.accumulate(ends, max), whole], whole
        return ends + [done] * (len(ids) - len(body))

    def _plain(self, text: str) -> list[int]:
        return self._encode(text)["input_ids"]

    def _encode(self, text: str, **options: bool) -> Any:
        """Tokens of a text in which strings of special tokens stay text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, **options)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _ends(text: str, spans: list[tuple[int, int]]) -> list[int]:
    """Where tokens end, given the (begin, end) that the tokenizer tells; never falling.

    What no token claims, marks and letters that normalisation has put into the one before them, belongs to the token
    before it; white space that was dropped belongs to the one behind it.
    """
    begins = [*(begin for begin, _ in spans[1:]), len(text)][: len(spans)]
    ends = []
    for (_, end), following in zip(spans, begins, strict=True):
        while 0 < end < following and not text[end].isspace():
            end += 1
        ends.append(end)
    return list(itertools.accumulate(ends, max))
