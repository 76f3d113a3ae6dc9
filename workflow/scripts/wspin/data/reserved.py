"""A tokenizer for which the strings of some tokens are plain text, whatever its vocabulary holds.

The library's own switch (`split_special_tokens`) only stops it from looking for special tokens in a text. Where `</s>`
is a piece of the vocabulary too (Unigram, or BPE with merges that lead to it), the model still finds it.
"""

import json
from collections.abc import Collection
from typing import Any

MARKS = tuple(map(chr, range(0xE000, 0xF900)))  # private use: characters without a meaning


def free_mark(text: str) -> str:
    """A character that the text does not hold."""
    return next(mark for mark in MARKS if mark not in text)


def marked(token: str, mark: str) -> str:
    """The string of a token with a mark in it. Its first character stays: it decides which token wins an overlap."""
    return token[:1] + mark + token[1:]


def marked_copy(tokenizer: Any, tokens: Collection[str], mark: str) -> Any:
    """A copy of a tokenizer (of the package `tokenizers`) in which `tokens` have their ids under their marked strings.

    It finds them where a text holds the mark, by the tokenizer's own rules (stripped white space, whole words), and
    nowhere else: the strings themselves are tokenized from the other pieces of the vocabulary.
    """
    from tokenizers import Tokenizer

    strings = {token: marked(token, mark) for token in tokens}
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["content"] = strings.get(token["content"], token["content"])
    _rename(state["model"], strings)
    return Tokenizer.from_str(json.dumps(state))


def _rename(model: dict[str, Any], strings: dict[str, str]) -> None:
    """Rename pieces of a model's vocabulary. Merges that lead to one are dropped."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with scores, in the order of their ids
        model["vocab"] = [[strings.get(piece, piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {strings.get(piece, piece): i for piece, i in vocabulary.items()}
    if model.get("unk_token") in strings:
        model["unk_token"] = strings[model["unk_token"]]
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        merges = ((left, right, left + right.removeprefix(prefix)) for left, right in model["merges"])
        model["merges"] = [[*pieces[:2]] for pieces in merges if strings.keys().isdisjoint(pieces)]
