"""Cost of the study's stages on one H100, derived from the shapes of two published models; nothing is measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ROOT
from ..measure import Row
from .shapes import GENERATED, HUMAN, PROMPT

STUDENT, TEACHER = "Qwen/Qwen1.5-1.8B", "alignment-handbook/zephyr-7b-sft-full"  # in config/architectures/
FLOPS, BANDWIDTH = 800e12, 3.35e12  # of one H100 in bfloat16: FLOPs and bytes per second
PROMPTS = 50_000
BYTES = 2  # of a bfloat16 number
ROWS = 256  # decoded together


@dataclass(frozen=True)
class Stage:
    name: str
    flops: float
    bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """A lower bound: FLOPs, then reads from memory."""
        return self.flops / FLOPS + self.bytes / BANDWIDTH


def run(quick: bool, device: str) -> Iterator[Row]:
    for stage in stages():
        for quantity in ("flops", "bytes", "seconds"):
            yield Row("cost", stage.name, "", 0, quantity, getattr(stage, quantity))


def stages() -> list[Stage]:
    """The stages of one iteration, at the mean lengths of `shapes`."""
    from wspin.engine.flops import BACKWARD, Cost

    student = shape_only(STUDENT)
    student_cost, teacher_cost = Cost.of(student), Cost.of(shape_only(TEACHER))
    pair = PROMPTS * student_cost.needed([_item(HUMAN.mean, GENERATED.mean)])
    triplet = PROMPTS * student_cost.needed([_item(HUMAN.mean, GENERATED.mean, GENERATED.mean)])
    return [
        _generation(student, student_cost),
        Stage("score both answers, student: the reference too", pair),
        Stage(
            "score both answers, 7B teacher, first iteration",
            PROMPTS * teacher_cost.needed([_item(HUMAN.mean, GENERATED.mean)]),
        ),
        Stage("score generated answers, 7B teacher, later", PROMPTS * teacher_cost.needed([_item(GENERATED.mean)])),
        Stage("train on 50k pairs, first iteration", (1 + BACKWARD) * pair),
        Stage("train on 100k pairs, later", (1 + BACKWARD) * 2 * pair),
        Stage("train on 100k pairs as 50k triplets, later", (1 + BACKWARD) * triplet),
    ]


def _generation(model: Any, cost: Any) -> Stage:
    """Every token reads the keys and values of all tokens before it; `ROWS` tokens share one read of the weights."""
    prompt, generated = int(PROMPT.mean), int(GENERATED.mean)
    config = model.config
    token_bytes = 2 * BYTES * config.num_hidden_layers * config.num_key_value_heads
    token_bytes *= config.hidden_size // config.num_attention_heads
    cache = (prompt * generated + generated * (generated + 1) // 2) * token_bytes
    weights = sum(weight.numel() for weight in model.parameters()) - model.get_input_embeddings().weight.numel()
    flops = PROMPTS * cost.needed([_item(generated)])
    return Stage("generate", flops, PROMPTS * (cache + generated * BYTES * weights / ROWS))


def _item(*answers: float) -> Any:
    from wspin.engine.packing import Item

    return Item(np.zeros(int(PROMPT.mean)), tuple(np.zeros(int(answer)) for answer in answers))


def shape_only(name: str) -> Any:
    """A model without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(ROOT / "config/architectures" / name, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
