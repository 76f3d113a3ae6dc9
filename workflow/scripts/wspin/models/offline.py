"""Torch and transformers at half the price of their import: transformers takes along whatever it finds installed.

Every job of the study is a process of its own, so a demo pays for an import a hundred times.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Let packages look as if they were not installed to the libraries that look meanwhile, and keep the answer.

    Afterwards they can be imported as ever; lm-eval wants some of them.
    """
    names = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # None is Python's own sign for "not to be found"
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def load_transformers() -> None:
    """Import torch and transformers without what the study has no use for; nothing happens if they are there already.

    sklearn serves assisted decoding, scipy the losses of object detection, `datasets` a check of the Trainer's. The
    garbage collector rests: modules are no garbage, and to look through them time and again is a fifth of the import.
    """
    if "transformers" in sys.modules:
        return
    gc.disable()
    try:
        with hidden("sklearn", "scipy", "datasets"):
            from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
            from transformers.utils import is_datasets_available

            is_datasets_available()  # the Trainer asks later
    finally:
        gc.enable()
    gc.freeze()


def import_transformers_offline() -> None:
    """Import the hub libraries: kept from the network (what needs it is fetched before), their bars from the log."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    load_transformers()
