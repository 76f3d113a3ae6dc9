"""What a study will take, against counts by hand; what would stop it, a line each."""

import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import hub as loopback
import pytest
import torch
import workflow
import yaml
from transformers import AutoConfig

from wspin.config.load import load_study
from wspin.config.sources import Scratch
from wspin.config.study import merge
from wspin.models import scratch
from wspin.preflight import complaints
from wspin.preflight.complaints import find_complaints
from wspin.preflight.estimates import Estimate, Estimator, Lengths, forward, mean_lengths
from wspin.preflight.sizes import Size
from wspin.preflight.table import merged
from wspin.study.paths import StudyPaths

ROOT = workflow.ROOT
STUDY = yaml.safe_load((ROOT / "config/config.yaml").read_text())
QWEN, ZEPHYR = (
    Size(AutoConfig.from_pretrained(ROOT / "config/architectures" / name))
    for name in ("Qwen/Qwen1.5-1.8B", "alignment-handbook/zephyr-7b-sft-full")
)
SMALL = {"vocabulary": 300, "hidden": 32, "intermediate": 48, "layers": 3, "heads": 2, "context": 128}


def layout_of(**changes):
    return StudyPaths(load_study(merge(STUDY, changes)))


def estimates_of(layout, sizes=None):
    sizes = {"base": QWEN, "teacher": ZEPHYR} if sizes is None else sizes
    return Estimator(layout, sizes, mean_lengths(layout))


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


# Work


@pytest.mark.parametrize(
    ("size", "answers", "petaflop"),
    [(QWEN, (273, 229), 94.6), (QWEN, (273, 229, 229), 130.1), (ZEPHYR, (273, 229), 452), (ZEPHYR, (229,), 258)],
)
def test_passes_cost_what_a_count_by_hand_gives(size, answers, petaflop):
    """50,000 prompts of 137 tokens; 2 % for the rounding of that count."""
    assert 50_000 * forward(size.cost, 137, *answers) / 1e15 == pytest.approx(petaflop, rel=0.02)


def test_the_studys_stages_add_up():
    made = estimates_of(layout_of())
    by_name = {(one.stage, one.what): one for one in made.all()}
    assert by_name["generate", "by sft"].petaflop == pytest.approx(52, rel=0.02)
    assert 5 * 3600 * by_name["generate", "by sft"].hours * 0.5 == pytest.approx(275, rel=0.02)  # bound, seconds
    assert by_name["train", "spin/ite0"].petaflop == pytest.approx(2 * 284, rel=0.02)
    assert by_name["train", "spin/ite1"].petaflop == pytest.approx(2 * 568, rel=0.02)
    assert by_name["train", "spin/ite1"].gpus == 8
    together = estimates_of(layout_of(train={"triplets": True, "global_batch": 64})).all()
    assert next(one for one in together if one.what == "spin/ite1").petaflop == pytest.approx(2 * 390, rel=0.02)


def test_every_job_of_the_study_is_counted(repository):
    planned = repository.plan("all").counts
    jobs = {}
    for one in estimates_of(layout_of()).all():
        jobs[one.stage] = jobs.get(one.stage, 0) + one.jobs
    assert jobs["generate"] == planned["generate"]
    assert jobs["train"] == planned["train"]
    assert jobs["eval"] == planned["eval"]
    assert jobs["logprobs"] == sum(count for rule, count in planned.items() if rule.startswith("logprobs"))


def test_an_arm_costs_what_it_adds():
    few, more = (estimates_of(layout_of(arms=arms)).all() for arms in ({}, {"spin.s": {"train": {"beta": 0.2}}}))
    added = {(one.stage, one.what) for one in more} - {(one.stage, one.what) for one in few}
    assert {what for stage, what in added if stage == "generate"} == {f"by spin.s/ite{k}" for k in range(3)}


# Memory


def test_a_fork_saves_states_too():
    """Two saved states of weights and optimiser (rmsprop: 8 bytes a parameter) for each arm, wherever it begins."""
    fork = {"late": {"fork": {"from": "spin", "at": 2}, "train": {"loss": "wspin"}}}
    few, more = (estimates_of(layout_of(arms=arms)).disk()["states"] for arms in ({}, fork))
    assert more - few == pytest.approx(2 * 8 * QWEN.parameters / 1e9)


def test_equal_neighbours_are_one_line_with_the_words_of_the_first():
    alike = [Estimate("eval", "by", f"spin/ite{k}", 2, 1, 10.0, 5.0, 0.5) for k in range(3)]
    other = Estimate("eval", "reads", "spin/ite9", 2, 1, 10.0, 5.0, 0.5)
    (first, second) = merged([*alike, other])
    assert (first.what, first.jobs, first.petaflop) == ("by spin/ite0 ... spin/ite2", 6, 15.0)
    assert second == other


