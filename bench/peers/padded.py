"""Training as the code of DPO and TIS-DPO does it (eric-mitchell/direct-preference-optimization at f8b8c0f,
exlaw/TIS-DPO at cbad7c1), rewritten for a plain Trainer.

Chosen and rejected conversations are padded to one rectangle for one forward pass. Log-probabilities over the whole
vocabulary are computed at every position, and those of the answers are summed; the reference does the same at every
step. With `answers_only`, logits are computed only where an answer token is predicted.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import Trainer

from wspin.engine.flops import Cost
from wspin.engine.packing import Item

IGNORED = -100


def collate(items: Sequence[Item], pad: int) -> dict[str, Tensor]:
    """Chosen conversations, then rejected ones, padded on the right: (2 B, L) each."""
    pairs = [(item.prompt, item.responses[side]) for side in (0, 1) for item in items]
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids, labels, mask = (torch.full((len(pairs), width), fill) for fill in (pad, IGNORED, 0))
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        ids[row, : len(prompt)] = torch.from_numpy(prompt).long()
        ids[row, len(prompt) : end] = labels[row, len(prompt) : end] = torch.from_numpy(answer).long()
        mask[row, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answer_sums(model: Any, batch: dict[str, Tensor], answers_only: bool = False) -> Tensor:
    """Log-probability of each row's answer, (2 B,) nats."""
    targets = batch["labels"][:, 1:]
    in_answer = targets != IGNORED
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    if answers_only:
        states = model.base_model(**inputs).last_hidden_state[:, :-1][in_answer]
        logprobs = model.get_output_embeddings()(states).float().log_softmax(-1)
        token_logprobs = logprobs.gather(1, targets[in_answer][:, None])[:, 0]
        rows = in_answer.nonzero()[:, 0]
        return token_logprobs.new_zeros(len(targets)).index_add(0, rows, token_logprobs)
    logits = model(**inputs).logits[:, :-1].float()
    token_logprobs = logits.log_softmax(-1).gather(2, targets.masked_fill(~in_answer, 0)[:, :, None])[:, :, 0]
    return (token_logprobs * in_answer).sum(-1)


def flops(cost: Cost, items: Sequence[Item], micro_batch: int, answers_only: bool = False) -> int:
    """FLOPs of a forward pass, `micro_batch` pairs to a rectangle, with attention over its full square."""
    total = 0
    for first in range(0, len(items), micro_batch):
        batch = items[first : first + micro_batch]
        rows, width = 2 * len(batch), max(len(item.prompt) + len(ids) for item in batch for ids in item.responses)
        predicted = sum(len(ids) for item in batch for ids in item.responses) if answers_only else rows * width
        total += rows * width * (cost.per_token + cost.per_pair * width) + predicted * cost.per_prediction
    return total


class PaddedTrainer(Trainer):
    """DPO that runs the reference model at every step."""

    def __init__(self, reference: Any, beta: float, answers_only: bool, optimizer: Any, **trainer: Any):
        super().__init__(optimizer_cls_and_kwargs=optimizer, **trainer)
        self.reference, self.beta, self.answers_only = reference, beta, answers_only

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Tensor:
        policy = answer_sums(model, inputs, self.answers_only)
        with torch.no_grad():
            reference = answer_sums(self.reference, inputs, self.answers_only)
        chosen, rejected = (policy - reference).chunk(2)
        return -logsigmoid(self.beta * (chosen - rejected)).mean()
