"""Results of the demo as its programs leave them, of a model or two, in place of a run."""

import json
import shutil

from wspin.config.load import load_study, merge, merge_files
from wspin.models import folders
from wspin.storage import provenance
from wspin.storage.files import write_json, write_yaml

CONFIG = ("config/config.yaml", "config/overlays/demo.yaml")
SCORES = {
    "suite": "demo",
    "engine": "transformers",
    "dtype": "float32",
    "autocast": "float32",
    "token_budget": 2048,
    "batch_size": 128,
    "seeds": [0, 1234, 1234, 1234],
    "versions": {"lm_eval": "0.4.13", "torch": "2.13.0", "transformers": "5.19.0"},
    "template": "human-assistant",
    "tasks": {
        task: {
            "shots": 0,
            "version": "1.0",
            "n": 400,
            "prompt_hash": "a",
            "metrics": {key: 0.5},
            "stderr": {key: 0.025},
        }
        for task, key in (("spell_backward", "exact_match,none"), ("spell_backward_choice", "acc,none"))
    },
}
SETTINGS = {"train": {"beta": 1.0, "loss": "wspin"}, "seed": [42, 3], "autocast": "float32"}


def study(root, results, **edit):
    """A folder of results with its resolved study; `edit` is merged into the configuration."""
    mapping = merge_files([root / name for name in CONFIG])
    resolved = load_study(merge(mapping, {"results": str(results), **edit}))
    write_yaml(results / "config.yaml", resolved.model_dump(mode="json", by_alias=True, exclude_none=True))
    return results


def put_model(results, name, source):
    """A finished model: the files of `source`, its manifest, and the record of a training."""
    folder = results / name / "model"
    shutil.copytree(source, folder)
    folders.write_manifest(folder, results / name / "manifest.json")
    record = {"program": "train", "code": "c0de", "commit": "abc", "host": "node17", "threads": 1, "seconds": 7.0}
    record |= {"command": ["train.py", "--output", str(folder)], "started": "2026-01-01T00:00:00+00:00"}
    record |= {"inputs": {str(results / "data/prompts.parquet"): "11", "/elsewhere/given.parquet": "22"}}
    record |= {"cpu_seconds": 8.0, "peak_memory_mb": 600, "versions": {"torch": "2.13.0"}, "settings": SETTINGS}
    provenance.write_record(folder, record)
    return folder


def put_scores(results, name):
    """The scores of a finished model."""
    fingerprint = json.loads((results / name / "manifest.json").read_text())["model"]
    (results / name / "scores").mkdir(exist_ok=True)
    write_json(results / name / "scores/demo.json", {**SCORES, "model": fingerprint})
