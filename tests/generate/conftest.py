"""The model of the jobs that are killed."""

import shutil

import pytest
from generations import EOS, job, run

import train
from wspin.config.flags import flags
from wspin.config.sources import Scratch
from wspin.config.stages import Dialogue
from wspin.models import folders, scratch
from wspin.storage import tables


@pytest.fixture(scope="session")
def start(texts, tmp_path_factory):
    """A folder of a small model from scratch, with heads of a size that vLLM computes on a CPU."""
    folder = tmp_path_factory.mktemp("start") / "model"
    size = {"vocabulary": 270, "hidden": 64, "intermediate": 64, "layers": 2, "heads": 2, "context": 128}
    scratch.make_scratch(Scratch(architecture="qwen2", text="sft", **size), texts, EOS, 1, folder)
    folders.write_manifest(folder, folder.with_suffix(".json"))
    return folder


@pytest.fixture(scope="session")
def talkative(start, tmp_path_factory):
    """A folder of a small model with weights ten times too large: what it says depends on what it reads."""
    import torch

    folder = tmp_path_factory.mktemp("talkative") / "model"
    model = folders.load_model(start, "cpu")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(10.0)
    folders.publish(model, start, folder, folder.with_suffix(".json"))
    return folder


@pytest.fixture(scope="session")
def trained(start, texts, train_settings, tmp_path_factory):
    """Folder of a model that `train` made to spell words backward, beside the rows, `prompts.parquet`."""
    folder = tmp_path_factory.mktemp("trained")
    ids = [f"train-{i:02}" for i in range(14)]
    rows = {"prompt_id": ids, "prompt": texts[:14], "response": texts[14:], "split": ["train"] * 14}
    tables.write(folder / "prompts.parquet", "prompts", rows, {})
    strong = {"optimizer": "adamw", "learning_rate": 1e-2, "epochs": 60, "global_batch": 7, "save_every": 999}
    settings = train_settings(loss="sft", beta=None, label_smoothing=None, **strong)
    dialogue = Dialogue(template="human-assistant", eos=EOS, max_prompt_tokens=96, max_tokens=128, eos_on_cut=False)
    files = {"model": start, "manifest": start.with_suffix(".json"), "rows": folder / "prompts.parquet"}
    files |= {"state": folder / "state", "output": folder / "model", "output-manifest": folder / "model.json"}
    files |= {"metrics": folder / "metrics.jsonl"}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    words += [*flags(settings), *flags(dialogue), *("--seed", 42, 0, "--processes", 1, "--replays", 0)]
    train.main([str(word) for word in (*words, "--autocast", "float32")])
    return folder / "model"


@pytest.fixture(scope="session")
def answered(trained, tmp_path_factory):
    """A folder with the study's greedy answers of the trained model to the prompts of its training."""
    folder = tmp_path_factory.mktemp("answered")
    shutil.copyfile(trained.with_name("prompts.parquet"), folder / "prompts14.parquet")
    lengths = {"temperature": 0, "max-prompt-tokens": 96, "max-tokens": 128}
    run(job(folder, trained, folder / "answers.parquet", count=14, **lengths))
    return folder
