"""Plausible wrong answers for preference pairs and multiple choice: a real answer with a typo."""

from __future__ import annotations

import string

import numpy as np

ALPHABETS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)


def corrupt(text: str, rng: np.random.Generator) -> str:
    """`text` with two neighbours swapped, or one character doubled, dropped or replaced.

    Never `text` itself, and never empty. An empty text becomes one letter.
    """
    if not text:
        return _choose(string.ascii_lowercase, rng)
    while True:  # a typo can change nothing: equal neighbours, a letter replaced by itself
        typo = (_swap, _double, _drop, _replace)[rng.integers(4)]
        corrupted = typo(text, rng)
        if corrupted not in ("", text):
            return corrupted


def _swap(text: str, rng: np.random.Generator) -> str:
    i = rng.integers(len(text))
    return text[:i] + text[i : i + 2][::-1] + text[i + 2 :]


def _double(text: str, rng: np.random.Generator) -> str:
    i = rng.integers(len(text))
    return text[:i] + text[i] + text[i:]


def _drop(text: str, rng: np.random.Generator) -> str:
    i = rng.integers(len(text))
    return text[:i] + text[i + 1 :]


def _replace(text: str, rng: np.random.Generator) -> str:
    """Replace one character by another of the same text, or of its alphabet."""
    i = rng.integers(len(text))
    alphabet = next((letters for letters in ALPHABETS if text[i] in letters), ALPHABETS[0])
    return text[:i] + _choose((text, alphabet)[rng.integers(2)], rng) + text[i + 1 :]


def _choose(characters: str, rng: np.random.Generator) -> str:
    return characters[rng.integers(len(characters))]
