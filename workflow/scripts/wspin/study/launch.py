"""The command that starts a training with one process on each of its GPUs.

    0 or 1 GPU       python
    several          accelerate launch, on one node
    several nodes    srun starts accelerate launch once on each; rendezvous on the first

A machine without GPUs runs the same number of processes on its CPU.
"""

import re
from dataclasses import dataclass
from typing import Any, Self

from wspin.errors import StudyError

WORD = r"[A-Za-z0-9_./:=,+@%-]+"  # as the shell leaves it
GPUS = r"gpu(?::[A-Za-z_][\w.]*)?:(\d{1,4})"  # of each node, as SLURM writes them: gpu:4, gpu:h100:4
PLAIN = "--mixed_precision no --dynamo_backend no"  # accelerate changes nothing: precision is `logprobs.autocast`


@dataclass(frozen=True)
class Launch:
    """Resources of a job: nodes, GPUs on each, CPU threads on each, and the program that starts one task per node."""

    nodes: int
    gpus: int
    threads: int
    mpi: str = ""

    @classmethod
    def of(cls, resources: Any, threads: int) -> Self:
        """From a job's resources: `gpu` or `gres: gpu:N` on one node; `nodes`, `gres` and `mpi: srun` on several.

        Raises `StudyError` unless they give the GPUs of a node and the program that starts a task on each, as numbers
        and words: they become part of a shell command.
        """
        nodes, gres, mpi = (resources.get(name) for name in ("nodes", "gres", "mpi"))
        gpus = resources.get("gpu") or 0
        for name, number in (("nodes", nodes or 1), ("gpu", gpus)):
            if not isinstance(number, int):
                raise StudyError(f"train: resource {name}: expected a number, found {number!r}; correct the profile")
        if mpi and not re.fullmatch(f"{WORD}( {WORD})*", str(mpi)):
            expected = "expected a program and its flags, such as srun"
            raise StudyError(f"train: resource mpi: {expected}, found {str(mpi)!r}; correct the profile")
        counted = re.fullmatch(GPUS, str(gres or ""))
        per_node = int(counted[1]) if counted else 0
        if not nodes or nodes == 1:
            if str(gres or "").startswith("gpu") and (not counted or gpus not in (0, per_node)):
                expected = "expected resources gres: 'gpu:N' and gpu: 0, or gpu alone"
                raise StudyError(f"train: {expected}, found gres {gres!r} and gpu {gpus}; correct the profile")
            return cls(1, per_node or gpus, threads)
        if not per_node or not mpi:
            found = f"gres {gres!r} and mpi {mpi!r}"
            raise StudyError(f"train on {nodes} nodes: expected resources gres: 'gpu:N' and mpi: srun, found {found}")
        return cls(nodes, per_node, threads, str(mpi))

    @property
    def processes(self) -> int:
        return max(1, self.nodes * self.gpus)

    def command(self) -> str:
        """The words before the program's name, for a shell."""
        if self.processes == 1:
            return "python"
        threads = f"--num_cpu_threads_per_process {max(1, self.threads // max(1, self.gpus))}"
        counts = f"--num_machines {self.nodes} --num_processes {self.processes} {threads}"
        accelerate = f"accelerate launch --multi_gpu {counts} {PLAIN}"
        if self.nodes == 1:
            return f"{accelerate} --main_process_port 0"
        # rendezvous on the first node, where the job's script runs; srun gives each task its rank
        meet = "--main_process_ip $(hostname) --main_process_port $((20000 + SLURM_JOB_ID % 20000))"
        each = f"--nodes={self.nodes} --ntasks={self.nodes} --ntasks-per-node=1 --gpus-per-node={self.gpus}"
        inner = f'exec {accelerate} --machine_rank $SLURM_NODEID $MEET "$@"'
        return f"MEET=\"{meet}\" {self.mpi} {each} bash -c '{inner}' train"