def test_training_memory_is_weights_gradients_and_optimiser():
    """rmsprop: 12 bytes a parameter, and 2 for the products' copies under autocast."""
    layout = layout_of()
    made, train = estimates_of(layout), layout.train_settings("spin/ite0")
    states = 14 * QWEN.parameters / 1e9
    rest = made.training_memory(QWEN, train, 8) - states
    assert rest == pytest.approx((8192 * QWEN.activations("bfloat16") + 151_936 * 12 * 1024) / 1e9)
    shared = made.training_memory(QWEN, train.model_copy(update={"parallel": "fsdp"}), 8)
    assert shared == pytest.approx(rest + states / 8)


# What would stop it


def complaints_of(layout, **changes):
    made = estimates_of(layout, **changes)
    return list(find_complaints(made, made.all()))


@pytest.fixture
def disk(monkeypatch):
    """A disk with so many GB free."""

    def of(free):
        monkeypatch.setattr(complaints.shutil, "disk_usage", lambda place: SimpleNamespace(free=free * 1e9))

    of(5000)
    monkeypatch.setattr(complaints, "_has_vllm", lambda: True)
    return of


def test_the_study_itself_has_nothing_to_mend(disk):
    assert complaints_of(layout_of()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"train": {"token_budget": 40_000}},
            r"preflight.gpu_memory_gb: found 80, but train needs 1\d\d GB a GPU; lower",
        ),
        ({"logprobs": {"token_budget": 4_000_000}}, "but logprobs needs .* GB a GPU; lower logprobs.token_budget"),
        ({"eval": {"batch_size": 99}}, "but eval needs .* GB a GPU; lower eval.batch_size"),
        (
            {"resources": {"train": {"gpu": 1, "runtime": 5}}},
            "resources.train.runtime: found 5 minutes, a job .* raise",
        ),
        ({"dialogue": {"max_tokens": 99_999}}, "dialogue.max_tokens: found 99999, over the context of 'base', 32768"),
        (
            {"models": {"sft": {"path": "none/here", "from": None, "loss": None, "data": None}}},
            "models.sft.path: expected a file or folder at none/here, found none",
        ),
        ({"generate": {"given": "no.jsonl"}}, "generate.given: expected a file or folder at no.jsonl, found none"),
    ],
)
def test_what_would_fail_is_a_line(disk, changes, told):
    lines = complaints_of(layout_of(**changes))
    assert any(re.search(told, line) for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_a_batch_of_two_is_for_one_gpu(disk):
    """The preset swift_paper, given more GPUs than its one."""
    preset = yaml.safe_load((ROOT / "config/overlays/swift_paper.yaml").read_text())
    assert complaints_of(layout_of(**preset)) == []
    preset = merge(preset, {"resources": {"train": {"gpu": 2}}})
    told = (
        "resources.train.gpu: found 2 for steps of 2 pairs, less than two for each; train on 1, or raise global_batch"
    )
    assert complaints_of(layout_of(**preset)) == [told]


def test_what_is_there_already_needs_no_disk(disk, tmp_path):
    """Models, tables and states of this study; not those of another study below it."""
    layout = layout_of(results=str(tmp_path))
    needed = sum(estimates_of(layout).disk().values())
    for name in ("sft/model/a", ".state/train/b", "other/model/c"):
        (tmp_path / name).parent.mkdir(parents=True)
        with open(tmp_path / name, "wb") as file:
            file.truncate(10**10)
    (tmp_path / "other/config.yaml").touch()
    disk(needed - 19)
    assert complaints_of(layout) == []
    disk(needed - 21)
    assert len(complaints_of(layout)) == 1


def test_too_little_disk_is_a_line(disk):
    disk(100)
    (line,) = complaints_of(layout_of())
    assert re.fullmatch(
        r"results: found 100 GB free at /.*, the study needs 2\d\d GB more; name a folder on a .*", line
    )


def test_a_missing_vllm_is_a_line(disk, monkeypatch):
    monkeypatch.setattr(complaints, "_has_vllm", lambda: False)
    assert complaints_of(layout_of()) == [
        "generate.engine, eval.engine: vllm is not installed beside the study: run `make setup-vllm`"
    ]


# Access


def test_access_is_asked_for(tmp_path):
    """Revisions that are not there and gated repositories are told by name; the token by nobody."""
    with loopback.Hub() as hub:
        layout = layout_of(eval={"sources": {"arc": {"revision": "f" * 40}}})
        for one in layout.study.models.values():
            if one.hub:
                hub.add("model", one.hub)
        sources = [layout.study.data.sft, layout.study.data.preferences, *layout.study.eval.sources.values()]
        for source in sources:
            hub.add("dataset", source.hub)
        hub.repos["model/Qwen/Qwen1.5-1.8B"].gated = True
        code = "import json, sys; from wspin.config.load import read_study\n"
        code += "from wspin.preflight.complaints import check_access\n"
        code += "print(json.dumps(check_access(read_study([sys.argv[1]]))))"
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(layout.study.model_dump(mode="json", by_alias=True, exclude_none=True)))
        environment = {**workflow.environment(), "HF_ENDPOINT": hub.url, "PYTHONPATH": str(ROOT / "workflow/scripts")}
        loopback.REVISION, kept = layout.study.models["base"].revision, loopback.REVISION
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, config], env=environment, capture_output=True, text=True, cwd=ROOT
            )
        finally:
            loopback.REVISION = kept
    assert done.returncode == 0, done.stderr
    assert "Qwen/Qwen1.5-1.8B@7846de7ed421727b318d6605a0bfab659da2c067: expected access to a gated" in done.stdout
    assert f"allenai/ai2_arc@{'f' * 40}: expected that commit, found none" in done.stdout


