"""Steps, gradients and curves of short trainings."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import (
    SEED,
    UNBOUND,
    assert_agree,
    curve,
    plain_gradient,
    plain_sum,
    planned,
    scored,
    shifted,
    trained,
    weights,
)

from wspin.engine.batches import plan_steps
from wspin.errors import StudyError
from wspin.train import trainer

# One step


def step_gradient(model, items, settings, state, index=0):
    """Loss and gradient of one optimiser step, as the Trainer takes it."""
    unstarted, steps = planned(model, items, settings, state)
    loss = unstarted.training_step(model, steps[index])
    chosen = [items[i] for i in sorted(steps[index])]
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()]), chosen


@pytest.mark.parametrize("token_budget", [1, 60, 4096])
@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("index", [0, 2])
def test_a_step_is_the_mean_over_the_global_batch(fresh, pairs, train_settings, tmp_path, token_budget, eps, index):
    """Step 2 has two pairs, and weighs two quarters: every pair of an epoch counts the same."""
    settings = train_settings(token_budget=token_budget, label_smoothing=eps, margin_bound=UNBOUND)
    *found, items = step_gradient(fresh(), shifted(pairs), settings, tmp_path, index)
    assert len(items) == (2 if index else 4)
    exact, total = fresh().double(), 0.0
    for item in items:
        chosen, rejected = (
            plain_sum(exact, item, side) - float(item.reference[side].sum(dtype=float)) for side in (0, 1)
        )
        right, wrong = (torch.log1p(torch.exp(sign * 0.5 * (chosen - rejected))) for sign in (-1, 1))
        total = total + (1 - eps) * right + eps * wrong
    assert_agree(found, plain_gradient(exact, total / 4), len(items) / 4)


@pytest.mark.parametrize("token_budget", [1, 60, 4096])
@pytest.mark.parametrize("reduction", ["token_mean", "sum"])
@pytest.mark.parametrize("index", [0, 2])
def test_sft_is_a_mean_over_tokens_or_a_sum(
    fresh, make_items, train_settings, tmp_path, token_budget, reduction, index
):
    """Of a last step with two rows either weighs two quarters."""
    settings = train_settings(loss="sft", reduction=reduction, token_budget=token_budget)
    *found, items = step_gradient(fresh(), make_items(10, answers=1), settings, tmp_path, index)
    exact, rows = fresh().double(), len(items)
    total = -sum(plain_sum(exact, item, 0) for item in items)
    tokens = sum(len(item.responses[0]) for item in items)
    assert_agree(found, plain_gradient(exact, total / 4 if reduction == "sum" else total / tokens * rows / 4), rows / 4)


def test_swapping_chosen_and_rejected_flips_the_margin(fresh, pairs, train_settings, tmp_path):
    settings = train_settings(margin_bound=UNBOUND, global_batch=10)
    swapped = [replace(p, responses=p.responses[::-1], reference=p.reference[::-1]) for p in shifted(pairs)]
    lines = []
    for name, items in (("a", shifted(pairs)), ("b", swapped)):
        trained(fresh(), items, settings, tmp_path / name)
        lines += curve(tmp_path / name)
    assert lines[0]["rewards/margin"] == pytest.approx(-lines[1]["rewards/margin"], rel=1e-5) != 0.0
    assert lines[0]["rewards/accuracy"] == pytest.approx(1.0 - lines[1]["rewards/accuracy"])


# The first step


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 1.0)])
@pytest.mark.parametrize("loss", ["spin", "dpo"])
def test_the_first_loss_is_log_2(fresh, make_items, train_settings, tmp_path, precision, bound, loss):
    """The policy is still its own reference, whatever the layouts in which the two were computed."""
    items = scored(fresh(), make_items(10), precision)
    trained(fresh(), items, train_settings(loss=loss, token_budget=60), tmp_path, precision)
    first = curve(tmp_path)[0]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-4 if precision == "float32" else 0.1)
    assert first["margin/largest"] <= bound


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_26_the_first_margin_is_zero_exactly_on_one_and_the_same_batch(
    fresh, make_items, train_settings, tmp_path, precision
):
    """Scoring and training lay equal items out equally, and compute in one precision."""
    items = scored(fresh(), make_items(10), precision)
    trained(fresh(), items, train_settings(global_batch=10), tmp_path, precision)
    (line,) = curve(tmp_path)
    assert line["margin/largest"] == line["rewards/chosen"] == line["rewards/rejected"] == 0.0
    assert line["loss"] == pytest.approx(math.log(2), rel=1e-6)


def test_trap_26_a_reference_of_another_precision_shows(fresh, make_items, train_settings, tmp_path):
    items = scored(fresh(), make_items(10), "bfloat16")
    with pytest.raises(StudyError, match=r"first step: expected \|margin\| .* <= 0.001 nat \(margin_bound.float32\)"):
        trained(fresh(), items, train_settings(), tmp_path)


@pytest.mark.parametrize("shift", [0.1, math.nan])
def test_a_stale_reference_stops(fresh, pairs, train_settings, tmp_path, shift):
    """Before the first update, and with nothing saved."""
    model = fresh()
    stale = [replace(item, reference=(item.reference[0] + shift, item.reference[1])) for item in pairs]
    with pytest.raises(StudyError) as error:
        trained(model, stale, train_settings(), tmp_path)
    assert "score the pairs again with this model" in str(error.value)
    assert "\n" not in str(error.value)
    assert torch.equal(weights(model), weights(fresh()))
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 1.0)])
def test_each_precision_has_its_bound(train_settings, precision, bound):
    trainer.check_first_margin(bound, train_settings(), precision)
    for largest in (bound * 1.01, math.inf, math.nan):
        with pytest.raises(StudyError, match=rf"<= {bound} nat \(margin_bound\.{precision}\), found"):
            trainer.check_first_margin(largest, train_settings(), precision)


def test_only_the_first_step_is_bound(fresh, pairs, train_settings, tmp_path):
    trained(fresh(), pairs, train_settings(), tmp_path)
    assert curve(tmp_path)[-1]["margin/largest"] > 1.0


# Curves


def test_the_curve_has_one_line_per_step(fresh, pairs, train_settings, tmp_path):
    settings = train_settings(epochs=2, schedule={"warmup": 0.5, "decay": "linear"})
    trained(fresh(), pairs, settings, tmp_path)
    lines = curve(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["learning_rate"] / 1e-3 for line in lines] == pytest.approx([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_the_curve_has_the_means_of_a_step(fresh, pairs, train_settings, tmp_path):
    """One step over all pairs, before which the policy's log-probabilities are those of `pairs`."""
    left = shifted(pairs)
    trained(fresh(), left, train_settings(margin_bound=UNBOUND, global_batch=10), tmp_path)
    policy, reference = (np.array([[side.sum() for side in p.reference] for p in some]) for some in (pairs, left))
    chosen, rejected = (policy - reference).T
    expected = {
        "rewards/chosen": 0.5 * chosen.mean(),
        "rewards/rejected": 0.5 * rejected.mean(),
        "rewards/margin": 0.5 * (chosen - rejected).mean(),
        "rewards/accuracy": (chosen > rejected).mean(),
        "unweighted/chosen": 0.5 * chosen.mean(),
        "unweighted/rejected": 0.5 * rejected.mean(),
        "unweighted/margin": 0.5 * (chosen - rejected).mean(),
        "unweighted/accuracy": (chosen > rejected).mean(),
        "margin/largest": abs(chosen - rejected).max(),
        "logprobs/chosen": policy[:, 0].mean(),
        "logprobs/rejected": policy[:, 1].mean(),
    }
    (line,) = curve(tmp_path)
    assert {key: line[key] for key in expected} == pytest.approx(expected, rel=1e-4)
    work = {"work/tokens", "work/needed", "work/computed"}
    assert set(line) == {*expected, *work, "step", "loss", "grad_norm", "learning_rate"}


