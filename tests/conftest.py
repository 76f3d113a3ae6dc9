"""What the tests share: a small model made from scratch, and the study's own configuration."""

import os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

import pytest  # noqa: E402

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items):
    """Skip what cannot run here, with its reason."""
    if not any("gpu" in item.keywords for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def texts():
    """Raw text that trains a scratch model's tokenizer."""
    words = "stone river cloud garden window silver number letter kitchen morning yellow planet basket thunder".split()
    return [f"Spell this word backward (example: sun -> nus): {word}" for word in words] + [word[::-1] for word in words]


@pytest.fixture(scope="session")
def scratch_model(tmp_path_factory, texts):
    """Folder of a Qwen2 with 20 thousand random parameters and a byte-level BPE."""
    from wspin import models
    from wspin.config import Scratch

    folder = tmp_path_factory.mktemp("scratch")
    settings = Scratch(
        architecture="qwen2", text="sft", vocabulary=270, hidden=32, intermediate=64, layers=2, heads=2, context=128
    )
    models.make_scratch(settings, texts, "<|endoftext|>", 1, folder)
    models.write_manifest(folder, folder.parent / f"{folder.name}.json")
    return folder


@pytest.fixture(scope="session")
def dialogue(scratch_model):
    """Conversations of the scratch model in the study's template."""
    from wspin import config, models
    from wspin.dialogue import Dialogue

    settings = config.Dialogue(
        template="human-assistant", eos="<|endoftext|>", max_prompt_tokens=64, max_tokens=96, eos_on_cut=False
    )
    return Dialogue(models.load_tokenizer(scratch_model), settings)
