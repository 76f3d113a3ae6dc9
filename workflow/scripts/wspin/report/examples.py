"""A page for readers: the answers of the study's models to the same prompts, and the weights of the answers' tokens."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from wspin.escaping import escaped, in_markdown
from wspin.storage import tables
from wspin.storage.text_tables import text_table

from .weights import Shard, token_in_markdown

MAX_CHARACTERS = 600  # of a text that is shown
MAX_TOKENS = 32  # of an answer whose weights are shown

LEGEND = (
    "The first prompts of the study. Below the real answer, the chosen one of every pair, stands what each model "
    "answered when it was an opponent. Weights are those that the training of the iteration named reads, of the first "
    f"{MAX_TOKENS} tokens; line breaks in tokens are written as in JSON."
)


def examples_page(prompts: str, answers: Mapping[str, str], weighted: Mapping[str, Shard], count: int) -> str:
    """Markdown of the first `count` prompts.

    `answers`: opponent -> the first shard of its generations; `weighted`: iteration -> its first shard. Raises
    `StudyError` if a file is missing or does not belong to the others.
    """
    rows = tables.read(prompts, "prompts", count=count).to_pylist()
    responses = {name: _responses(path, prompts, [row["prompt_id"] for row in rows]) for name, path in answers.items()}
    weights = {iteration: WeightedAnswers(shard, len(rows)) for iteration, shard in weighted.items()}
    parts = [LEGEND]
    for i, row in enumerate(rows):
        parts += [f"## {in_markdown(row['prompt_id'])}", _quoted(row["prompt"])]
        parts.append(f"**Real answer**\n\n{_quoted(row['response'])}")
        parts += [f"**{opponent}**\n\n{_quoted(texts[i])}" for opponent, texts in responses.items()]
        if weights:
            parts += ["**Weights of the real answer**", _chosen_table(i, row["response"], weights)]
            for iteration, answers_of in weights.items():
                parts.append(f"**Weights of the generated answer, {iteration}**\n\n{answers_of.rejected_line(i)}")
    return "\n\n".join(parts) + "\n"


class WeightedAnswers:
    """The weights of an iteration's first `count` answers, with the texts of their tokens."""

    def __init__(self, shard: Shard, count: int):
        self.weights = tables.read(shard.weights, "weights", count=count)
        self.reference = tables.read_reference(shard.reference, count)
        tables.check_weighted_ids(shard.weights, self.weights, self.reference)
        self.generations = tables.read(shard.generations, "generations", count=count)["response"]

    def tokens(self, side: str, row: int, answer: str) -> list[tuple[str, float]]:
        """(text, weight) of the first tokens of an answer; a closing EOS, which has no text, is named so."""
        ends = self.reference[f"{side}_ends"][row].as_py()
        texts = [answer[begin:end] for begin, end in pairwise([0, *ends])]
        if self.reference[f"{side}_token_ids"][row].as_py()[-1] == tables.metadata(self.reference)["eos"]:
            texts[-1] = "EOS"
        return list(zip(texts, self.weights[f"{side}_weights"][row].as_py(), strict=True))[:MAX_TOKENS]

    def rejected_line(self, row: int) -> str:
        """The tokens of a generated answer, each followed by its weight."""
        tokens = self.tokens("rejected", row, self.generations[row].as_py())
        return " ".join(f"{token_in_markdown(text)} {weight:.2f}" for text, weight in tokens)


def _chosen_table(row: int, answer: str, weights: Mapping[str, WeightedAnswers]) -> str:
    """A table with a line for every token of the real answer and a column for every iteration."""
    columns = [answers.tokens("chosen", row, answer) for answers in weights.values()]
    rows = zip(*columns, strict=True)
    lines = [[token_in_markdown(cells[0][0]), *(f"{weight:.2f}" for _, weight in cells)] for cells in rows]
    return text_table(["token", *weights], lines, "l" + "r" * len(weights))


def _responses(path: str, prompts: str, ids: Sequence[str]) -> list[str]:
    table = tables.read(path, "generations", count=len(ids))
    tables.check_same_rows(prompts, ids, path, table["prompt_id"].to_pylist())
    return table["response"].to_pylist()


def _quoted(text: str) -> str:
    """A text as an indented block, long ones truncated: its lines and tabs stay, other characters are `escaped`."""
    shown = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " [...]"
    lines = shown.removesuffix("\n").split("\n")
    return "\n".join("    " + "\t".join(map(escaped, line.split("\t"))) for line in lines)
