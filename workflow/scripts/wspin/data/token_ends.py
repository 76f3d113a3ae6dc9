"""Where the tokens of answers end in their texts, for any tokenizer that decodes.

A token's text can depend on the token before it, and a token can hold a part of a character. So ids are decoded in
windows: the tokens of the last complete characters, and those behind them up to the next complete character.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa

BROKEN = "\ufffd"  # what bytes decode to that are only a part of a character

RUN = 64  # tokens; a longer run that ends in a broken character is cut, or its decoding would take the run's square
PREFIXES = 1024  # of an answer that are decoded at most

SHIFT, MASK = 32, (1 << 32) - 1  # a window as one number: its first token ahead of its second

DecodeBatch = Callable[[list[list[int]]], list[str]]


def batch_ends(answers: Sequence[list[int]], totals: Iterable[int], decode_batch: DecodeBatch) -> list[list[int]]:
    """Ends of each answer's tokens in its text, in characters. Tokens that hold bytes of one character share its end.

    `totals`: the length of each text. Each different window of one or two tokens is decoded once; longer ones are those
    around a split character.
    """
    stops = np.cumsum([len(ids) for ids in answers], dtype=np.int64)
    added, complete = _window_steps(answers, stops, decode_batch)
    ends = []
    for ids, stop, total in zip(answers, stops.tolist(), totals, strict=True):
        row = slice(stop - len(ids), stop)
        row_ends = np.cumsum(added[row]).tolist()
        if not complete[row].all() or (row_ends[-1] if row_ends else 0) != total:
            steps = list(zip(added[row].tolist(), complete[row].tolist(), strict=True))
            row_ends = _answer_ends(ids, steps, total, lambda ids: decode_batch([ids])[0])
        ends.append(row_ends)
    return ends


def _window_steps(
    answers: Sequence[list[int]], stops: np.ndarray, decode_batch: DecodeBatch
) -> tuple[np.ndarray, np.ndarray]:
    """Of all answers' tokens: the characters that each adds behind the token before it, and whether they are whole."""
    ids = np.fromiter(itertools.chain.from_iterable(answers), np.int64)
    before = np.append(-1, ids)
    before[stops] = -1  # nothing before an answer's first token
    keys, positions = _distinct((before[:-1] + 1) << SHIFT | ids)
    befores, tokens = (keys >> SHIFT) - 1, keys & MASK
    windows = zip(befores.tolist(), tokens.tolist(), strict=True)
    texts = decode_batch([[token] if before < 0 else [before, token] for before, token in windows])
    added = np.fromiter(map(len, texts), np.int64)
    complete = np.array([not text.endswith(BROKEN) for text in texts], bool)
    alone, of_windows = _distinct(befores)
    lengths = map(len, decode_batch([[] if token < 0 else [token] for token in alone.tolist()]))
    added -= np.fromiter(lengths, np.int64)[of_windows]
    return added[positions], complete[positions]


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different numbers, and for each number its place among them. By hashing: millions need not be sorted."""
    encoded = pa.array(numbers).dictionary_encode()
    return encoded.dictionary.to_numpy(), encoded.indices.to_numpy()


def _answer_ends(
    ids: list[int], steps: list[tuple[int, bool]], total: int, decode: Callable[[list[int]], str]
) -> list[int]:
    """Ends of an answer's tokens in its text of `total` characters, from the `_window_steps` of its tokens."""
    ends: list[int] = []
    length, window, complete = 0, 0, 0
    for i, (added, is_complete) in enumerate(steps):
        if complete < i or window < i - 1:  # a character of several tokens
            before, after = decode(ids[window:complete]), decode(ids[window : i + 1])
            added, is_complete = len(after) - len(before), not after.endswith(BROKEN)
        if not is_complete and i + 1 < min(len(ids), complete + RUN):
            continue  # inside a character
        length += added
        ends += [length] * (i + 1 - len(ends))
        window, complete = complete, i + 1
    if length == total:
        return ends
    return _prefix_ends(ids, total, decode)


def _prefix_ends(ids: list[int], total: int, decode: Callable[[list[int]], str]) -> list[int]:
    """Ends of an answer's tokens from decoded prefixes: invalid bytes can change the text before them.

    Of an answer with more than `PREFIXES` tokens only some of the prefixes; tokens between two of these share an end.
    """
    stride = max(1, -(-len(ids) // PREFIXES))
    lengths = [min(len(decode(ids[:stop])), total) for stop in range(stride, len(ids), stride)]
    ends = [end for end in itertools.accumulate(lengths, max) for _ in range(stride)]
    return [*ends, *[total] * (len(ids) - len(ends))]
