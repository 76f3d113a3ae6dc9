"""Memory of a GPU and space on the disk, against counts by hand."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from estimated import QWEN, ROOT, ZEPHYR, estimator_of, layout_of, row
from torch.utils._python_dispatch import TorchDispatchMode

from wspin.config.sources import Scratch
from wspin.engine import head
from wspin.models import scratch
from wspin.preflight import memory
from wspin.preflight.disk import disk
from wspin.preflight.requests import RequestCounts
from wspin.preflight.sizes import Size
from wspin.train import losses

SMALL = {"vocabulary": 300, "hidden": 32, "intermediate": 48, "layers": 3, "heads": 2, "context": 128}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


# Sizes


def test_the_studys_models_have_their_published_sizes():
    """Of Qwen1.5-1.8B: 1.84 B parameters in all, 0.31 B each for embedding and head, 196,608 bytes of bf16 cache."""
    assert QWEN.parameters == 1_836_828_672
    assert QWEN.embedding == 151_936 * 2048
    assert QWEN.cost.per_token == 2 * 24 * (4 * 2048**2 + 3 * 2048 * 5504)
    assert QWEN.cached_values * 2 == 196_608
    assert ZEPHYR.parameters == 7_241_732_096
    assert ZEPHYR.cached_values == 2 * 32 * 8 * 128
    assert (QWEN.context, ZEPHYR.context) == (32_768, 32_768)


def small_config():
    return scratch.scratch_config(Scratch(architecture="qwen2", text="sft", **SMALL))


def test_sizes_are_those_of_the_real_modules():
    from transformers import AutoModelForCausalLM

    size, made = Size(small_config()), AutoModelForCausalLM.from_config(small_config())
    assert size.parameters == sum(weight.numel() for weight in made.parameters())
    assert size.embedding == 0  # tied: the head is the same table, and is read


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_are_those_of_a_real_pass(precision):
    """Counted on fake tensors, seen on real ones: bytes kept by a pass over 40 tokens more."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(small_config()).base_model

    def kept(tokens):
        seen = {}

        def keep(tensor):
            if tensor.shape.count(tokens) == 1:
                seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            made = model(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
        assert made is not None
        return sum(storage.nbytes() for storage in seen.values())

    per_token = (kept(103) - kept(63)) / 40
    assert Size(small_config()).activations(precision) == pytest.approx(per_token, rel=0.2)  # embedding and last norm


def test_checkpointing_keeps_less():
    assert QWEN.activations("bfloat16", checkpointing=True) < 0.15 * QWEN.activations("bfloat16")


# Memory


def test_training_memory_is_weights_gradients_and_optimiser():
    """rmsprop: 12 bytes a parameter, and 2 for the products' copies under autocast."""
    train = layout_of().train_settings("spin/ite0")
    states = 14 * QWEN.parameters / 1e9
    rest = memory.training(QWEN, train, "bfloat16", 8) - states
    assert rest == pytest.approx((8192 * QWEN.activations("bfloat16") + 151_936 * 12 * 1024) / 1e9)
    shared = memory.training(QWEN, train.model_copy(update={"parallel": "fsdp"}), "bfloat16", 8)
    assert shared == pytest.approx(rest + states / 8)


@pytest.mark.parametrize(
    ("loss", "alpha", "kept"),
    [
        *((loss, None, False) for loss in ("sft", "dpo", "spin", "hinge", "ipo")),
        ("wspin", 0.0, False),
        ("wspin", 0.5, True),
        ("tdpo1", None, True),
        ("tdpo2", 0.5, True),
    ],
)
def test_a_frozen_reference_is_counted_exactly_where_a_loss_needs_one(loss, alpha, kept):
    """Its weights in float32 and bfloat16; and five more buffers of logits for the divergence."""
    train = layout_of().train_settings("spin/ite0")
    plain = memory.training(QWEN, train, "bfloat16", 8)
    found = memory.training(QWEN, train.model_copy(update={"loss": loss, "alpha": alpha}), "bfloat16", 8)
    reference = (6 * QWEN.parameters + 5 * 4 * 1024 * 151_936) / 1e9
    assert found == pytest.approx(plain + reference * kept)


class PeakBytes(TorchDispatchMode):
    """The largest sum of tensors that live at one time."""

    def __init__(self):
        super().__init__()
        self.sizes, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in result if isinstance(result, tuple) else [result]:
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


@pytest.mark.parametrize("divergence", losses.DIVERGENCES.values())
def test_the_logits_of_a_divergence_are_those_of_a_real_pass(divergence):
    vocabulary, width, rows = 10_000, 4, head.MIN_ROWS["cpu"]
    models = [torch.nn.Linear(width, vocabulary, bias=False) for _ in range(2)]
    models[1].requires_grad_(False)
    policy, reference = (SimpleNamespace(get_output_embeddings=lambda model=model: model) for model in models)
    states, others = torch.randn(2 * rows, width, requires_grad=True), torch.randn(2 * rows, width)
    with PeakBytes() as counted:
        head.token_divergences(divergence, policy, states, reference, others).sum().backward()
    buffers = counted.peak / (4 * vocabulary * rows)
    assert 0.85 < buffers / (memory.DIVERGENCE_LOGITS / 4096) < 1.0


def test_an_evaluation_keeps_no_logits():
    """Weights in float32 with bfloat16 copies, a layer's activations, a chunk of the head; or a batch's cache."""
    weights = 6 * QWEN.parameters / 1e9
    found = row(estimator_of(layout_of()), "eval", "sft").memory
    layer = QWEN.activations("bfloat16") / 24
    assert found == pytest.approx(weights + (16_384 * layer + 151_936 * 12 * 1024) / 1e9)
    counts = RequestCounts(10**6, prompts=1319, prompt_tokens=1319 * 965, longest=1500)
    many = estimator_of(layout_of(eval={"batch_size": 64}), requests={("base", "gsm8k"): counts})
    assert row(many, "eval", "gsm8k of sft").memory == pytest.approx(weights + 64 * 1500 * 196_608 / 1e9)


# Disk


def states_of(**changes):
    return disk(estimator_of(layout_of(**changes)))["states"]


def test_states_of_trainings_that_run_side_by_side():
    """Two are kept, a third is written: 8 bytes a parameter with rmsprop. The first heir removes its start model's."""
    state = 8 * QWEN.parameters / 1e9
    # The last iterations of three arms and `dpo` write; the second last keep two. `sft` has heirs that are complete.
    assert states_of() == pytest.approx((4 * 3 + 3 * 2) * state)
    assert states_of(arms={"wspin": {"train": {"optimizer": "adamw"}}}) == pytest.approx(
        (4 * 3 + 3 * 2) * state + (3 + 2) * 4 * QWEN.parameters / 1e9
    )


def test_a_fork_saves_states_wherever_it_begins():
    state = 8 * QWEN.parameters / 1e9
    late = {"fork": {"from": "spin", "at": 2}, "train": {"loss": "wspin"}}
    assert states_of(arms={"late": late}) - states_of() == pytest.approx((3 + 2) * state)
    last = {"fork": {"from": "spin", "at": 3}, "train": {"loss": "wspin"}}  # beside spin/ite3, from the same model
    assert states_of(arms={"last": last}) - states_of() == pytest.approx(3 * state)
