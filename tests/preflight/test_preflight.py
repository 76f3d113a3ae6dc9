"""What would stop a study, a line each; the program."""

import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import hub as loopback
import pytest
import workflow
import yaml
from estimated import QWEN, ROOT, STUDY, SWIFT, ZEPHYR, estimator_of, layout_of
from transformers import AutoConfig

import preflight as program
from wspin.config import trackers
from wspin.config.study import merge
from wspin.errors import StudyError
from wspin.preflight import complaints
from wspin.preflight.complaints import find_complaints
from wspin.preflight.disk import disk as disk_of
from wspin.preflight.estimates import Lengths, mean_lengths
from wspin.preflight.sizes import Size
from wspin.study import slurm


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


# What would stop it


def complaints_of(layout, **changes):
    made = estimator_of(layout, **changes)
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


def test_trackers_that_are_not_installed_are_named_once(disk, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    arms = {"spin": {"train": {"report_to": "trackio"}}, "wspin": {"train": {"loss": "wspin", "report_to": "none"}}}
    found = complaints_of(layout_of(train={"report_to": "wandb"}, arms=arms))
    expected = (
        "train.report_to: expected the package {0} in this environment, found none; run `pip install {0}`, or set"
    )
    assert found == [f"{expected.format(name)} none" for name in ("trackio", "wandb")]


def test_spins_model_fits_where_gpus_share_it(disk):
    """Of 7 billion parameters, one GPU could not train alone."""
    preset = yaml.safe_load((ROOT / "config/overlays/spin_zephyr.yaml").read_text())
    assert complaints_of(layout_of(**preset), sizes={"sft": ZEPHYR}) == []
    preset["train"]["parallel"] = "ddp"
    (line,) = complaints_of(layout_of(**preset), sizes={"sft": ZEPHYR})
    assert line.startswith("preflight.gpu_memory_gb: found 80, but train needs 1")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"train": {"token_budget": 40_000}},
            r"preflight.gpu_memory_gb: found 80, but train needs 1\d\d GB a GPU; lower",
        ),
        ({"logprobs": {"token_budget": 4_000_000}}, "but logprobs needs .* GB a GPU; lower logprobs.token_budget"),
        ({"eval": {"token_budget": 4_000_000}}, "but eval needs .* GB a GPU; lower eval.token_budget"),
        (
            {"resources": {"train": {"gpu": 1, "runtime": 5}}},
            "resources.train.runtime: found 5 minutes, a job .* raise",
        ),
        ({"dialogue": {"max_tokens": 99_999}}, "dialogue.max_tokens: found 99999, over the context of 'base', 32768"),
        (
            {
                "models": {"sft": {"path": "none/here", "from": None, "loss": None, "data": None}},
                "data": {"fits": ["base", "sft", "teacher"]},
            },
            "models.sft.path: expected a file or folder at none/here, found none",
        ),
        (
            {"report": {"published": {"swift1": {"file": "no.csv"}}}},
            "report.published.swift1.file: expected a file or folder at no.csv, found none",
        ),
        ({"generate": {"given": "no.jsonl"}}, "generate.given: expected a file or folder at no.jsonl, found none"),
    ],
)
def test_what_would_fail_is_a_line(disk, changes, told):
    lines = complaints_of(layout_of(**changes))
    assert any(re.search(told, line) for line in lines), lines
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize("train", [{"loss": "tdpo1"}, {"loss": "wspin", "alpha": 0.5}])
def test_a_frozen_reference_that_does_not_fit_is_named(disk, train):
    """In place of fsdp, which the config refuses beside it."""
    changes = {"train": {"token_budget": 40_000}}
    (plain,) = complaints_of(layout_of(**changes))
    assert plain.endswith("or train.parallel: fsdp on more GPUs")
    (line,) = complaints_of(layout_of(arms={"wspin": {"train": train}}, **changes))
    assert line.endswith(f"or drop the KL term of 'wspin/ite0': loss {train['loss']} keeps a frozen reference for it")
    assert "fsdp" not in line


def test_names_of_the_family_that_the_study_lacks_are_listed(disk, tmp_path):
    path = tmp_path / "family.yaml"
    names = "contrasts: [wspin - spin, wpsin - spin]\ntasks: [average, gsm9k]"
    path.write_text(f"level: 0.05\n{names}\niterations: [last]\ntests: [seeds]\n")
    task, contrast = complaints_of(layout_of(report={"preregistration": str(path)}))
    assert task.startswith(f"{path}: tasks: expected those of this study (")
    assert task.endswith("found 'gsm9k'; correct it, or its tests count as not significant")
    assert contrast.startswith(f"{path}: contrasts: expected those of this study (")
    assert "found 'wpsin'; correct it" in contrast


def test_a_batch_of_two_is_for_one_gpu(disk):
    """The preset swift_paper, given more GPUs than its one."""
    assert complaints_of(layout_of(**SWIFT)) == []
    preset = merge(SWIFT, {"resources": {"train": {"gpu": 2}}})
    told = (
        "resources.train.gpu: found 2 for steps of 2 pairs, less than two for each; train on 1, or raise global_batch"
    )
    assert complaints_of(layout_of(**preset)) == [told]


def test_what_is_there_already_needs_no_disk(disk, tmp_path):
    """Models, tables and states of this study; not those of another study below it."""
    layout = layout_of(results=str(tmp_path))
    needed = sum(disk_of(estimator_of(layout)).values())
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
        r"results: found 100 GB free at /.*, the study needs 3\d\d GB more; name a folder on a .*", line
    )


