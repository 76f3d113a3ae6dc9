"""A page to read: what the study's models answer to the same prompts, and what each token of those answers weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from wspin.storage import tables
from wspin.storage.text_tables import text_table

from .weights import Shard, in_a_cell

LONGEST = 600  # characters of a text that are shown
TOKENS = 32  # of an answer whose weights are shown

LEGEND = (
    "The first prompts of the study. Below the real answer, the chosen one of every pair, stands what each model "
    "answered when it was an opponent. Weights are those that the training of the iteration named reads, of the first "
    f"{TOKENS} tokens; line breaks in tokens are written as in JSON."
)


def examples_page(prompts: str, answers: Mapping[str, str], weighted: Mapping[str, Shard], count: int) -> str:
    """Markdown of the first `count` prompts.

    `answers`: opponent -> the first shard of its generations; `weighted`: iteration -> its first shard. Raises
    `StudyError` if a file does not hold what it should.
    """
    rows = tables.read(prompts, "prompts").slice(0, count).to_pylist()
    said = {name: _texts(path, prompts, [row["prompt_id"] for row in rows]) for name, path in answers.items()}
    read = {name: Weights(shard) for name, shard in weighted.items()}
    parts = [LEGEND]
    for i, row in enumerate(rows):
        parts += [f"## {row['prompt_id']}", _quoted(row["prompt"]), f"**Real answer**\n\n{_quoted(row['response'])}"]
        parts += [f"**{name}**\n\n{_quoted(texts[i])}" for name, texts in said.items()]
        if read:
            parts += ["**Weights of the real answer**", _chosen(i, row["response"], read)]
            parts += [f"**Weights of the generated answer, {name}**\n\n{one.rejected(i)}" for name, one in read.items()]
    return "\n\n".join(parts) + "\n"


class Weights:
    """The weights of an iteration's first shard, with the texts of the tokens that they belong to."""

    def __init__(self, shard: Shard):
        self.weights = tables.read(shard.weights, "weights")
        self.reference = tables.read_reference(shard.reference)
        tables.check_weighted_ids(shard.weights, self.weights, self.reference)
        self.answers = tables.read(shard.generations, "generations")["response"]

    def of(self, side: str, row: int, text: str) -> list[tuple[str, float]]:
        """(text, weight) of the first tokens of an answer; a closing EOS, which has no text, is named so."""
        ends = _list(self.reference, f"{side}_ends", row)
        begins = [0, *ends[:-1]]
        closed = _list(self.reference, f"{side}_token_ids", row)[-1] == tables.metadata(self.reference)["eos"]
        texts = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
        texts[-1] = "EOS" if closed else texts[-1]
        return list(zip(texts, _list(self.weights, f"{side}_weights", row), strict=True))[:TOKENS]

    def rejected(self, row: int) -> str:
        """The tokens of a generated answer, each followed by its weight."""
        found = self.of("rejected", row, self.answers[row].as_py())
        return " ".join(f"{in_a_cell(text)} {weight:.2f}" for text, weight in found)


def _chosen(row: int, text: str, read: dict[str, Weights]) -> str:
    """A table with a line for every token of the real answer, and a column for every iteration."""
    columns = [one.of("chosen", row, text) for one in read.values()]
    lines = [
        [in_a_cell(cells[0][0]), *(f"{weight:.2f}" for _, weight in cells)] for cells in zip(*columns, strict=True)
    ]
    return text_table(["token", *read], lines, "l" + "r" * len(read))


def _texts(path: str, prompts: str, ids: Sequence[str]) -> list[str]:
    table = tables.read(path, "generations").slice(0, len(ids))
    tables.check_same_rows(prompts, ids, path, table["prompt_id"].to_pylist())
    return table["response"].to_pylist()


def _list(table: pa.Table, column: str, row: int) -> np.ndarray:
    return np.array(table[column][row].as_py())


def _quoted(text: str) -> str:
    """A text as a block quotation, word by word as it is."""
    shown = text if len(text) <= LONGEST else text[:LONGEST] + " [...]"
    return "\n".join(f"    {line}" for line in shown.splitlines() or [""])
