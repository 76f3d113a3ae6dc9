"""Stop strings: whether the text of an answer holds one of them."""

from collections.abc import Callable, Sequence

CONTEXT = 8  # tokens before a stop string that may change its text: parts of a character, a space at the beginning


class StopStrings:
    """A test of every new token that decodes the last tokens of the answer alone, as many as a stop string can take.

    The last tokens may have another text than within the whole answer, so a stop string in them is looked up there. One
    that takes more tokens than it has bytes is missed: then the answer goes on.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], strings: Sequence[str]):
        self.decode, self.strings = decode, [string for string in strings if string]
        self.tokens = CONTEXT + max((len(string.encode()) for string in self.strings), default=0)

    def __call__(self, ids: Sequence[int]) -> bool:
        return self._in_text(ids[-self.tokens :]) and self._in_text(ids)

    def _in_text(self, ids: Sequence[int]) -> bool:
        text = self.decode(ids)
        return any(string in text for string in self.strings)
