"""What the tests share: a small model made from scratch, and the study's own configuration."""

import os
import signal
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads than cores make small models a hundred times slower

import hypothesis
import pytest
import workflow

ROOT = Path(__file__).parent.parent

hypothesis.settings.register_profile("tests", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("tests")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it, and so would all programs


def pytest_collection_modifyitems(items):
    """Skip what cannot run here, with its reason."""
    marked = [item for item in items if item.get_closest_marker("gpu")]  # not its keywords: a folder may be named gpu
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def texts():
    """Raw text that trains a scratch model's tokenizer."""
    words = [
        "stone",
        "river",
        "cloud",
        "garden",
        "window",
        "silver",
        "number",
        "letter",
        "kitchen",
        "morning",
        "yellow",
        "planet",
        "basket",
        "thunder",
    ]
    return [f"Spell this word backward (example: sun -> nus): {word}" for word in words] + [
        word[::-1] for word in words
    ]


@pytest.fixture(scope="session")
def scratch_model(tmp_path_factory, texts):
    """Folder of a Qwen2 with 20 thousand random parameters and a byte-level BPE."""
    from wspin.config.sources import Scratch
    from wspin.models import folders, scratch

    folder = tmp_path_factory.mktemp("scratch")
    settings = Scratch(
        architecture="qwen2", text="sft", vocabulary=270, hidden=32, intermediate=64, layers=2, heads=2, context=128
    )
    scratch.make_scratch(settings, texts, "<|endoftext|>", 1, folder)
    folders.write_manifest(folder, folder.parent / f"{folder.name}.json")
    return folder


@pytest.fixture(scope="session")
def scored_study(tmp_path_factory, scratch_model, texts):
    """A folder of files that several models scored; see `scored.make`. Tests only read it."""
    import scored

    folder = tmp_path_factory.mktemp("scored")
    scored.make(folder, scratch_model, texts)
    return folder


@pytest.fixture(scope="session")
def chat(scratch_model):
    """The scratch model's tokenizer with the study's template."""
    from wspin.config.stages import Dialogue
    from wspin.data.chat import ChatTokenizer
    from wspin.models import folders

    settings = Dialogue(
        template="human-assistant", eos="<|endoftext|>", max_prompt_tokens=64, max_tokens=96, eos_on_cut=False
    )
    return ChatTokenizer(folders.load_tokenizer(scratch_model), settings)


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A copy of the repository in which nothing has run; for dry runs."""
    return workflow.checkout(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished study of two arms, made by stubs; for dry runs."""
    study = workflow.checkout(tmp_path_factory.mktemp("finished"), workflow.TWO_ARMS)
    study.use_stubs()
    study.make("all")
    return study


@pytest.fixture(scope="session")
def weighed(tmp_path_factory):
    """A finished study with arms that weigh their tokens, made by stubs; for dry runs."""
    study = workflow.checkout(tmp_path_factory.mktemp("weighed"), workflow.TWO_ARMS, workflow.WEIGHED)
    study.use_stubs()
    study.make("all")
    return study


@pytest.fixture
def study(finished, tmp_path):
    """A finished study of the test's own."""
    return finished.copy(tmp_path / "study")


@pytest.fixture
def model(scratch_model):
    """The scratch model with weights ten times larger, so that what it says depends on what it reads."""
    import torch

    from wspin.models import folders

    made = folders.load_model(scratch_model, "cpu")
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(10.0)
    return made


@pytest.fixture(scope="session")
def make_items():
    """Makes items of random ids, EOS among them: prompts of 2 to 9 tokens, answers of 1 to 8."""
    import numpy as np

    from wspin.engine.packing import Item

    def make(count, answers=2, seed=0):
        rng = np.random.default_rng(seed)

        def ids(longest):
            return rng.integers(0, 270, rng.integers(1, longest)).astype(np.int32)

        return [Item(np.append(ids(9), 7), tuple(ids(9) for _ in range(answers))) for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def train_settings():
    """Makes the settings of a short training."""
    from wspin.config.stages import Train

    defaults = {
        "loss": "spin",
        "beta": 0.5,
        "learning_rate": 1e-3,
        "epochs": 1,
        "global_batch": 4,
        "token_budget": 4096,
        "triplets": False,
        "gradient_checkpointing": False,
        "parallel": "ddp",
        "optimizer": "rmsprop",
        "schedule": {"warmup": 0.0, "decay": "linear"},
        "weight_decay": 0.0,
        "max_grad_norm": 10.0,
        "label_smoothing": 0.0,
        "reduction": "token_mean",
        "margin_bound": {"float32": 1e-3, "bfloat16": 1.0},
        "save_every": 2,
        "report_to": "none",
    }
    return lambda **changes: Train.model_validate({**defaults, **changes})
