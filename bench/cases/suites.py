"""Requests with the counts and lengths of the study's six suites, of random tokens.

Lengths are assumptions, in tokens of a vocabulary of 32,000 or more, from the data sets as lm-eval renders them with
the study's shots (config/config.yaml). Which documents share tokens is lm-eval's: it draws shots for every document
anew, takes the same five for a subject of MMLU, and has the same six questions before every one of TruthfulQA.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .shapes import EOS, Lengths

Request = tuple[tuple[str, str], list[int], list[int]]  # as `_loglikelihood_tokens` of lm-eval takes it
Document = list[Request]
STOP, FIRST_ID = 1, 8  # ids of the stop string, and of ordinary tokens: EOS and letters have smaller ones
GREEDY = 4  # of so many documents one has a greedy answer, see `evaluation.model`


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Lengths of a suite's documents: tokens common to its group, its own shots, its question and its answers."""

    documents: int  # of the data set
    groups: int = 1  # of documents with common tokens before them: subjects
    common: Lengths | None = None
    shots: Lengths | None = None
    question: Lengths
    choices: Lengths  # a number of choices, not of tokens
    answer: Lengths | None = None  # letters, of one token
    option: Lengths | None = None  # the choices end the context, and one continuation follows all of them

    def of(self, documents: int, scale: float = 1.0) -> Self:
        """So many of its documents, as many to a group if they suffice, and all lengths scaled."""
        parts = {name: value.scaled(scale) for name, value in vars(self).items() if isinstance(value, Lengths)}
        groups = max(1, self.groups * documents // self.documents)
        return replace(self, **parts | {"choices": self.choices}, documents=documents, groups=groups)


def constant(length: int) -> Lengths:
    return Lengths(length, 0.0, length, least=1)


SUITES = {
    "hellaswag": Suite(  # 10 shots of 85 tokens
        documents=10_042,
        shots=Lengths(850, 0.1, 1200),
        question=Lengths(50, 0.4, 120),
        choices=constant(4),
        answer=Lengths(30, 0.5, 90),
    ),
    "arc": Suite(  # 25 shots of 35 tokens
        documents=1_172,
        shots=Lengths(875, 0.06, 1100),
        question=Lengths(28, 0.45, 120),
        choices=constant(4),
        answer=Lengths(8, 0.7, 40),
    ),
    "truthfulqa": Suite(  # 5,882 answers to 817 questions, six others before each
        documents=817,
        common=constant(200),
        question=Lengths(20, 0.4, 60),
        choices=Lengths(7.2, 0.35, 13),
        answer=Lengths(12, 0.45, 40),
    ),
    "winogrande": Suite(  # 5 shots of 27 tokens; a sentence to its gap, one of two words, and the rest of it
        documents=1_267,
        shots=Lengths(135, 0.08, 180),
        question=Lengths(17, 0.3, 40),
        choices=constant(2),
        answer=Lengths(8, 0.4, 20),
        option=Lengths(2, 0.3, 4),
    ),
    "mmlu": Suite(  # 57 subjects, each with 5 shots
        documents=14_042,
        groups=57,
        common=Lengths(600, 0.4, 1800),
        question=Lengths(100, 0.7, 700),
        choices=constant(4),
    ),
    "gsm8k": Suite(  # 5 shots of 180 tokens; the answer is generated
        documents=1_319,
        shots=Lengths(900, 0.1, 1300),
        question=Lengths(65, 0.4, 200),
        choices=constant(1),
        answer=Lengths(110, 0.5, 256),
    ),
}


def documents(suite: Suite, vocabulary: int, seed: int = 0) -> list[Document]:
    """The requests of every document, those of a group one after the other."""
    rng = np.random.default_rng([seed, suite.documents])

    def texts(lengths: Lengths | None, count: int) -> Iterator[list[int]]:
        sizes = [0] * count if lengths is None else lengths.draw(count, rng).tolist()
        return (rng.integers(FIRST_ID, vocabulary, size).tolist() for size in sizes)

    counts = suite.choices.draw(suite.documents, rng).tolist()
    common = list(texts(suite.common, suite.groups))
    shots, questions = (texts(lengths, suite.documents) for lengths in (suite.shots, suite.question))
    options, answers = (texts(lengths, sum(counts)) for lengths in (suite.option, suite.answer))
    result = []
    for number, count in enumerate(counts):
        context = common[number * suite.groups // suite.documents] + next(shots) + next(questions)
        contexts = [context + next(options) for _ in range(count)]
        if suite.option:
            choices = [next(answers)] * count
        elif suite.answer:
            choices = [next(answers) for _ in range(count)]
        else:
            choices = [[EOS + 1 + letter] for letter in range(count)]
        if suite.answer and not suite.option and number % GREEDY == 0:
            choices[0] = countdown(context[-1], len(choices[0]))
        result.append([(("", ""), *request) for request in zip(contexts, choices, strict=True)])
    return result


def countdown(last: int, count: int) -> list[int]:
    """The ids that follow `last` if every token is followed by the next smaller id."""
    return [max(last - n, FIRST_ID) for n in range(1, count + 1)]


def questions(suite: Suite, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Contexts whose last token counts down to the stop string in as many tokens as the answer is long."""
    requests = [request for document in documents(suite, vocabulary, seed) for request in document]
    return [[*context[:-1], STOP + len(answer)] for _, context, answer in requests]
