"""The precision of an evaluation: of products, of weights, of the log-probabilities; and none that nobody asked for."""

import importlib
import sys
import types

import pytest
import torch
from lm_eval.api.instance import Instance

from wspin.config.stages import EvalSettings
from wspin.eval import language_models
from wspin.models import checkpoint, folders, vllm

PAIRS = [("Spell this word backward: stone", text) for text in (" enots", " stone", " wodniw")]


def settings(autocast, engine="transformers"):
    sizes = {"token_budget": 2048, "batch_size": 2}
    return EvalSettings(engine=engine, autocast=autocast, seeds=[0, 1234, 1234, 1234], **sizes)


def loglikelihoods(lm):
    requests = [Instance("loglikelihood", {}, pair, i, ("task", i, 1)) for i, pair in enumerate(PAIRS)]
    return [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]


@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_products_have_the_precision_of_the_settings(scratch_model, autocast):
    """And the weights of linear layers; other weights and the log-probabilities stay in float32."""
    lm = language_models.hugging_face_model(scratch_model, settings(autocast), None)
    linear = {name for name, module in lm.model.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, weight in lm.model.named_parameters(remove_duplicate=False):
        assert weight.dtype == (getattr(torch, autocast) if name.rpartition(".")[0] in linear else torch.float32)
    seen = []
    layer = lm.model.model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    found = loglikelihoods(lm)
    assert set(seen) == {getattr(torch, autocast)}
    exact = loglikelihoods(language_models.hugging_face_model(scratch_model, settings("float32"), None))
    assert found == pytest.approx(exact, rel=0.02)
    assert (found == exact) == (autocast == "float32")
    rounded = torch.tensor(found).bfloat16().tolist()
    assert autocast == "float32" or found != rounded  # sums of log-probabilities in float32


@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_a_model_that_is_loaded_rounded_scores_and_generates(scratch_model, autocast):
    """Close to float32's, with log-probabilities in float32."""
    lm = language_models.hugging_face_model(scratch_model, settings(autocast), None, "bfloat16")
    assert {weight.dtype for weight in lm.model.parameters()} == {torch.bfloat16}
    found = loglikelihoods(lm)
    exact = loglikelihoods(language_models.hugging_face_model(scratch_model, settings("float32"), None))
    assert found == pytest.approx(exact, rel=0.03) and found != exact
    assert found != torch.tensor(found).bfloat16().tolist()
    request = Instance("generate_until", {}, ("Spell", {"until": ["\n"], "max_gen_toks": 4}), 0, ("task", 0, 1))
    assert all(isinstance(text, str) for text in lm.generate_until([request], disable_tqdm=True))


def test_vllm_loads_weights_in_the_precision_of_the_settings(monkeypatch):
    options = {}
    backend = types.SimpleNamespace(VLLM=lambda folder, **given: options.update(given))
    monkeypatch.setitem(sys.modules, "lm_eval.models.vllm_causallms", backend)
    monkeypatch.setattr(vllm, "import_vllm", lambda stage: None)
    monkeypatch.setattr(checkpoint, "check_weights", lambda folder: None)
    monkeypatch.setattr(folders, "context_length", lambda folder: 128)
    for autocast in ("float32", "bfloat16"):
        language_models.vllm_model("model", settings(autocast, "vllm"))
        assert options["dtype"] == autocast
    language_models.vllm_model("model", settings("float32", "vllm"), "bfloat16")
    assert options["dtype"] == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_score_files_hold_the_precision_of_the_loaded_weights(scratch_model, tmp_path, engine, autocast, dtype):
    """vLLM has weights and products in one precision."""
    program = importlib.import_module("eval")
    folders.write_manifest(scratch_model, tmp_path / "manifest.json")
    flags = ["--model", scratch_model, "--manifest", tmp_path / "manifest.json", "--tasks", tmp_path / "tasks"]
    flags += ["--suite", "demo", "--template", "human-assistant", "--eos", "</s>", "--shots", "spell=0"]
    flags += ["--scores", tmp_path / "demo.json", "--samples", tmp_path / "demo.parquet", "--state", tmp_path / "state"]
    flags += ["--engine", engine, "--autocast", autocast, "--batch-size", 2, "--seeds", 0, 1234, 1234, 1234]
    flags += ["--dtype", dtype, *(["--token-budget", 64] if engine == "transformers" else [])]
    stored = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "check_digests", lambda folder: None)
        patch.setattr(program, "score", lambda flags, settings, metadata: stored.append(metadata))
        patch.setattr(program.cli, "write_records", lambda *_, **__: None)
        program.main([str(flag) for flag in flags])
    rounded = "bfloat16" in ((autocast, dtype) if engine == "vllm" else (dtype,))
    assert [metadata["dtype"] for metadata in stored] == ["bfloat16" if rounded else "float32"]
    assert stored[0]["autocast"] == autocast


def test_no_evaluation_switches_tf32_on(scratch_model):
    """lm-eval, transformers and accelerate are imported above."""
    before = tf32()
    assert before[:2] == ("highest", False)
    loglikelihoods(language_models.hugging_face_model(scratch_model, settings("float32"), None))
    assert tf32() == before


def tf32():
    """The switches of torch; the last one concerns convolutions, which no supported model has."""
    backends = torch.backends
    return torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