# The program


def test_the_table_of_the_study_needs_no_network(repository):
    done = repository.run("preflight")
    assert re.search(r"^train +spin/ite1 ... spin/ite3 +3 +8 +\d+\.\d +3,\d\d\d +\d", done.stdout, re.MULTILINE), (
        done.stdout
    )
    assert re.search(r"^logprobs +teacher scores gold +5 +1 ", done.stdout, re.MULTILINE)
    assert "Revisions and access are not checked: " in done.stdout
    assert "Mean tokens: prompt 137, real answer 273, generated 229 (assumed in the config" in done.stdout
    assert max(map(len, done.stdout.split("stage ")[-1].split("\n\n")[0].splitlines())) < 130


def test_the_demo_has_nothing_to_mend(repository, tmp_path):
    study = workflow.Repository(repository.folder, ("config/overlays/demo.yaml",))
    done = study.run("preflight")
    assert done.returncode == 0, done.stdout
    assert "preflight: no problems" in done.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": {"global_batch": 4}}, "for each GPU (resources.train.gpu 8), found 4"),
        ({"generate": {"max_new_tokens": 1500}}, "max_new_tokens: expected at most 1024 (dialogue.max_tokens 2048"),
    ],
)
def test_what_the_config_refuses_stops_it_at_once(repository, tmp_path, change, told):
    study = repository.copy(tmp_path / "study").overlay(change)
    done = study.run("preflight")
    assert done.returncode
    assert len([line for line in done.stdout.splitlines() if told in line]) >= 1
    assert "Traceback" not in done.stdout


def test_measured_lengths_take_the_place_of_assumed_ones(tmp_path):
    from wspin.storage import tables

    layout = layout_of(results=str(tmp_path), data={"sft": {"prompts": 2, "shard": 2}})
    sides = {"chosen": [[1, 2, 3], [1]], "rejected": [[1] * 10, [1] * 4]}
    columns = {f"{side}_token_ids": ids for side, ids in sides.items()}
    columns |= {f"{side}_ends": ids for side, ids in sides.items()}
    columns |= {f"{side}_logprobs": [[0.0] * len(one) for one in ids] for side, ids in sides.items()}
    tables.write(tmp_path / "sft/reference/00.parquet", "reference", {"prompt_id": ["a", "b"], **columns}, {})
    found = mean_lengths(layout)
    assert (found.response, found.generated) == (2.0, 7.0)
    assert "measured" in found.source
    assert isinstance(mean_lengths(layout_of()), Lengths)


# Models that are there


def test_an_eos_that_is_no_token_of_the_studys_model_is_a_line(scratch_model, tmp_path):
    """Of a fetched model or a folder; a teacher needs no EOS of the study."""
    own = {"hub": None, "revision": None, "path": str(scratch_model)}
    dialogue = {"eos": "<|im_end|>"}
    layout = layout_of(results=str(tmp_path), models={"base": own, "teacher": own}, dialogue=dialogue)
    lines = list(complaints.find_model_complaints(layout))
    found = "found '<|im_end|>', which is none; its own EOS is '<|endoftext|>'"
    assert lines == [f"{scratch_model}: dialogue.eos: expected one token of the tokenizer, {found}"]


def test_a_broken_model_is_a_line(scratch_model, tmp_path):
    shutil.copytree(scratch_model, tmp_path / "base/model")
    (tmp_path / "base/model/model.safetensors").unlink()
    lines = list(complaints.find_model_complaints(layout_of(results=str(tmp_path))))
    assert lines == [f"{tmp_path}/base/model: expected weights as safetensors, found none; convert the checkpoint"]