def test_training_learns(fresh, pairs, train_settings, tmp_path):
    trained(fresh(), pairs, train_settings(epochs=10), tmp_path)
    first, *_, last = curve(tmp_path)
    assert last["rewards/margin"] > first["rewards/margin"] + 0.5
    assert last["rewards/accuracy"] == 1.0
    assert last["loss"] < first["loss"] / 2


# The weights


def plain_training(model, items, settings, steps):
    """The same training in a plain loop."""
    names = {name: "norm" in name or name.endswith("bias") for name, _ in model.named_parameters()}
    groups = [[w for name, w in model.named_parameters() if names[name] is kind] for kind in (False, True)]
    optimizer = {"rmsprop": torch.optim.RMSprop, "adamw": torch.optim.AdamW}[settings.optimizer](
        [{"params": groups[0], "weight_decay": settings.weight_decay}, {"params": groups[1], "weight_decay": 0.0}]
    )
    warmup = math.ceil(settings.schedule.warmup * len(steps))
    for done, step in enumerate(steps):
        after = (len(steps) - done) / (len(steps) - warmup) if settings.schedule.decay == "linear" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (done / warmup if done < warmup else after)
        optimizer.zero_grad()
        for item in (items[i] for i in step):
            chosen, rejected = (plain_sum(model, item, side) - float(item.reference[side].sum()) for side in (0, 1))
            (torch.nn.functional.softplus(settings.beta * (rejected - chosen)) / settings.global_batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
    return weights(model)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_training_is_that_of_a_plain_loop(fresh, pairs, train_settings, tmp_path, optimizer, decay):
    """Optimiser, schedule, weight decay and clipping are the settings' and no others."""
    schedule = {"warmup": 0.3, "decay": decay}
    settings = train_settings(
        epochs=2, optimizer=optimizer, schedule=schedule, weight_decay=0.2, max_grad_norm=1.0, beta=0.1
    )
    steps = plan_steps(len(pairs), SEED, 4, epochs=2)
    expected = plain_training(fresh(), pairs, settings, steps)
    found = trained(fresh(), pairs, settings, tmp_path)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (found - weights(fresh())).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("loss", ["spin", "sft"])
def test_token_budget_moves_the_weights_by_rounding_only(fresh, pairs, make_items, train_settings, tmp_path, loss):
    items = pairs if loss == "spin" else make_items(10, answers=1)
    found = [
        trained(fresh(), items, train_settings(loss=loss, token_budget=budget), tmp_path / str(budget))
        for budget in (1, 60, 4096)
    ]
    distance = (found[2] - weights(fresh())).norm()
    for other in found[:2]:
        assert (other - found[2]).norm() < 1e-5 * found[2].norm()
    assert distance > 1e-3 * found[2].norm()


# What is imported


def imports(modules, *unwanted):
    """Modules of the unwanted packages that importing some modules loads."""
    code = f"import sys, {modules}; print([m for m in sys.modules if m.startswith({unwanted!r})])"
    scripts = str(Path(__file__).parents[2] / "workflow/scripts")
    return subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True).stdout


def test_the_configuration_needs_no_tensor_library():
    light = "wspin.config.load, wspin.config.flags, wspin.study.paths, wspin.study.rule_flags, wspin.cli"
    assert imports(light, "torch", "transformers", "pyarrow", "pandas") == "[]\n"


def test_generation_and_scoring_need_no_trainer():
    assert (
        imports(
            "wspin.generate.sampling, wspin.logprobs.score, wspin.train.inputs",
            "transformers.trainer",
            "wspin.train.trainer",
        )
        == "[]\n"
    )
