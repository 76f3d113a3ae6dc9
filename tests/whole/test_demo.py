"""The demo's models have the same bytes on every machine of the kind that README names."""

import json
from pathlib import Path

import pytest
import workflow
from runs import DEMO, Run

# First digits of the sha256 of model.safetensors, from an AMD processor without AVX-512 and one with it.
DIGESTS = {"sft": "7d24d3a181ed", "teacher": "402fb45c915d", "spin/ite0": "8b087e77a708"}
LAST_DIGESTS = {"spin/ite3": "a0eedcab0890", "wspin/ite3": "ee9e70b7cdda"}  # of the whole demo, if it has been run


def digest(folder, model):
    manifest = json.loads((folder / DEMO / model / "manifest.json").read_text())
    return manifest["files"]["model.safetensors"][:12]


def not_amd():
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or "AuthenticAMD" not in cpuinfo.read_text()


@pytest.mark.demo
@pytest.mark.skipif(not_amd(), reason="no AMD processor: on others MKL multiplies matrices with other kernels")
def test_models_have_the_same_bytes_whatever_the_processor(tmp_path):
    """300 steps amplify a last bit: equal weights after two trainings mean equal products, sums and random numbers."""
    repository = workflow.checkout(tmp_path / "demo")
    targets = " ".join(f"{DEMO}/{model}/manifest.json" for model in DIGESTS)
    Run(repository.folder, ["make", "--old-file=setup", "--eval", f"part: ; $(DEMO) {targets}", "part"]).finish()
    assert {model: digest(repository.folder, model) for model in DIGESTS} == DIGESTS


@pytest.mark.demo
@pytest.mark.skipif(not_amd(), reason="no AMD processor: on others MKL multiplies matrices with other kernels")
def test_the_demo_of_this_checkout_has_the_same_bytes():
    if not (workflow.ROOT / DEMO / "tables/scores.md").exists():
        pytest.skip("no finished demo in this checkout: `make demo`")
    expected = DIGESTS | LAST_DIGESTS
    assert {model: digest(workflow.ROOT, model) for model in expected} == expected
