"""Several processes that train one model: ranks, rendezvous, collectives.

`accelerate launch` starts one process per GPU and sets each one's rank in the environment. Without a GPU the same
processes run on the CPU (gloo). Only rank 0 writes files.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule

from wspin.errors import StudyError
from wspin.storage.locks import locked

LOCK_TIMEOUT = timedelta(days=30)  # for a lock held by another job; the job's own time limit ends the wait earlier
COLLECTIVE_TIMEOUT = timedelta(hours=1)  # longer than rank 0 takes to save a state


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def check_launch(processes: int) -> None:
    """Raise `StudyError` unless this many processes run, each with a GPU of its own where there are GPUs.

    Catches a launcher that silently falls back to one process.
    """
    if world_size() != processes:
        found = f"found WORLD_SIZE {world_size()}; start it with `accelerate launch` or torchrun, as the rule does"
        raise StudyError(f"train: expected {processes} processes (--processes), {found}")
    size, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < gpus < size:
        raise StudyError(f"train: expected a GPU for each of {size} processes, found {gpus}; lower resources.train.gpu")


@contextmanager
def locked_state(state: Path) -> Iterator[None]:
    """Create a state folder and hold its lock: in rank 0, on behalf of all processes, which start once it is held.

    Rank 0 may wait for hours, until an orphan of an earlier job ends. So the processes first meet in the launcher's
    store, and form a group, whose collectives time out, only afterwards.
    """
    store = next(distributed.rendezvous("env://", timeout=LOCK_TIMEOUT))[0] if world_size() > 1 else None
    with ExitStack() as stack:
        if rank() > 0:
            store.wait(["locked"], LOCK_TIMEOUT)
        else:
            stack.enter_context(locked(state))
            state.mkdir(exist_ok=True)
        if store is not None:
            store.set("locked", "yes")
            _init_process_group(store)
            stack.callback(distributed.destroy_process_group)
        yield


def _init_process_group(store: Any) -> None:
    # The Trainer sets it by its old name. The new one would make a pass that is repeated wait for the others for ever.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # Snakemake gives MKL all threads of the job
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    place = {"rank": rank(), "world_size": world_size()}
    distributed.init_process_group(backend, store=store, timeout=COLLECTIVE_TIMEOUT, **place)


def full_state_dict(model: Any) -> dict[str, torch.Tensor] | None:
    """The weights of a sharded model, on the CPU of rank 0; None for a model that is not sharded. A collective."""
    if not isinstance(model, FSDPModule):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def gather(value: Any) -> list[Any]:
    """Every process's value, ordered by rank; a collective. Tensors must be on the CPU."""
    values = [value] * world_size()
    if len(values) > 1:
        distributed.all_gather_object(values, value)
    return values
