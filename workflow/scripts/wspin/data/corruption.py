"""Plausible wrong answers for preference pairs and multiple choice: a real answer with a typo."""

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
        typo, i = rng.integers(4), rng.integers(len(text))
        if typo == 0:
            corrupted = text[:i] + text[i : i + 2][::-1] + text[i + 2 :]
        elif typo == 1:
            corrupted = text[:i] + text[i] + text[i:]
        elif typo == 2:
            corrupted = text[:i] + text[i + 1 :]
        else:
            corrupted = text[:i] + _replacement(text, text[i], rng) + text[i + 1 :]
        if corrupted not in ("", text):
            return corrupted


def _replacement(text: str, character: str, rng: np.random.Generator) -> str:
    """A character of the text, or of the alphabet of `character`."""
    alphabet = next((letters for letters in ALPHABETS if character in letters), ALPHABETS[0])
    return _choose((text, alphabet)[rng.integers(2)], rng)


def _choose(characters: str, rng: np.random.Generator) -> str:
    return characters[rng.integers(len(characters))]