def test_a_missing_vllm_is_a_line_with_the_sections_that_use_it(disk, monkeypatch):
    monkeypatch.setattr(complaints, "_has_vllm", lambda: False)
    missing = "vllm is not installed beside the study: run `make setup-vllm`"
    assert complaints_of(layout_of()) == [f"generate.engine: {missing}"]
    assert complaints_of(layout_of(eval={"engine": "vllm"})) == [f"generate.engine, eval.engine: {missing}"]
    transformers = {"engine": "transformers", "dtype": None, "gpu_memory": None}
    assert complaints_of(layout_of(generate=transformers)) == []
    suites = dict.fromkeys(STUDY["eval"]["suites"], "transformers")
    by_suite = layout_of(generate=transformers, eval={"engine": {**suites, "gsm8k": "vllm"}})
    assert complaints_of(by_suite) == [f"eval.engine.gsm8k: {missing}"]


def qwen3_32b():
    """A teacher in the shape of Qwen3-32B: 32.8 billion parameters."""
    shape = {"hidden_size": 5120, "intermediate_size": 25_600, "num_hidden_layers": 64, "head_dim": 128}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 151_936}
    return Size(AutoConfig.for_model("qwen3", **shape, **heads, max_position_embeddings=40_960))


def test_a_teacher_larger_than_a_gpu_is_a_line_with_its_remedy(disk):
    """Four bytes of 32.8 billion parameters are 131 GB; a model that is trained has to stay in float32."""
    line = "models.teacher.dtype: found float32 weights of 131 GB for a GPU of 80 GB; set it to bfloat16, "
    line += "which changes this model's log-probabilities and scores"
    lines = complaints_of(layout_of(), sizes={"base": QWEN, "teacher": qwen3_32b()})
    assert lines == [line]
    rounded = layout_of(models={"teacher": {"dtype": "bfloat16"}})
    assert complaints_of(rounded, sizes={"base": QWEN, "teacher": qwen3_32b()}) == []
    student = complaints_of(layout_of(), sizes={"base": qwen3_32b(), "teacher": ZEPHYR})
    assert not any("dtype" in text for text in student)


def test_only_models_that_a_job_loads_in_float32_are_too_large(disk):
    """Not one that the registry has for later, nor one that vLLM alone loads, in eval.autocast."""
    spare = {"hub": "Qwen/Qwen3-32B", "revision": "a" * 40, "template": "zephyr"}
    sizes = {"base": QWEN, "teacher": ZEPHYR, "spare": qwen3_32b()}
    assert complaints_of(layout_of(models={"spare": spare}), sizes=sizes) == []
    models = [*STUDY["eval"]["models"], "spare"]
    for changes in ({}, {"engine": "vllm", "autocast": "float32"}):
        (line,) = complaints_of(layout_of(models={"spare": spare}, eval={"models": models, **changes}), sizes=sizes)
        assert line.startswith("models.spare.dtype: found float32 weights of 131 GB")
    by_vllm = complaints_of(layout_of(models={"spare": spare}, eval={"models": models, "engine": "vllm"}), sizes=sizes)
    assert not any("dtype" in line for line in by_vllm)


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


@pytest.fixture
def printed(capsys, monkeypatch):
    """(exit code, standard output, lines of standard error) of the program, over these overlays."""

    monkeypatch.setattr(slurm, "_told", lambda *command: "")  # of a cluster that other tests may have started

    def of(*overlays):
        with pytest.raises(SystemExit) as end:
            program.main([*(["--configfile"] if overlays else []), *map(str, overlays)])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err.splitlines()

    return of


def test_the_table_of_the_study_needs_no_network(printed, disk):
    code, output, errors = printed()
    assert re.search(r"^train +spin/ite1 ... spin/ite3 +3 +8 +\d+\.\d +3,\d\d\d +\d", output, re.MULTILINE), output
    assert re.search(r"^logprobs +teacher scores gold +5 +1 ", output, re.MULTILINE)
    assert "Revisions and access are not checked: " in output
    assert "Mean tokens: prompt 137, real answer 273, generated 229 (assumed in the config" in output
    assert max(map(len, output.split("stage ")[-1].split("\n\n")[0].splitlines())) < 130
    assert (code, errors, output.splitlines()[-1]) == (0, [], "preflight: no problems")


def test_problems_are_a_line_each_below_one_table(printed, disk):
    """Without the lines that Snakemake would print around them, and with an exit code that `make` sees."""
    disk(100)
    code, output, errors = printed("config/overlays/swift_paper.yaml")
    assert (code, output.count("stage ")) == (1, 1)
    (error,) = errors
    assert error.startswith("preflight.py: error: results: found 100 GB free at ")
    assert output.splitlines()[-1] == "preflight: 1 problem"


def test_unknown_models_make_the_result_at_least(printed, disk, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"models: {{teacher: {{hub: lab/unknown, revision: {'a' * 40}}}}}\n")
    code, output, _ = printed(overlay)
    assert re.search(r"^all +at least +\d+", output, re.MULTILINE)
    assert (code, output.splitlines()[-1]) == (0, "preflight: no problems, of what can be estimated")


def test_the_demo_has_nothing_to_mend(printed, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"results: {tmp_path}/results\n")
    code, output, _ = printed("config/overlays/demo.yaml", overlay)
    assert (code, output.splitlines()[-1]) == (0, "preflight: no problems")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train: {global_batch: 4}", "for each GPU .resources.train.gpu 8., found 4"),
        ("generate: {max_new_tokens: 1500}", "max_new_tokens: expected at most 1024 .dialogue.max_tokens 2048"),
    ],
)
def test_what_the_config_refuses_stops_it_at_once(tmp_path, change, told):
    (tmp_path / "overlay.yaml").write_text(f"{change}\n")
    with pytest.raises(StudyError, match=told):
        program.main(["--configfile", str(tmp_path / "overlay.yaml")])


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
