"""The page of answers: the first prompts with what every model answers, made from `answers.html.j2`.

Columns are the arms, rows their iterations; the models of the registry stand before them, beside the real answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wspin.escaping import escaped
from wspin.iteration import Iteration
from wspin.storage import tables

from . import html

FINISHED = {"stop": "", "length": "cut"}  # by `finish_reason`: what the page says of it


@dataclass(frozen=True)
class Answer:
    """What a model answered to a prompt, and in how many tokens of its own, EOS included."""

    text: str
    tokens: int
    finished: str
    is_real: bool  # equal to the real answer


def answers_page(prompts: str, files: Mapping[str, str], count: int) -> str:
    """The page as HTML, of the first `count` prompts; `files`: model -> generations that begin with these prompts.

    Raises `StudyError` if a file is missing or holds answers to other prompts.
    """
    rows = tables.read(prompts, "prompts", count=count).to_pylist()
    answers = {model: _answers(path, prompts, rows) for model, path in files.items()}
    iterations = {model: iteration for model in files if (iteration := Iteration.parse(model))}
    return html.render(
        "answers",
        registry=[model for model in files if model not in iterations],
        arms=list(dict.fromkeys(iteration.arm for iteration in iterations.values())),
        iterations=sorted({iteration.k for iteration in iterations.values()}),
        prompts=[_shown(row, {model: of[i] for model, of in answers.items()}) for i, row in enumerate(rows)],
    )


def _answers(path: str, prompts: str, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    table = tables.read(path, "generations", count=len(rows))
    tables.check_same_rows(prompts, [row["prompt_id"] for row in rows], path, table["prompt_id"].to_pylist())
    return [
        Answer(
            _text(answer["response"]),
            len(answer["token_ids"]),
            FINISHED.get(answer["finish_reason"], answer["finish_reason"]),
            answer["response"] == row["response"],
        )
        for answer, row in zip(table.to_pylist(), rows, strict=True)
    ]


def _shown(row: Mapping[str, Any], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """What the template shows of a prompt; an iteration's answer under (arm, k)."""
    places = {Iteration.parse(model) or model: answer for model, answer in answers.items()}
    texts = {"id": escaped(row["prompt_id"]), "prompt": _text(row["prompt"]), "real": _text(row["response"])}
    return {**texts, "answers": places}


def _text(text: str) -> str:
    """A text whose lines stay lines, other characters `escaped`."""
    return "\n".join(map(escaped, text.removesuffix("\n").split("\n")))
