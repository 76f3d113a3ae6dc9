"""Imports vLLM, which has its own environment."""

import logging
import os
import warnings
from typing import Any

from wspin.errors import StudyError


def import_vllm(stage: str) -> Any:
    """vLLM, run within this process, without usage reports. Raises `StudyError` if it is not installed."""
    os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; for the CPU build
    warnings.filterwarnings("ignore", category=FutureWarning)  # from vLLM itself
    try:
        import vllm
    except ModuleNotFoundError as error:
        message = "expected the package vllm in this environment, found none; run `make setup-vllm`"
        raise StudyError(f"{stage}.engine vllm: {message}") from error
    logging.getLogger("vllm").setLevel(logging.ERROR)
    return vllm
