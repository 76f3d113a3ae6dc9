"""Where the tokens of answers end in their texts, for any tokenizer that decodes.

A token's text can depend on the token before it, and a token can hold a part of a character. So ids are decoded in
windows: the tokens of the last complete characters, and those behind them up to the next complete character.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

BROKEN = "\ufffd"  # what bytes decode to that are only a part of a character

SHIFT, MASK = 32, (1 << 32) - 1  # a window as one number: its first token ahead of its second

DecodeBatch = Callable[[list[list[int]]], list[str]]


def batch_ends(answers: Sequence[list[int]], decode_batch: DecodeBatch) -> list[list[int]]:
    """Ends of each answer's tokens in its text, in characters. Tokens that hold bytes of one character share its end.

    Where every token completes a character, all windows have two tokens, and each different one is decoded once.
    """
    totals = [len(text) for text in decode_batch([*answers])]
    lengths = [len(ids) for ids in answers]
    added, complete = _window_steps(answers, np.cumsum([0, *lengths]), decode_batch)
    ends = []
    for ids, stop, total in zip(answers, itertools.accumulate(lengths), totals, strict=True):
        row = slice(stop - len(ids), stop)
        row_ends = np.cumsum(added[row]).tolist()
        if not complete[row].all() or (row_ends[-1] if row_ends else 0) != total:
            row_ends = answer_ends(ids, total, lambda ids: decode_batch([ids])[0])
        ends.append(row_ends)
    return ends


def _window_steps(
    answers: Sequence[list[int]], starts: np.ndarray, decode_batch: DecodeBatch
) -> tuple[np.ndarray, np.ndarray]:
    """Of all answers' tokens: the characters that each adds behind the token before it, and whether they are whole."""
    ids = np.fromiter(itertools.chain.from_iterable(answers), np.int64, starts[-1])
    before = np.append(-1, ids)
    before[starts] = -1  # nothing before an answer's first token
    windows, positions = np.unique((before[:-1] + 1) << SHIFT | ids, return_inverse=True)
    firsts, of_windows = np.unique(windows >> SHIFT, return_inverse=True)
    first_lengths = [len(text) for text in decode_batch([_window(first) for first in firsts.tolist()])]
    texts = decode_batch([[*_window(key >> SHIFT), key & MASK] for key in windows.tolist()])
    added = np.array([len(text) for text in texts], np.int64) - np.array(first_lengths, np.int64)[of_windows]
    complete = np.array([not text.endswith(BROKEN) for text in texts], bool)
    return added[positions], complete[positions]


def _window(first: int) -> list[int]:
    """The token of a window before its last one; `first` is 0 for none, and greater by 1 than the id."""
    return [first - 1] if first else []


def answer_ends(ids: list[int], total: int, decode: Callable[[list[int]], str]) -> list[int]:
    """Ends of an answer's tokens in its text of `total` characters, token by token."""
    ends: list[int] = []
    length, window, complete = 0, 0, 0
    for i in range(len(ids)):
        before, after = decode(ids[window:complete]), decode(ids[window : i + 1])
        if after.endswith(BROKEN) and i + 1 < len(ids):
            continue  # inside a character
        length += len(after) - len(before)
        ends += [length] * (i + 1 - len(ends))
        window, complete = complete, i + 1
    if length == total:
        return ends
    # Invalid bytes can change the text before them.
    prefixes = [min(len(decode(ids[: i + 1])), total) for i in range(len(ids) - 1)]
    return [*itertools.accumulate(prefixes, max), total]
