"""Measures contenders in turn, round after round, so that other load on the machine affects all of them alike."""

import gc
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Self

PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy")
# Runs a command and writes its CPU time and peak memory to a file; too small to add to the peak.
MEASURE = """
import json, resource, subprocess, sys
result = subprocess.run(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
quantities = {"cpu_seconds": usage.ru_utime + usage.ru_stime, "bytes": usage.ru_maxrss * 1024}
json.dump(quantities, open(sys.argv[1], "w"))
sys.exit(result.returncode)
"""


class Row(NamedTuple):
    """One raw number."""

    benchmark: str
    case: str
    contender: str
    round: int
    quantity: str
    value: Any


class Clock:
    """Wall-clock and CPU seconds of this process, summed over its `with` blocks; on a GPU its peak memory too.

    `resident`: bytes of the GPU's memory that are no part of what is measured.
    """

    def __init__(self, device: str = "cpu", resident: int = 0) -> None:
        self.wall = self.cpu = 0.0
        self.peak, self.resident = 0, resident
        self.on_gpu = device == "cuda"

    def __enter__(self) -> Self:
        self._synchronize()
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self.started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._synchronize()
        self.wall += time.perf_counter() - self.started[0]
        self.cpu += time.process_time() - self.started[1]
        if self.on_gpu:
            import torch

            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - self.resident)

    def _synchronize(self) -> None:
        """Wait for the GPU, which works asynchronously."""
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()

    def quantities(self, prefix: str = "") -> dict[str, float]:
        memory = {f"{prefix}gpu_bytes": self.peak} if self.on_gpu else {}
        return {f"{prefix}seconds": self.wall, f"{prefix}cpu_seconds": self.cpu, **memory}


def interleaved(
    benchmark: str, case: str, contenders: Mapping[str, Callable[[], Mapping[str, Any]]], rounds: int, warm_up: int = 0
) -> Iterator[Row]:
    """Every contender once per round; a contender is a function that returns its quantities.

    `warm_up`: rounds before the first, in which kernels are compiled and loaded; not measured.
    """
    for round_ in range(-warm_up, rounds):
        for name, contender in contenders.items():
            gc.collect()
            started = time.perf_counter()
            quantities = contender()
            message = f"{benchmark} {case}, {round_ + 1} of {rounds}: {name}, {time.perf_counter() - started:.1f} s"
            print(f"bench: {message}", file=sys.stderr, flush=True)
            if round_ >= 0:
                yield from (Row(benchmark, case, name, round_, *entry) for entry in quantities.items())


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, computed in a new process: memory left by one benchmark slows the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=use_one_thread) as pool:
        return pool.submit(function, *arguments).result()


def of_command(command: Sequence[str | Path], report: Path) -> dict[str, float]:
    """CPU-seconds and peak bytes of a command, which must succeed; `report`: a file to write them to."""
    arguments = [sys.executable, "-c", MEASURE, report, *command]
    result = subprocess.run(arguments, capture_output=True, text=True)  # of whose output only errors are of interest
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:3]))} ...: {result.stderr}")
    return json.loads(report.read_text())


def run_case(name: str, quick: bool, device: str) -> list[Row]:
    """The numbers of the benchmark `bench.cases.{name}`."""
    rows = importlib.import_module(f"bench.cases.{name}").run(quick, device)
    return [row._replace(benchmark=label(name, device)) for row in rows]


def use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def machine(device: str = "cpu") -> list[Row]:
    """Hardware and versions, without the machine's name."""
    facts = {"processor": processor(), "threads": 1, "system": f"{platform.system()} {platform.machine()}"}
    facts |= {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    if device == "cuda":
        import torch

        facts = {"GPU": torch.cuda.get_device_name(), **facts}
    return [Row(label("machine", device), "", "", 0, name, str(value)) for name, value in facts.items()]


def label(benchmark: str, device: str) -> str:
    """The name of a benchmark in the file of numbers."""
    return benchmark if device == "cpu" else f"{benchmark} on a GPU"


def processor() -> str:
    """The machine's processor, its cores, and its widest vectors."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return ", ".join(filter(None, [names[0] if names else platform.processor(), f"{os.cpu_count()} cores", vectors]))


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
