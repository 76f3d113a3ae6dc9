"""Renders and tokenises conversations, for data, generation, scoring, training and evaluation alike.

A prompt is the template with the user's text in it. A response is its own tokens and, unless it was truncated, the
study's one EOS. Prompt and response are tokenised apart and joined: the ids that a model generates from are a prefix of
the ids it is trained on.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from wspin.config.stages import Dialogue
from wspin.errors import StudyError

from .rendering import Rendering, Template
from .reserved import free_mark, marked, marked_copy
from .token_ends import batch_ends

NO_TOKEN = "without a token for prompt or answer"  # a text that the tokenizer, or the chat template, leaves out
UNKNOWN = "with unknown characters"

TEXTS = 1000  # that are tokenised in one call

ANCHORS = ("\n", "a", ".")  # texts to put before a response, one of which ends at a token boundary


@dataclass(frozen=True)
class ChatTokenizer:
    """One template with one fast tokenizer of transformers: conversations to token ids and back.

    Raises `StudyError` if the template cannot be used with the tokenizer, or if the tokenizer draws its tokens.
    """

    tokenizer: Any
    settings: Dialogue

    def __post_init__(self) -> None:
        if dropout := getattr(self.tokenizer.backend_tokenizer.model, "dropout", None):
            place = f"{self.tokenizer.name_or_path}/tokenizer.json: model.dropout"
            found = f"found {dropout:.3g}, which draws a text's tokens; write null there"
            raise StudyError(f"{place}: expected none, {found}")
        _ = self.template

    @cached_property
    def template(self) -> Template:
        return Template(self.settings.template, self.tokenizer)

    @property
    def chat_template(self) -> str | None:
        """What models trained in this template carry for other programs; None: they have the tokenizer's own."""
        return self.template.chat_template(self.settings.eos)

    @cached_property
    def eos(self) -> int:
        """Id of the end-of-answer token. Raises `StudyError` if it is not an added token of the tokenizer."""
        token = self.settings.eos
        for i, added in self.tokenizer.added_tokens_decoder.items():
            if added.content == token:
                return i
        i = self.tokenizer.convert_tokens_to_ids(token)
        is_token = i is not None and self.tokenizer.convert_ids_to_tokens(i) == token
        found = f"{token!r}, which is {'a piece of ordinary text' if is_token else 'none'}"
        own = f"its own EOS is {self.tokenizer.eos_token!r}"
        raise StudyError(f"dialogue.eos: expected one token of the tokenizer, found {found}; {own}")

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Ids of all special tokens by their text, with a role (EOS, unknown, ...) or without."""
        added = {token.content: i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return added | dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))

    @cached_property
    def _reserved(self) -> dict[int, str]:
        """Tokens that no text of a user becomes, by id: the special ones, and EOS even if it is not special."""
        added = self.tokenizer.added_tokens_decoder.items()
        eos = {i: token.content for i, token in added if token.content == self.settings.eos}
        return eos | {i: token for token, i in self.special_tokens.items()}

    @cached_property
    def unknown(self) -> int | None:
        """Id of the token for characters that the vocabulary cannot spell; None if it spells them all."""
        model = self.tokenizer.backend_tokenizer.model
        token = getattr(model, "unk_token", self.tokenizer.unk_token)  # the model of a Unigram keeps it to itself
        return None if token is None else model.token_to_id(token)

    @cached_property
    def template_ids(self) -> list[int]:
        """Ids of the template around an empty prompt, and around any that leaves no trace."""
        return self.prompt_ids("")

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of the rendered prompt as the tokenizer itself encodes it, but for special tokens in the user's text.

        Those are tokenized as text, and everything around them as if they were not there. No BOS is added: a template
        that needs one contains it. Raises `StudyError` as `Template.render`.
        """
        return self.batch_prompt_ids([prompt])[0]

    def batch_prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """`prompt_ids` of each prompt."""
        rendered = [self.template.render(prompt) for prompt in prompts]
        texts = [rendering.text for rendering in rendered]
        encodings = self._encodings(texts, split_special_tokens=False, with_offsets=self._template_has_reserved)
        return list(map(self._prompt_ids, rendered, encodings))

    @cached_property
    def _template_has_reserved(self) -> bool:
        """Whether every prompt has reserved tokens, so that where they stand must be known."""
        text = self.template.render("").text
        return any(token in text for token in self._reserved.values())

    def _prompt_ids(self, rendered: Rendering, encoding: Any) -> list[int]:
        ids = encoding.ids
        if self._reserved.keys().isdisjoint(ids):
            return ids
        if not self._template_has_reserved:
            encoding = next(self._encodings([rendered.text], split_special_tokens=False))
        special = self._special_spans(encoding, rendered.text)
        in_prompt = any(end > rendered.begin and begin < rendered.end for begin, end, _ in special)
        return self._escaped_ids(rendered) if in_prompt else ids

    def _special_spans(self, encoding: Any, text: str) -> list[tuple[int, int, int]]:
        """(begin, end, id) of the reserved tokens of a text by their strings, in characters."""
        spans = []
        for position, token in enumerate(encoding.ids):
            if token in self._reserved:
                begin, end = _without_space(text, encoding.token_to_chars(position))
                if self._must_be_text(token, text[begin:end]):
                    spans.append((begin, end, token))
        return spans

    def _escaped_ids(self, rendered: Rendering) -> list[int]:
        """Ids of a rendered prompt in which only the template has special tokens.

        Which of its strings are special can depend on the characters beside them, so on those at the ends of the user's
        text. Raises `StudyError` if the two cannot be told apart.
        """
        text, (before, prompt, after) = rendered.text, rendered.parts
        ends = prompt[:1] + prompt[-1:]
        short = before + ends + after
        special = self._special_spans(next(self._encodings([short], split_special_tokens=False)), short)
        mark = free_mark(text)
        for begin, end, token in reversed(special):
            shift = 0 if end <= rendered.begin else len(prompt) - len(ends)
            text = text[: begin + shift] + marked(self._reserved[token], mark) + text[end + shift :]
        ids = self._copies(mark).encode(text, add_special_tokens=False).ids
        found = [i for i in ids if i in self._reserved and i != self.unknown]
        if found != [i for *_, i in special if i != self.unknown]:
            difference = f"expected its own special tokens alone, found others around the text {prompt[:40]!r}"
            raise StudyError(f"template {self.settings.template!r}: {difference}; leave its row out")
        return ids

    def response_ids(self, response: str) -> list[int]:
        """Ids of a complete response: its tokens and EOS."""
        return self.batch_response_ids([response])[0]

    def batch_response_ids(self, responses: Sequence[str]) -> list[list[int]]:
        """`response_ids` of each response."""
        return [[*ids, self.eos] for ids, _ in self.tokenize_responses(responses)]

    def generated_ids(self, ids: list[int], finish_reason: str) -> list[int]:
        """Ids of a generated response as trained on: a truncated one gets an EOS only with `eos_on_cut`."""
        return [*ids, self.eos] if finish_reason == "length" and self.settings.eos_on_cut else list(ids)

    def tokenize_response(self, response: str) -> tuple[list[int], list[int]]:
        """(ids, ends) of a response's text as it follows a prompt, without EOS; ends in characters of the text."""
        return self.tokenize_responses([response])[0]

    def tokenize_responses(self, responses: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """`tokenize_response` of each response.

        Sentencepiece-like tokenizers prepend a space to a text, which a response does not begin with. An anchor text
        before the response takes that space, provided that a token ends where the response begins.
        """
        anchors = (*ANCHORS, "") if self._prepends_space else ("",)
        encodings = self._encodings([anchors[0] + response for response in responses], split_special_tokens=True)
        return [self._response(*pair, anchors) for pair in zip(responses, encodings, strict=True)]

    def _response(self, response: str, encoding: Any, anchors: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """(ids, ends) of a response from its encoding behind the first of the anchors, or behind another."""
        encoding = self._plain(anchors[0] + response, encoding)
        for anchor in anchors:
            encoding = self._encode(anchor + response) if anchor != anchors[0] else encoding
            offsets = itertools.chain.from_iterable(encoding.offsets)
            spans = np.fromiter(offsets, np.int64).reshape(-1, 2) - len(anchor)
            skipped = np.count_nonzero(spans[:, 1] <= 0) if anchor else 0
            if skipped and spans[skipped - 1, 1] == 0 and (spans[skipped:, 0] >= 0).all():
                break
        return encoding.ids[skipped:], _monotone_ends(response, spans[skipped:])

    @cached_property
    def _prepends_space(self) -> bool:
        alone, after_newline = self.text_ids("a"), self.text_ids("\na")
        return len(alone) > 1 or alone != after_newline[-1:]

    def why_unread(self, prompt_ids: list[int], response: str, response_ids: list[int]) -> str | None:
        """Why the ids of a prompt or of a response, without EOS, stand for other texts; None if they do not."""
        if prompt_ids == self.template_ids or (response and not response_ids):
            return NO_TOKEN
        is_unknown = prompt_ids.count(self.unknown) > self.template_ids.count(self.unknown)
        return UNKNOWN if is_unknown or self.unknown in response_ids else None

    def decode_response(self, ids: list[int]) -> str:
        """Text of a response, without its final EOS."""
        return self._decode_batch([self._without_eos(ids)])[0]

    def token_ends(self, ids: list[int]) -> list[int]:
        """End of each token in `decode_response(ids)`, in characters."""
        return self.batch_token_ends([ids])[0]

    def batch_token_ends(self, answers: Sequence[list[int]], lengths: Sequence[int] | None = None) -> list[list[int]]:
        """`token_ends` of each answer; a final EOS ends where the text does.

        `lengths`: of the answers' texts, in characters, where these are known, so that they need not be decoded.
        """
        bodies = [self._without_eos(ids) for ids in answers]
        totals = lengths if lengths is not None else map(len, self._decode_batch(bodies))
        batch = zip(answers, bodies, batch_ends(bodies, totals, self._decode_batch), strict=True)
        return [ends + (ends[-1:] or [0]) * (len(ids) - len(body)) for ids, body, ends in batch]

    def _without_eos(self, ids: list[int]) -> list[int]:
        return ids[:-1] if len(ids) and ids[-1] == self.eos else ids

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        return self._encode(text).ids

    def _encode(self, text: str) -> Any:
        """The tokenizer's encoding of a text, in which the strings of reserved tokens are plain text."""
        return self._plain(text, next(self._encodings([text], split_special_tokens=True)))

    def _plain(self, text: str, encoding: Any) -> Any:
        """The encoding, or another one without reserved tokens, where the vocabulary itself holds their strings."""
        reserved = self._reserved.keys() & encoding.ids
        if any(self._must_be_text(token, text) for token in reserved):
            return self._copies(free_mark(text)).encode(text, add_special_tokens=False)
        return encoding

    def _encodings(self, texts: list[str], split_special_tokens: bool, with_offsets: bool = True) -> Iterator[Any]:
        """The tokenizer's encodings of texts, some at a time: each holds far more than its ids.

        As the tokenizer itself makes them, which would copy every list of ids into another.
        """
        backend = self.tokenizer.backend_tokenizer
        encode = backend.encode_batch if with_offsets else backend.encode_batch_fast
        for start in range(0, len(texts), TEXTS):
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = split_special_tokens
            yield from encode(texts[start : start + TEXTS], add_special_tokens=False)

    def _must_be_text(self, token: int, text: str) -> bool:
        """Whether a reserved token that stands for `text` is its string; else it stands for unknown characters."""
        return token != self.unknown or self._reserved[token] in text

    @cached_property
    def _copies(self) -> Callable[[str], Any]:
        """By mark: a copy of the tokenizer that finds reserved tokens by marked strings only."""
        backend, tokens = self.tokenizer.backend_tokenizer, list(self._reserved.values())
        return cache(lambda mark: marked_copy(backend, tokens, mark))

    def _decode_batch(self, answers: list[list[int]]) -> list[str]:
        return self.tokenizer.backend_tokenizer.decode_batch(answers, skip_special_tokens=False)


def _without_space(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """A token's span without white space, which a special token takes along if it strips it."""
    begin, end = span
    covered = text[begin:end]
    return begin + len(covered) - len(covered.lstrip()), end - len(covered) + len(covered.rstrip())


def _monotone_ends(text: str, spans: np.ndarray) -> list[int]:
    """Non-decreasing token ends from the tokenizer's (begin, end) offsets.

    Characters that no token covers, such as marks that normalisation composed into the letter before them, belong to
    the token before them; dropped white space belongs to the token after it.
    """
    ends = spans[:, 1].copy()
    next_begins = np.append(spans[1:, 0], len(text))[: len(ends)]
    for i in np.flatnonzero((ends > 0) & (ends < next_begins)).tolist():
        while ends[i] < next_begins[i] and not text[ends[i]].isspace():
            ends[i] += 1
    return np.maximum.accumulate(ends).tolist()
