"""The study's own configuration under overlays, for tests."""

import copy
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from wspin.config.load import load_study
from wspin.errors import StudyError

CONFIG = Path(__file__).parents[1] / "config"
BASE = CONFIG / "config.yaml"
SCRATCH = {
    "architecture": "qwen2",
    "text": "sft",
    "vocabulary": 320,
    "hidden": 64,
    "intermediate": 128,
    "layers": 2,
    "heads": 2,
}


def merged(*overlays):
    """The study of config.yaml under overlays, merged as Snakemake merges them."""
    study = yaml.safe_load(BASE.read_text())
    for overlay in overlays:
        update_config(study, copy.deepcopy(overlay))
    return study


def load(overlay=None):
    return load_study(merged(overlay or {}), [BASE])


def refusal(overlay):
    with pytest.raises(StudyError) as error:
        load(overlay)
    return str(error.value)


def line_of(text, file=BASE):
    """`file:line` of the first line that begins with a text, blanks aside."""
    lines = file.read_text().splitlines()
    return f"{file}:{next(i for i, line in enumerate(lines, 1) if line.strip().startswith(text))}"
