"""What a study will take, against counts by hand."""

import pytest
import torch
from estimated import QWEN, SWIFT, ZEPHYR, estimator_of, layout_of, row
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wspin.preflight.estimates import Estimate, forward
from wspin.preflight.gpu import STEP_TRAFFIC
from wspin.preflight.requests import RequestCounts
from wspin.preflight.table import estimate_table, merged
from wspin.train.trainer import optimizer

# By hand, of Qwen1.5-1.8B: 24 layers of four matrices 2048 x 2048 and three 2048 x 5504, a head 151,936 x 2048.
PER_TOKEN = 2 * 24 * (4 * 2048**2 + 3 * 2048 * 5504)  # 2.43 GFLOP
PER_PAIR = 4 * 24 * 2048
PER_PREDICTION = 2 * 151_936 * 2048  # 0.62 GFLOP
PARAMETERS = 1_836_828_672
PEAK, BANDWIDTH = 400e12, 1.675e12  # half of an H100's
# A prompt of 137 tokens with answers of 273 and 229, whose last tokens are no input: 637 inputs, 502 predictions.
# Pairs that attend: 137 * 138 / 2; 272 * 137 + 272 * 273 / 2; 228 * 137 + 228 * 229 / 2.
PAIR = 637 * PER_TOKEN + (9_453 + 74_392 + 57_342) * PER_PAIR + 502 * PER_PREDICTION  # 1.887 TFLOP


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch, root):
    monkeypatch.chdir(root)


# Three rows of the table


def test_a_training_by_hand():
    """`spin/ite0`: two epochs of 782 steps of 64 pairs on 8 GPUs, 8 pairs in one micro-batch of 5096 tokens."""
    found = row(estimator_of(layout_of()), "train", "spin/ite0")
    assert found.petaflop == pytest.approx(2 * 50_000 * 3 * PAIR / 1e15)  # 566
    products = 3 * 50_000 / 782 / 8 * PAIR / PEAK  # 0.113 s; launches take 3 * 24 * 0.3 ms = 0.022 s
    optimiser = PARAMETERS * (64 + 14) / BANDWIDTH  # 0.086 s
    files = 4 + 4 * (4 + 4) + 4  # bytes a parameter: the start model, four saved states, the result
    seconds = 2 * 782 * (products + optimiser) + 60 + files * PARAMETERS / 1e9
    assert 3600 * found.hours == pytest.approx(seconds)  # 7.4 minutes
    assert found.gpus == 8


def test_a_generation_by_hand():
    """By the SFT model, in five shards with vLLM: 365 inputs and 229 predictions a prompt, in bfloat16."""
    found = row(estimator_of(layout_of()), "generate", "by sft")
    flops = 50_000 * (365 * PER_TOKEN + (9_453 + 57_342) * PER_PAIR + 229 * PER_PREDICTION)
    assert found.petaflop == pytest.approx(flops / 1e15)  # 52
    cache = 50_000 * (229 * 137 + 229**2 / 2) * 2 * 24 * 2048 * 2  # bytes: every new token reads all before it
    weights = 50_000 / 256 * 229 * (PARAMETERS - 151_936 * 2048) * 2  # of every step of 256 answers
    seconds = (flops / PEAK + (cache + weights) / BANDWIDTH) / 5 + 60 + 4 * PARAMETERS / 1e9
    assert 3600 * found.hours == pytest.approx(seconds)  # 3.0 minutes


