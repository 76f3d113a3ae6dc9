"""Short trainings on the scratch model, for the tests of stage train."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from wspin.engine.batches import plan_steps
from wspin.logprobs.score import score_items
from wspin.train import run, trainer
from wspin.train.run import train

SEED = (42, 0)
UNBOUND = {"float32": 99, "bfloat16": 99}  # a margin_bound that no first margin exceeds


def scored(model, items, precision="float32"):
    scores = score_items(model, items, 4096, precision)
    return [replace(item, reference=tuple(own)) for item, own in zip(items, scores, strict=True)]


def shifted(items, by=1.0):
    """With a reference that the model has left behind: margins are not zero."""
    rng = np.random.default_rng(3)

    def noisy(values):
        return (values + rng.normal(0, by, len(values))).astype(np.float32)

    return [replace(item, reference=tuple(map(noisy, item.reference))) for item in items]


def curve(state):
    return [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def trained(model, items, settings, state, precision="float32"):
    state.mkdir(exist_ok=True)
    train(model, items, settings, precision, SEED, state)
    return weights(model)


def planned(model, items, settings, state):
    """A trainer that has not begun, and its steps."""
    steps = plan_steps(len(items), SEED, run.items_per_step(items, settings))
    arguments = run.training_arguments(settings, len(steps), 0, state, on_cpu=True)
    trains = {"model": model, "args": arguments, "train_dataset": steps}
    return trainer.PlannedTrainer(settings, "float32", items, lambda: False, **trains), steps


def plain_sum(model, item, side):
    """Log-probability of one answer, from a whole forward pass."""
    ids = torch.from_numpy(np.concatenate([item.prompt, item.responses[side]]).astype(np.int64))
    logprobs = model(input_ids=ids[None]).logits[0, len(item.prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, ids[len(item.prompt) :, None]).sum()


def plain_gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def assert_agree(found, expected, share):
    """Loss and gradient; the loss is the mean over the step's items, whatever their share of `global_batch`."""
    assert found[0] * share == pytest.approx(expected[0], rel=1e-5)
    assert (found[1] - expected[1]).norm() < 1e-4 * expected[1].norm()
    assert expected[1].norm() > 1e-3


def with_weights(items, seed=5):
    """With a random weight for every token."""
    rng = np.random.default_rng(seed)
    weights = [tuple(rng.uniform(0.2, 4.0, len(ids)).astype(np.float32) for ids in item.responses) for item in items]
    return [replace(item, weights=token_weights) for item, token_weights in zip(items, weights, strict=True)]


class Killed(Exception):
    pass


def interrupted(monkeypatch, fresh, items, settings, state, at):
    """A training that ends within step `at`, counted from one."""
    step = trainer.PlannedTrainer.training_step

    def dies(self, *arguments):
        if self.state.global_step == at - 1:
            raise Killed
        return step(self, *arguments)

    monkeypatch.setattr(trainer.PlannedTrainer, "training_step", dies)
    with pytest.raises(Killed):
        trained(fresh(), items, settings, state)
    monkeypatch.undo()
