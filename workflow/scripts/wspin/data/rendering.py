"""Puts a user's text into a template of the study, or into the chat template of a model's tokenizer."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from wspin.errors import StudyError, first_line
from wspin.models import folders, offline
from wspin.storage import tables
from wspin.templates import CHAT, TEMPLATES, known_templates

PLACE = "{prompt}"
# The study trains on one turn of a user; further turns follow in the same way, with BOS before the first alone. What
# stands before an answer belongs to the user's turn, so `add_generation_prompt` changes nothing.
TURNS = """\
{{- bos }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{{- before + message['content'] + after }}
{%- elif message['role'] == 'assistant' %}
{{- message['content'] + eos }}
{%- else %}
{{- raise_exception('expected turns of user and assistant, found one of ' + message['role']) }}
{%- endif %}
{%- endfor %}"""
REMEDY = f"write the template's text out in the config, with {PLACE} in it"


class Rendering(NamedTuple):
    """A rendered prompt, and where the user's text begins and ends in it, in characters."""

    text: str
    begin: int
    end: int

    @property
    def parts(self) -> tuple[str, str, str]:
        """The text before the user's, the user's, and the text behind it."""
        return self.text[: self.begin], self.text[self.begin : self.end], self.text[self.end :]


class Template:
    """A template: the same text around every prompt.

    `name`: a name of `TEMPLATES`, a text with {prompt} once, or `chat`, which needs the model's tokenizer. Raises
    `StudyError` if there is no such template, or if the tokenizer's chat template cannot be used.
    """

    def __init__(self, name: str, tokenizer: Any = None):
        self.name, self.tokenizer = name, tokenizer
        if name == CHAT:
            self._check_source()
        text = self._rendered(PLACE)
        if (count := text.count(PLACE)) != 1:
            if name == CHAT:
                raise self._unusable("that holds the prompt once", f"it {count} times")
            raise StudyError(f"template {name!r}: expected {known_templates()}")
        self.before, self.after = text.split(PLACE)
        if name == CHAT:
            self._check_bos()

    def render(self, prompt: str) -> Rendering:
        """The text of a prompt. A chat template may trim the user's text, as the model was trained.

        Raises `StudyError` if a chat template changes with the user's text, which then could not be found in it.
        """
        text, words = self._rendered(prompt), prompt.strip()
        if not words and self.name == CHAT:  # all of it is the template's, which may trim its own spaces with the text
            return Rendering(text, len(text), len(text))
        begin, end = len(self.before), len(text) - len(self.after)
        if not (text.startswith(self.before) and text.endswith(self.after) and begin <= end):
            raise self._unusable("with the same text around every prompt", f"other text around {prompt[:40]!r}")
        if words and text.count(words, begin, end) == 1:  # what a template adds to it for some prompts is its own
            begin = text.index(words, begin, end)
            end = begin + len(words)
        return Rendering(text, begin, end)

    def chat_template(self, eos: str) -> str | None:
        """The template in Jinja, for other programs, with `eos` behind an answer; None for the tokenizer's own."""
        if self.name == CHAT:
            return None
        bos = self.tokenizer.bos_token or ""
        bos = bos if self.before.startswith(bos) else ""
        texts = {"bos": bos, "before": self.before.removeprefix(bos), "after": self.after, "eos": eos}
        lines = [f"{{%- set {name} = {json.dumps(text, ensure_ascii=False)} %}}\n" for name, text in texts.items()]
        return "".join(lines) + TURNS

    def _rendered(self, prompt: str) -> str:
        if self.name != CHAT:
            return TEMPLATES.get(self.name, self.name).replace(PLACE, prompt)
        turn = {"role": "user", "content": prompt}
        try:
            text = self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
            text.encode()  # a lone surrogate is no text that a tokenizer reads
            return text
        except Exception as error:  # of Jinja, or of what the template computes
            found = f"{type(error).__name__}: {first_line(error)}"
            raise self._unusable("that renders one turn of a user", found) from None

    def _check_source(self) -> None:
        """Refuse a tokenizer without a chat template of its own, and one whose prompts change from day to day."""
        source = getattr(self.tokenizer, "chat_template", None)
        if isinstance(source, dict):
            if "default" not in source:
                raise self._unusable("named default", ", ".join(sorted(source)))
            source = source["default"]
        if not source:
            raise self._unusable("of the model's tokenizer", "none")
        if "strftime_now" in source:
            raise self._unusable("without the date", "strftime_now")

    def _check_bos(self) -> None:
        """Refuse a chat template that leaves BOS to the tokenizer, which adds none to rendered text, or repeats it."""
        bos, text = self.tokenizer.bos_token_id, self.before + self.after
        if bos is None:
            return
        begins = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"][:2]
        if begins == [bos, bos]:
            raise self._unusable("that begins with one BOS", f"{self.tokenizer.bos_token} twice")
        if begins[:1] != [bos] and self.tokenizer("a")["input_ids"][:1] == [bos]:
            found = f"{self.tokenizer.bos_token}, which the tokenizer puts before a text, missing"
            raise self._unusable("that begins with BOS", found)

    def _unusable(self, expected: str, found: str) -> StudyError:
        folder = getattr(self.tokenizer, "name_or_path", "")
        place = f"{folder}: " if folder else ""
        return StudyError(f"{place}template {CHAT!r}: expected a chat template {expected}, found {found}; {REMEDY}")


def renderer(model: str, generations: str) -> Callable[[str], str]:
    """Puts a prompt in the template that the model in a folder saw when it generated the answers of a file.

    Raises `StudyError` if another model generated them.
    """
    offline.import_transformers_offline()
    tokenizer, answers = folders.load_tokenizer(model), tables.read(generations, "generations")
    metadata = tables.metadata(answers, "tokenizer", "template")
    if folders.tokenizer_hash(tokenizer) != metadata["tokenizer"]:
        expected = f"{model}: expected the model that generated {generations}"
        raise StudyError(f"{expected}, found one with another tokenizer; name its folder")
    template = Template(metadata["template"], tokenizer)
    return lambda prompt: template.render(prompt).text
