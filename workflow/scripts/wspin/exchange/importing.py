"""Pairs to import: each once, without what another code has added to its texts for a model."""

import re
from collections.abc import Sequence
from dataclasses import replace

from wspin.errors import StudyError
from wspin.templates import is_rendered

from . import jsonl
from .jsonl import Pair

END = re.compile(r"(</s>|<eos>|<end_of_turn>|<\|[^|<>\s]+\|>)\s*\Z")  # texts of the tokens that end published answers
ANSWERS = ("chosen", "rejected")


def read_pairs(paths: Sequence[str], form: str, rendered: bool, eos: str | None) -> tuple[list[Pair], str]:
    """The first pair of each prompt and real answer in some files, and a text with the numbers of what was changed.

    `rendered`: prompts may stand in a template; `eos`: text that is removed from the ends of answers, with the white
    space behind it. Raises `StudyError` if there is no pair, if a prompt stands in a template otherwise, or if an
    answer then ends in the text of a token.
    """
    pairs = [pair for path in paths for pair in jsonl.read(path, form)]
    if not pairs:
        raise StudyError(f"{paths[0]}: expected pairs, found none; copy the file again")
    in_template = [pair for pair in pairs if is_rendered(pair.prompt)]
    if in_template and not rendered:
        found = f"expected texts without a template, found one in {len(in_template)} of {len(pairs)} rows"
        remedy = 'remove it, or add --rendered and set dialogue.template to "{prompt}"'
        raise StudyError(f"{in_template[0].place}: prompt: {found}; {remedy}")
    ended = 0
    if eos := (eos or "").strip():
        ended = sum(getattr(pair, side).rstrip().endswith(eos) for pair in pairs for side in ANSWERS)
        pairs = [replace(pair, **{side: _without(eos, getattr(pair, side)) for side in ANSWERS}) for pair in pairs]
    _check_ends(pairs)
    distinct = jsonl.distinct(pairs)
    texts = [f"{len(distinct)} pairs", f"{len(pairs) - len(distinct)} duplicates dropped"]
    texts += [f"{len(in_template)} prompts in a template"] * bool(in_template)
    return distinct, "; ".join([*texts, *[f"{eos} removed from {ended} answers"] * bool(ended)])


def _without(eos: str, answer: str) -> str:
    """An answer without EOS at its end, however often it stands there."""
    while (stripped := answer.rstrip()).endswith(eos):
        answer = stripped.removesuffix(eos)
    return answer


def _check_ends(pairs: Sequence[Pair]) -> None:
    ends = [(pair, side, END.search(getattr(pair, side))) for pair in pairs for side in ANSWERS]
    if marked := [(pair, side, match[1]) for pair, side, match in ends if match]:
        pair, side, token = marked[0]
        found = f"expected answers without the text of EOS, found {token} at the end of {len(marked)} of {len(ends)}"
        raise StudyError(
            f"{pair.place}: {side}: {found}; add --eos '{token}', which removes it: each gets its end later"
        )