def test_an_evaluation_by_hand():
    """A counted suite with requests to score and prompts to answer, on a model trained here."""
    counts = RequestCounts(10**6, 2 * 10**8, 50_000, prompts=1319, prompt_tokens=1319 * 965, longest=1400)
    layout = layout_of()
    found = row(estimator_of(layout, requests={("base", "gsm8k"): counts}), "eval", "gsm8k of sft")
    scoring = 10**6 * PER_TOKEN + 2 * 10**8 * PER_PAIR + 50_000 * PER_PREDICTION
    # 965 tokens of a prompt and 127 of its answer are read, 128 predicted.
    pairs = 965 * 966 // 2 + 127 * 965 + 127 * 128 // 2
    answers = 1319 * ((965 + 127) * PER_TOKEN + pairs * PER_PAIR + 128 * PER_PREDICTION)
    assert found.petaflop == pytest.approx((scoring + answers) / 1e15)  # 6.2
    cache = 1319 * (128 * 965 + 128**2 / 2) * 2 * 24 * 2048 * 2
    weights = 1319 / 16 * 128 * (PARAMETERS - 151_936 * 2048) * 2
    launches = 1319 / 16 * 128 * 24 * 0.3e-3  # 76 s, more than reading and computing take
    assert (answers / PEAK + (cache + weights) / BANDWIDTH) < launches
    assert 3600 * found.hours == pytest.approx(scoring / PEAK + launches + 60 + 4 * PARAMETERS / 1e9)
    assert found.jobs == 1


def test_vllm_reads_every_request_alone_and_replays_graphs():
    """No pass waits for Python; 4 M tokens instead of 1 M, each with its logits; nine tenths of the GPU's memory."""
    counts = RequestCounts(10**6, 0, 50_000, prompts=1000, prompt_tokens=10**6, longest=1400, alone=4 * 10**6)
    suites = dict.fromkeys(layout_of().study.eval.suites, "transformers")
    layout = layout_of(eval={"engine": {**suites, "gsm8k": "vllm"}})
    found = row(estimator_of(layout, requests={("base", "gsm8k"): counts}), "eval", "gsm8k of sft")
    pairs = 1000 * 1001 // 2 + 127 * 1000 + 127 * 128 // 2
    answers = 1000 * ((1000 + 127) * PER_TOKEN + pairs * PER_PAIR + 128 * PER_PREDICTION)
    flops = 4 * 10**6 * (PER_TOKEN + PER_PREDICTION) + answers
    cache = 1000 * (128 * 1000 + 128**2 / 2) * 2 * 24 * 2048 * 2
    weights = 1000 / 16 * 128 * (PARAMETERS - 151_936 * 2048) * 2
    seconds = flops / PEAK + (cache + weights) / BANDWIDTH + 60 + 4 * PARAMETERS / 1e9
    assert 3600 * found.hours == pytest.approx(seconds)
    assert found.memory == 0.9 * 80
    everywhere = estimator_of(layout_of(eval={"engine": "vllm"}))
    assert row(everywhere, "eval", "base").jobs == 6
    assumed = estimator_of(layout)  # a row for each engine, with its name
    jobs = [row(assumed, "eval", f"with {engine}, base").jobs for engine in ("transformers", "vllm")]
    assert jobs == [5, 1]


# Work


@pytest.mark.parametrize(
    ("size", "answers", "petaflop"),
    [(QWEN, (273, 229), 94.6), (QWEN, (273, 229, 229), 130.1), (ZEPHYR, (273, 229), 452), (ZEPHYR, (229,), 258)],
)
def test_passes_cost_what_a_count_by_hand_gives(size, answers, petaflop):
    """50,000 prompts of 137 tokens; 2 % for the rounding of that count."""
    assert 50_000 * forward(size.cost, 137, *answers) / 1e15 == pytest.approx(petaflop, rel=0.02)


def test_the_studys_stages_add_up():
    estimator = estimator_of(layout_of())
    assert row(estimator, "train", "spin/ite1").petaflop == pytest.approx(2 * 568, rel=0.02)
    together = estimator_of(layout_of(train={"triplets": True, "global_batch": 64}))
    assert row(together, "train", "spin/ite1").petaflop == pytest.approx(2 * 390, rel=0.02)
    kl = estimator_of(layout_of(train={"alpha": 0.5}))
    assert row(kl, "train", "spin/ite1").petaflop == pytest.approx(2 * 568, rel=0.02)
    assert row(kl, "train", "wspin/ite1").petaflop == pytest.approx(2 * 568 * 4 / 3, rel=0.02)  # the reference's pass


