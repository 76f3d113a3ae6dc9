"""The study of the paper as `preflight` estimates it, and changes to it."""

import workflow
import yaml
from configuration import load
from transformers import AutoConfig

from wspin.preflight.estimates import Estimator, mean_lengths
from wspin.preflight.sizes import Size
from wspin.study.paths import StudyPaths

ROOT = workflow.ROOT
STUDY, SWIFT = (
    yaml.safe_load((ROOT / "config" / name).read_text()) for name in ("config.yaml", "overlays/swift_paper.yaml")
)
QWEN, ZEPHYR = (
    Size(AutoConfig.from_pretrained(ROOT / "config/architectures" / name))
    for name in ("Qwen/Qwen1.5-1.8B", "alignment-handbook/zephyr-7b-sft-full")
)


def layout_of(**changes):
    return StudyPaths(load(changes))


def estimator_of(layout, sizes=None, requests=None):
    return Estimator(
        layout, {"base": QWEN, "teacher": ZEPHYR} if sizes is None else sizes, mean_lengths(layout), requests
    )


def row(estimator, stage, what):
    """The estimate of a stage's jobs."""
    (estimate,) = (estimate for estimate in estimator.all() if (estimate.stage, estimate.what) == (stage, what))
    return estimate
