"""CPU time of a scoring job before its model is loaded: the answers of a shard become tokens with ends.

The texts are pieces of Python's own documentation, in the lengths of UltraChat, and so is what trained the tokenizer, a
byte-level BPE. Scored are real, new and replayed answers, as in all iterations but the first.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from ..measure import Clock, Row, interleaved, processor
from .shapes import GENERATED, HUMAN, PROMPT, Lengths, Shape

ROWS, ROUNDS = 10_000, 3
SHAPE = Shape(text="sft", vocabulary=8192, hidden=32, layers=1, heads=2, intermediate=32)
EOS = "<|endoftext|>"
MADE_WITH = {"model": "opponent", "template": "human-assistant"}


def run(quick: bool, device: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        shard = Shard(Path(folder), 200 if quick else ROWS)
        yield Row("preparation", "shard", "", 0, "tokens", shard.count)
        contenders = {"ours": shard.prepare, "the tokenizer alone": shard.encode}
        yield from interleaved("preparation", "shard", contenders, 1 if quick else ROUNDS)
        yield Row("preparation", "machine", "", 0, "processor", processor())


def pieces(chat: Any, lengths: Lengths, count: int) -> list[str]:
    """Pieces of the documentation, each as many characters as its tokens have on average."""
    text = " ".join(topics.values())
    per_token = 1000 / len(chat.text_ids(text[:1000]))
    rng = np.random.default_rng(lengths.most)
    sizes = (lengths.draw(count, rng) * per_token).astype(int)
    starts = rng.integers(len(text) - sizes.max(), size=count)
    return [text[start : start + size].strip() or "a" for start, size in zip(starts, sizes, strict=True)]


class Shard:
    """Files of prompts, real answers and two sets of generated ones, and what reads them."""

    def __init__(self, folder: Path, count: int):
        from wspin.config.stages import Dialogue
        from wspin.data.chat import ChatTokenizer
        from wspin.models import folders, offline, scratch
        from wspin.storage import tables

        offline.import_transformers_offline()  # as the program does: the garbage collector passes over what it imports
        scratch.make_scratch(SHAPE, [*topics.values()], EOS, 0, folder / "model")
        settings = Dialogue(
            template="human-assistant", eos=EOS, max_prompt_tokens=1024, max_tokens=2048, eos_on_cut=False
        )
        self.chat = ChatTokenizer(folders.load_tokenizer(folder / "model"), settings)
        ids = [f"train-{i}" for i in range(count)]
        self.prompts, real, *generated = (
            pieces(self.chat, lengths, count) for lengths in (PROMPT, HUMAN, *[GENERATED] * 2)
        )
        columns = {"prompt_id": ids, "prompt": self.prompts, "response": real, "split": ["train"] * count}
        tables.write(folder / "prompts.parquet", "prompts", columns, {})
        self.rows = tables.read(folder / "prompts.parquet", "prompts")
        self.made_with = {**MADE_WITH, "tokenizer": folders.tokenizer_hash(self.chat.tokenizer)}
        self.generations = [str(folder / f"{name}.parquet") for name in ("new", "replayed")]
        for path, texts in zip(self.generations, generated, strict=True):
            tokens = self.chat.batch_response_ids(texts)
            columns = {"prompt_id": ids, "response": texts, "token_ids": tokens, "finish_reason": ["stop"] * count}
            tables.write(path, "generations", columns, self.made_with)
        self.real, self.count = real, sum(len(tokens.ids) for side in self._inputs().sides.values() for tokens in side)

    def _inputs(self) -> Any:
        from wspin.logprobs.inputs import iteration_answers

        new, replayed = self.generations
        return iteration_answers(self.rows, new, [replayed], self.chat, self.made_with)

    def prepare(self) -> dict[str, float]:
        """What `logprobs reference` does before it loads the model."""
        with (clock := Clock()):
            self._inputs().items(self.chat)
        return clock.quantities()

    def encode(self) -> dict[str, float]:
        """The tokenizer's own part of it: prompts and real answers to ids, in batches."""
        with (clock := Clock()):
            for texts in (self.prompts, self.real):
                for start in range(0, len(texts), 1000):
                    self.chat.tokenizer.backend_tokenizer.encode_batch(texts[start : start + 1000])
        return clock.quantities()
