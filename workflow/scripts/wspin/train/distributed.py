"""Several processes that train one model: who they are, how they meet, what they tell each other.

`accelerate launch` starts one process per GPU and tells each its place in the environment. Where there is no GPU the
same processes run on the CPU (gloo). Rank 0 alone writes files.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from wspin.errors import StudyError
from wspin.storage.locks import locked

PATIENCE = timedelta(days=30)  # for a lock that another job holds; the job's own time limit comes first
ANSWER = timedelta(hours=1)  # for one another: longer than rank 0 needs to save a state


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def expect(count: int) -> None:
    """Raise `StudyError` unless so many processes train, each with a GPU of its own where there are GPUs.

    A launcher that falls back to one process must not go unseen.
    """
    if processes() != count:
        told = f"found WORLD_SIZE {processes()}; start it with `accelerate launch` or torchrun, as the rule does"
        raise StudyError(f"train: expected {count} processes (--processes), {told}")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < gpus < here:
        raise StudyError(f"train: expected a GPU for each of {here} processes, found {gpus}; lower resources.train.gpu")


@contextmanager
def sole_writer(state: Path) -> Iterator[None]:
    """Make a state folder and hold its lock, in rank 0 on behalf of all; the others begin when it has it.

    Rank 0 may wait long, for an orphan of an earlier job: so the processes meet in the store that the launcher keeps
    before they form a group, whose members do not wait long for each other.
    """
    if processes() == 1:
        with locked(state):
            state.mkdir(exist_ok=True)
            yield
        return
    store, own, count = next(distributed.rendezvous("env://", timeout=PATIENCE))
    if own:
        store.wait(["locked"], PATIENCE)
        with _group(store, own, count):
            yield
        return
    with locked(state):
        state.mkdir(exist_ok=True)
        store.set("locked", "yes")
        with _group(store, own, count):
            yield


@contextmanager
def _group(store: Any, own: int, count: int) -> Iterator[None]:
    # the Trainer knows this setting by its old name; the new one would let a pass that is taken again wait for ever
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # Snakemake gives MKL all threads of the job
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, store=store, rank=own, world_size=count, timeout=ANSWER)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def whole_weights(model: Any) -> dict[str, torch.Tensor] | None:
    """The weights of a model of which every process holds a share, on the CPU of rank 0; None for a whole model.

    Every process must call it.
    """
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks. Tensors must lie on the CPU."""
    if processes() == 1:
        return [value]
    values = [None] * processes()
    distributed.all_gather_object(values, value)
    return values
