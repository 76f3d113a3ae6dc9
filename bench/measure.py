"""Measures contenders in turn, round after round, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import gc
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy")


class Row(NamedTuple):
    """One raw number."""

    benchmark: str
    case: str
    contender: str
    round: int
    quantity: str
    value: Any


class Clock:
    """Seconds on the wall and of this process's CPU, added up over its `with` blocks."""

    def __init__(self, device: str = "cpu") -> None:
        self.wall = self.cpu = 0.0
        self.on_gpu = device == "cuda"

    def __enter__(self) -> Clock:
        self._wait()
        self.began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.wall += time.perf_counter() - self.began[0]
        self.cpu += time.process_time() - self.began[1]

    def _wait(self) -> None:
        """A GPU works on while Python goes on."""
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()

    def told(self, prefix: str = "") -> dict[str, float]:
        return {f"{prefix}seconds": self.wall, f"{prefix}cpu_seconds": self.cpu}


def interleaved(
    benchmark: str, case: str, contenders: Mapping[str, Callable[[], Mapping[str, Any]]], rounds: int
) -> Iterator[Row]:
    """Every contender once per round; each answers with its quantities."""
    for turn in range(rounds):
        for name, contender in contenders.items():
            gc.collect()
            began = time.perf_counter()
            told = contender()
            took = time.perf_counter() - began
            print(
                f"bench: {benchmark} {case}, {turn + 1} of {rounds}: {name}, {took:.1f} s", file=sys.stderr, flush=True
            )
            yield from (Row(benchmark, case, name, turn, *entry) for entry in told.items())


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result from a process of its own: what one leaves in memory slows the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        return pool.submit(function, *arguments).result()


def run(name: str, quick: bool, device: str) -> list[Row]:
    """The numbers of the benchmark in `bench.<name>`."""
    found = importlib.import_module(f"bench.{name}").run(quick, device)
    return [row._replace(benchmark=label(name, device)) for row in found]


def one_thread() -> None:
    """Threads that wait for each other on shared cores measure the machine's other guests."""
    import torch

    torch.set_num_threads(1)


def machine(device: str = "cpu") -> list[Row]:
    """What the numbers were measured on, without the machine's name."""
    told = {"processor": _processor(), "threads": 1, "system": f"{platform.system()} {platform.machine()}"}
    told |= {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    if device == "cuda":
        import torch

        told = {"GPU": torch.cuda.get_device_name(), **told}
    return [Row(label("machine", device), "", "", 0, name, str(value)) for name, value in told.items()]


def label(benchmark: str, device: str) -> str:
    """What a benchmark's numbers are told under."""
    return benchmark if device == "cpu" else f"{benchmark} on a GPU"


def _processor() -> str:
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in found.splitlines() if line.startswith("model name")]
    flags = next((line for line in found.splitlines() if line.startswith("flags")), "")
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return ", ".join(filter(None, [names[0] if names else platform.processor(), f"{os.cpu_count()} cores", vectors]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
