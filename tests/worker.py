"""One of several processes that train a model together (train/test_distributed.py); torchrun or accelerate start it.

    torchrun --nproc-per-node 2 tests/worker.py FOLDER      with what to train on in task.pickle

Leaves in FOLDER what each process saw at every step (seen-RANK.json), the state with its curve, and the whole weights.
"""

import json
import os
import pickle
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))
os.environ.update(HF_HUB_OFFLINE="1")

import torch

from wspin.models import folders
from wspin.train import distributed, run, trainer


def main(folder):
    task = pickle.loads((folder / "task.pickle").read_bytes())
    seen, step = [], trainer.PlannedTrainer._step

    def spied(self, model, indices):
        done = self.state.global_step
        seen.append([done, distributed.world_size(), self.accelerator.num_processes, type(model).__name__])
        if done == task["killed_at"]:
            os._exit(9)
        if done == task["stop_at"] and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGURG)
        return step(self, model, indices)

    trainer.PlannedTrainer._step = spied
    state = folder / "state"
    with distributed.locked_state(state):
        model = folders.load_model(task["model"], folders.best_device())
        run.train(model, task["items"], task["settings"], task["precision"], (42, 0), state)
        weights = distributed.full_state_dict(model) or model.state_dict()
    (folder / f"seen-{distributed.rank()}.json").write_text(json.dumps(seen))
    if distributed.rank() == 0:
        torch.save({name: weight.cpu() for name, weight in weights.items()}, folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
