"""Wrong answers are wrong, near, and the same for the same random numbers."""

from collections import Counter

import pytest

from wspin.data.corruption import corrupt
from wspin.rng import row_generator

TEXTS = ["", "a", "Q", "7", ".", " ", "é", "aa", "ab", "zzzz", "olleh", "a b", "12:30", "日本", "naïve\n", "x" * 50]


@pytest.mark.parametrize("text", TEXTS)
def test_always_another_text(text):
    made = [corrupt(text, row_generator("corruption", i)) for i in range(400)]
    assert text not in made
    assert "" not in made
    assert len(set(made)) >= 4  # enough for a choice of distinct ones
    assert all(abs(len(one) - len(text)) <= 1 for one in made)


def test_every_slip_happens():
    """Swapped, doubled, dropped and replaced characters, told apart by length and letters."""
    text = "stop"
    seen = Counter()
    for i in range(400):
        made = corrupt(text, row_generator(i))
        swapped = len(made) == 4 and sorted(made) == sorted(text)
        seen["swap" if swapped else {5: "double", 3: "drop", 4: "replace"}[len(made)]] += 1
        if len(made) == 5:
            assert any(made == text[:k] + text[k] + text[k:] for k in range(4))
        if swapped:
            first, *others = (k for k in range(4) if made[k] != text[k])
            assert others == [first + 1]
    assert min(seen[slip] for slip in ("swap", "double", "drop", "replace")) > 40


def test_replacements_keep_to_the_alphabet():
    for text, kind in (("9", str.isdecimal), ("K", str.isupper), ("k", str.islower)):
        assert all(map(kind, (corrupt(text, row_generator(text, i)) for i in range(100))))


def test_same_generator_same_text():
    first, again = ([corrupt("backward", rng) for _ in range(20)] for rng in (row_generator(3), row_generator(3)))
    assert first == again
    assert len(set(first)) > 10
