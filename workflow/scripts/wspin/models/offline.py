"""Imports torch and transformers, without the optional packages that transformers would import too.

Every job of the study is a process of its own, so even a small study pays for an import a hundred times.
"""

import gc
import os
import sys

from wspin.garbage import uncollected

UNUSED = ("sklearn", "scipy", "datasets")  # for assisted decoding, object detection, and a type check in the Trainer


def import_transformers() -> None:
    """Import torch and transformers without `UNUSED`; does nothing if transformers is imported already.

    These look uninstalled only meanwhile: lm-eval imports some of them later. Scanning modules for garbage, which they
    are not, would take a fifth of the import.
    """
    if "transformers" in sys.modules:
        return
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None in sys.modules makes an import fail
    try:
        with uncollected():
            from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
            from transformers.utils import is_datasets_available

            is_datasets_available()  # cached, for the Trainer's check
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
    gc.freeze()


def import_transformers_offline() -> None:
    """Import the hub's libraries without access to the network or progress bars; fetch has fetched what they need.

    transformers' own notes stay off: `models` checks what they report of a model that is loaded, and the Trainer calls
    a tied head missing, which is in no saved state. Products of float32 stay float32: some containers set
    TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, with which torch would round them to TF32. No other library here does so, as long
    as neither the Trainer nor accelerate compiles models.
    """
    bars = ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")  # of tqdm all whose caller does not insist
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", *bars), "1")
    import_transformers()
    import torch
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_float32_matmul_precision("highest")