def test_every_job_of_the_study_is_counted(repository):
    planned = repository.plan("all").counts
    jobs = {}
    for one in estimator_of(layout_of()).all():
        jobs[one.stage] = jobs.get(one.stage, 0) + one.jobs
    assert jobs["generate"] == planned["generate"] + planned["generate_examples"]
    assert jobs["train"] == planned["train"]
    assert jobs["eval"] == planned["eval"]
    assert jobs["logprobs"] == sum(count for rule, count in planned.items() if rule.startswith("logprobs"))


def test_an_arm_costs_what_it_adds():
    few, more = (estimator_of(layout_of(arms=arms)).all() for arms in ({}, {"spin.s": {"train": {"beta": 0.2}}}))
    added = {(one.stage, one.what) for one in more} - {(one.stage, one.what) for one in few}
    answered = {f"by spin.s/ite{k}" for k in range(3)} | {"examples by spin.s/ite3"}
    assert {what for stage, what in added if stage == "generate"} == answered


# Time


def test_a_teacher_in_bfloat16_computes_and_weighs_as_such():
    """Two bytes a weight and no copies, whatever autocast says."""
    single = {"logprobs": {"autocast": "float32"}, "eval": {"autocast": "float32"}}
    teacher = layout_of(**single, models={"teacher": {"dtype": "bfloat16"}})
    for stage, what in (("logprobs", "teacher scores gold"), ("eval", "teacher")):
        plain, loaded, whole = (
            row(estimator_of(layout), stage, what) for layout in (layout_of(), teacher, layout_of(**single))
        )
        assert loaded.hours == plain.hours
        assert plain.memory - loaded.memory == pytest.approx(4 * ZEPHYR.parameters / 1e9)
        assert whole.hours > 3 * loaded.hours


@pytest.mark.parametrize(
    ("section", "stage", "what"),
    [
        ({"logprobs": {"autocast": "float32"}}, "train", "dpo"),
        ({"logprobs": {"autocast": "float32"}}, "logprobs", "teacher scores gold"),
        ({"eval": {"autocast": "float32"}}, "eval", "teacher"),
        ({"generate": {"dtype": "float32"}}, "generate", "by sft"),
    ],
)
def test_every_stage_has_the_peak_of_its_precision(section, stage, what):
    """Products alone: without starts, and with a memory that is never waited for."""
    assumed = {"start_seconds": 0, "disk_gb": 1e6, "bandwidth_tb": 1e6, "launch_ms": 0}
    half, whole = (row(estimator_of(layout_of(preflight=assumed, **changes)), stage, what) for changes in ({}, section))
    assert whole.petaflop == half.petaflop
    assert whole.hours / half.hours == pytest.approx(800 / 67, rel=1e-3)


def test_swift_paper_takes_350_000_steps_an_arm():
    """Of 2 pairs: 50,000 at iteration 0, 100,000 with replayed pairs. The optimiser takes longer than the products."""
    estimator = estimator_of(layout_of(**SWIFT))
    found = [row(estimator, "train", f"wspin/ite{k}") for k in range(4)]
    step = 3 * 2 * PAIR / PEAK + PARAMETERS * (64 + 14) / BANDWIDTH  # 28 ms + 86 ms
    saved = 350_000 / 5_000 * 8 * PARAMETERS / 1e9
    starts = 4 * (60 + 8 * PARAMETERS / 1e9)
    assert 3600 * sum(estimate.hours for estimate in found) == pytest.approx(350_000 * step + saved + starts)


