"""What the study's stages cost on one H100, derived from two published architectures; nothing of it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure import Row
from .shapes import GENERATED, HUMAN, PROMPT

# From the config.json that these models are published with.
QWEN = {  # Qwen/Qwen1.5-1.8B
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "tie_word_embeddings": False,
}
ZEPHYR = {  # alignment-handbook/zephyr-7b-sft-full, a Mistral
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
FLOPS, BANDWIDTH = 800e12, 3.35e12  # of one H100 in bfloat16: per second, and bytes per second
PROMPTS = 50_000
BYTES = 2  # of a bfloat16
ROWS = 256  # that are decoded together


@dataclass(frozen=True)
class Stage:
    name: str
    flops: float
    bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """No sooner: FLOPs and what must be read from memory, one after the other."""
        return self.flops / FLOPS + self.bytes / BANDWIDTH


def run(quick: bool, device: str) -> Iterator[Row]:
    for stage in stages():
        for quantity in ("flops", "bytes", "seconds"):
            yield Row("cost", stage.name, "", 0, quantity, getattr(stage, quantity))


def stages() -> list[Stage]:
    """Of one iteration, at the mean lengths of `shapes`."""
    from wspin.engine.flops import BACKWARD, Cost

    student, teacher = _model("Qwen2", QWEN), _model("Mistral", ZEPHYR)
    of_student, of_teacher = Cost.of(student), Cost.of(teacher)
    pair = PROMPTS * of_student.needed([_item(HUMAN.mean, GENERATED.mean)])
    triplet = PROMPTS * of_student.needed([_item(HUMAN.mean, GENERATED.mean, GENERATED.mean)])
    return [
        _generation(student, of_student),
        Stage("score both answers, student: the reference too", pair),
        Stage(
            "score both answers, 7B teacher, first iteration",
            PROMPTS * of_teacher.needed([_item(HUMAN.mean, GENERATED.mean)]),
        ),
        Stage("score generated answers, 7B teacher, later", PROMPTS * of_teacher.needed([_item(GENERATED.mean)])),
        Stage("train on 50k pairs, first iteration", (1 + BACKWARD) * pair),
        Stage("train on 100k pairs, later", (1 + BACKWARD) * 2 * pair),
        Stage("train on 100k pairs as 50k triplets, later", (1 + BACKWARD) * triplet),
    ]


def _generation(model: Any, cost: Any) -> Stage:
    """Keys and values of all tokens before it are read for every token, the weights once for `ROWS` of them."""
    prompt, made = int(PROMPT.mean), int(GENERATED.mean)
    config = model.config
    of_token = 2 * BYTES * config.num_hidden_layers * config.num_key_value_heads
    of_token *= config.hidden_size // config.num_attention_heads
    cache = (prompt * made + made * (made + 1) // 2) * of_token
    read = sum(weight.numel() for weight in model.parameters()) - model.get_input_embeddings().weight.numel()
    return Stage("generate", PROMPTS * cost.needed([_item(made)]), PROMPTS * (cache + made * BYTES * read / ROWS))


def _item(*answers: float) -> Any:
    from wspin.engine.packing import Item

    return Item(np.zeros(int(PROMPT.mean)), tuple(np.zeros(int(answer)) for answer in answers))


def _model(family: str, config: dict[str, Any]) -> Any:
    """An architecture without weights."""
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**config))
