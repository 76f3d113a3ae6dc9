"""The model of the jobs that are killed."""

import pytest
from generations import EOS

from wspin.config.sources import Scratch
from wspin.models import folders, scratch


@pytest.fixture(scope="session")
def talkative(texts, tmp_path_factory):
    """A folder of a small model with weights ten times too large: what it says depends on what it reads."""
    import torch

    made, folder = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("talkative") / "model"
    size = {"vocabulary": 270, "hidden": 64, "intermediate": 64, "layers": 2, "heads": 2, "context": 128}
    scratch.make_scratch(Scratch(architecture="qwen2", text="sft", **size), texts, EOS, 1, made)
    model = folders.load_model(made, "cpu")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(10.0)
    folders.publish(model, made, folder, folder.with_suffix(".json"))
    return folder