def test_a_short_pass_takes_as_long_as_its_launches():
    quick, slow = (row(estimator_of(layout_of(**SWIFT, preflight={"launch_ms": ms})), "train", "dpo") for ms in (0, 9))
    steps = 782  # of 64 pairs on one GPU, in five micro-batches of 24 layers: 64 * 637 tokens are five times 8192
    assert 3600 * quick.hours < 782 * 5 * 3 * 24 * 0.009 < 3600 * slow.hours
    optimiser = PARAMETERS * (64 + 5 * 14) / BANDWIDTH
    start = 60 + (4 + 2 * 8 + 4) * PARAMETERS / 1e9
    assert 3600 * slow.hours == pytest.approx(steps * (5 * 3 * 24 * 0.009 + optimiser) + start)


def test_transformers_launch_every_token():
    """64 prompts at a time, 229 steps of 24 layers: more than the products of one token take."""
    transformers = {"engine": "transformers", "dtype": None, "gpu_memory": None}
    layouts = [layout_of(generate=transformers, preflight={"launch_ms": ms}) for ms in (3, 6)]
    less, more = (3600 * row(estimator_of(layout), "generate", "by sft").hours for layout in layouts)
    assert more - less == pytest.approx(50_000 / 64 * 229 * 24 * 0.003 / 5)


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write, each of their tensors once."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        read = {id(tensor): tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        written = {id(tensor): tensor for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)}
        schema = function._schema.arguments
        inplace = [value for kind, value in zip(schema, args, strict=False) if kind.alias_info]
        if "fused" in str(function):
            inplace.pop(1)  # gradients are written only under a loss scaler
        written |= {id(tensor): tensor for tensor in tree_leaves(inplace) if isinstance(tensor, torch.Tensor)}
        large = [tensor for tensor in (*read.values(), *written.values()) if tensor.numel() > 1]
        self.total += sum(tensor.nbytes for tensor in large)
        return result


@pytest.mark.parametrize("name", ["rmsprop", "adamw"])
def test_the_optimisers_traffic_is_that_of_its_operations(name, train_settings):
    kind, options = optimizer(train_settings(optimizer=name))
    weight = torch.nn.Parameter(torch.randn(1000))
    stepped = kind([weight], **options)
    weight.grad = torch.randn(1000)
    stepped.step()  # makes the state
    with Traffic() as traffic:
        torch.nn.utils.clip_grad_norm_([weight], 10.0, foreach=True)
        stepped.step()
    assert traffic.total == STEP_TRAFFIC[name] * 1000


# The table


def test_equal_neighbours_are_one_line_with_the_words_of_the_first():
    alike = [Estimate("eval", "by", f"spin/ite{k}", 2, 1, 10.0, 5.0, 0.5) for k in range(3)]
    other = Estimate("eval", "reads", "spin/ite9", 2, 1, 10.0, 5.0, 0.5)
    (first, second) = merged([*alike, other])
    assert (first.what, first.jobs, first.petaflop) == ("by spin/ite0 ... spin/ite2", 6, 15.0)
    assert second == other


def test_without_a_models_config_sums_are_at_least():
    whole, partial = (
        estimate_table(estimator.all(), estimator)
        for estimator in (estimator_of(layout_of()), estimator_of(layout_of(), {"base": QWEN}))
    )
    assert "at least" not in whole
    (total,) = (line for line in partial.splitlines() if line.startswith("all"))
    assert total.split()[:3] == ["all", "at", "least"]
    assert "together at least" in partial
    assert "Not estimated, for want of a config.json: teacher, and" in partial


def test_the_notes_name_counted_and_assumed_suites():
    counts = {(model, "arc"): RequestCounts(10**6) for model in ("base", "teacher")}
    counts |= {("base", "gsm8k"): RequestCounts(10**6)}  # of one model alone
    estimator = estimator_of(layout_of(), requests=counts)
    text = estimate_table(estimator.all(), estimator)
    assert "counted from their requests: arc; assumed, 2,400,000 tokens each until they are fetched: hellaswag," in text
    assert "arc of base" in text
    assert sum(estimate.jobs for estimate in estimator.all() if estimate.stage == "eval") == 96
