"""Imports what the programs import, once: the processes that are forked from this one start at once."""

import gc
import importlib
import os
import pkgutil
from pathlib import Path

import pyarrow

import wspin
from wspin.models import offline
from wspin.storage import code_hash

OF_VLLM = ("wspin.generate.vllm_engine", "wspin.models.vllm")  # another environment's
SCRIPTS = Path(wspin.__file__).parent.parent
OTHERS = ("faults.points", "lm_eval.evaluator", "lm_eval.tasks", "matplotlib.backends.backend_agg", "reasoning_gym")

os.environ["HF_HUB_DISABLE_XET"] = "1"  # huggingface_hub reads it once; a program sets it before it imports that
offline.import_transformers_offline()
for module in pkgutil.walk_packages(wspin.__path__, "wspin."):
    if module.name not in OF_VLLM:
        importlib.import_module(module.name)
for program in SCRIPTS.glob("*.py"):
    importlib.import_module(program.stem)
    code_hash.code_hash(program.stem)  # its parts are cached
for name in OTHERS:
    importlib.import_module(name)
importlib.import_module("torch").set_num_threads(1)  # no pool of threads, which a fork would not have
pyarrow.set_cpu_count(1)
gc.freeze()
