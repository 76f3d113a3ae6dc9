"""Imports torch and transformers, without the optional packages that transformers would import too.

Every job of the study is a process of its own, so even a small study pays for an import a hundred times.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

UNUSED = ("sklearn", "scipy", "datasets")  # for assisted decoding, object detection, and a type check in the Trainer


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make packages look uninstalled while the block runs; libraries that check meanwhile remember the result.

    Afterwards the packages can be imported as usual, as lm-eval does with some of them.
    """
    names = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # None in sys.modules makes an import fail
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def import_transformers() -> None:
    """Import torch and transformers without `UNUSED`; does nothing if transformers is imported already.

    The garbage collector is off meanwhile: modules are not garbage, and scanning them takes a fifth of the import.
    """
    if "transformers" in sys.modules:
        return
    gc.disable()
    try:
        with hidden(*UNUSED):
            from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
            from transformers.utils import is_datasets_available

            is_datasets_available()  # cached, for the Trainer's check
    finally:
        gc.enable()
    gc.freeze()


def import_transformers_offline() -> None:
    """Import the hub's libraries without access to the network or progress bars; fetch has fetched what they need."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import_transformers()
