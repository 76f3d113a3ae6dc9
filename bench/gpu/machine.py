"""The machine of a check; looked at in a process of its own, since a CUDA context takes memory as long as it lives."""

from importlib.util import find_spec

from ..measure import in_new_process, machine, version

PACKAGES = ("triton", "liger-kernel", "lm-eval", "snakemake")  # besides those of all benchmarks


def cuda_problem() -> str | None:
    """Why nothing can run here; None on a machine with a GPU that torch can use."""
    if find_spec("torch") is None:
        return "expected torch for CUDA, found no torch; docs/gpu.md says how to make such an environment"
    build, devices = in_new_process(torch_build)
    if devices:
        return None
    return f"expected a CUDA device, found none (torch {build}); run it on a machine with a GPU"


def torch_build() -> tuple[str, int]:
    """(version, number of CUDA devices)"""
    import torch

    return torch.__version__, torch.cuda.device_count()


def facts(device: str) -> dict[str, str]:
    """The machine in words, and versions."""
    words = {row.quantity: row.value for row in machine(device)}
    words |= {name: version(name) for name in PACKAGES}
    if device == "cuda":
        import torch

        gpu = torch.cuda.get_device_properties(0)
        words["memory of the GPU"] = f"{gpu.total_memory / 1e9:.0f} GB"
        words["CUDA"] = f"{torch.version.cuda}, compute capability {gpu.major}.{gpu.minor}"
    return words
