"""The tokens of lm-eval's requests: each text once, and many at a time.

lm-eval encodes a context again with each of its choices, text by text, and an evaluation measures its requests before
it asks them. At 2 ms a text of 800 tokens, a GPU would wait longer for HellaSwag's tokens than it computes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix

from wspin.progress import progress_printer

TOGETHER = 1000  # texts of a call, which a fast tokenizer encodes on all cores


class EncodeOnce(HFLM):
    """Of lm-eval's `HFLM` the encoding of texts; those that were encoded keep their tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._encoded: dict[tuple[str, bool | None], np.ndarray] = {}
        super().__init__(*args, **kwargs)

    def encode_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Encode the texts for which lm-eval's `_encode_pair` asks, of pairs of context and continuation."""
        texts = (text for context, continuation in pairs for text in (context.rstrip(), context + continuation) if text)
        prefix = self.tokenizer.decode(self.prefix_token_id)
        by_prefix: dict[bool, dict[str, None]] = {False: {}, True: {}}
        for text in texts:
            by_prefix[has_bos_prefix(text, prefix)][text] = None
        plain = _add_special_kwargs(None, self.add_bos_token)
        self._encode(list(by_prefix[False]), **plain)
        self._encode(list(by_prefix[True]), **{**plain, "add_special_tokens": False})

    def _encode(self, texts: Sequence[str], **options: Any) -> None:
        print_progress = progress_printer("eval: encoding", len(texts), "texts", brief=True)
        for first in range(0, len(texts), TOGETHER):
            batch = texts[first : first + TOGETHER]
            for text, ids in zip(batch, self.tokenizer(batch, **options)["input_ids"], strict=True):
                self._encoded[text, None] = np.array(ids, dtype=np.int32)
            print_progress(first + len(batch))

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **kwargs: Any
    ) -> list[int]:
        key = string, add_special_tokens
        if key not in self._encoded:
            self._encoded[key] = np.array(super().tok_encode(string, add_special_tokens, **kwargs), dtype=np.int32)
        ids = self._encoded[key].tolist()
        return ids[-left_truncate_len:] if left_truncate_len else ids
