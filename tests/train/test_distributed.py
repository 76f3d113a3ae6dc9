"""Several processes train as one does. They run on the CPU and talk through gloo."""

import fcntl
import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
import workflow
from attacks import attack

from wspin.engine.batches import micro_batches, rank_passes
from wspin.errors import StudyError
from wspin.logprobs.score import score_items
from wspin.models import folders
from wspin.study.launch import Launch
from wspin.train import distributed
from wspin.train.fsdp import shard
from wspin.train.journal import mark_complete
from wspin.train.run import items_per_step

WORKER = workflow.ROOT / "tests/worker.py"
PAIRS, STEPS = 73, 20  # two epochs of ten steps; the last of an epoch has a single pair
NAMES = {"ddp": "DistributedDataParallel", "fsdp": "FSDPQwen2ForCausalLM"}


def start(processes, folder, on_gpus=False):
    """So many workers, through torchrun if they are several."""
    environment = workflow.environment() | ({} if on_gpus else {"CUDA_VISIBLE_DEVICES": ""})
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *several, str(WORKER), str(folder)]
    with open(folder / "log", "w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory, scratch_model):
    """Folder of the scratch model with weights so large that what it says depends on what it reads."""
    folder = tmp_path_factory.mktemp("loud")
    model = folders.load_model(scratch_model, "cpu")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(10.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def items(saved_model, make_items):
    """Pairs of uneven lengths with the model's own reference."""
    pairs = make_items(PAIRS)
    scores = score_items(folders.load_model(saved_model, "cpu"), pairs, 4096, "float32")
    return [replace(item, reference=tuple(own)) for item, own in zip(pairs, scores, strict=True)]


@pytest.fixture(scope="session")
def prepare(saved_model, items, train_settings):
    """Writes a training for the workers into a folder."""

    def prepared(folder, killed_at=None, stop_at=None, **changes):
        base = {"epochs": 2, "global_batch": 8, "token_budget": 40, "learning_rate": 1e-4, "save_every": 7}
        settings = train_settings(**{**base, **changes})
        task = {"model": saved_model, "items": items, "settings": settings, "precision": "float32"}
        (folder / "task.pickle").write_bytes(pickle.dumps({**task, "killed_at": killed_at, "stop_at": stop_at}))
        return folder

    return prepared


def finish(process, folder, expect=0):
    code, log = process.wait(timeout=300), (folder / "log").read_text()
    assert bool(code) == bool(expect), log
    return log


@pytest.fixture(scope="session")
def together(tmp_path_factory, prepare):
    """Trains from nothing with so many processes, once for equal arguments; returns the folder."""
    done = {}

    def trained(processes, **changes):
        key = (processes, *sorted(changes.items()))
        if key not in done:
            done[key] = prepare(tmp_path_factory.mktemp("together"), **changes)
            finish(start(processes, done[key]), done[key])
        return done[key]

    return trained


def curve(folder):
    return [json.loads(line) for line in (folder / "state/metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return torch.cat([weight.flatten() for weight in torch.load(folder / "weights.pt").values()])


def seen(folder, rank=0):
    return json.loads((folder / f"seen-{rank}.json").read_text())


# The same training


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.faults)])
def test_the_trace_does_not_depend_on_the_number_of_processes(together, saved_model, processes, kind):
    """Losses and gradient norms agree to 1e-6 in the first step and 1e-5 in all; what is counted is equal."""
    one, several = together(1), together(processes, parallel=kind)
    for rank in range(processes):
        assert seen(several, rank) == [[step, processes, processes, NAMES[kind]] for step in range(STEPS)]
    assert seen(one) == [[step, 1, 1, "Qwen2ForCausalLM"] for step in range(STEPS)]
    for step, (found, expected) in enumerate(zip(curve(several), curve(one), strict=True)):
        assert found.keys() == expected.keys()
        for key in ("loss", "grad_norm"):
            assert found[key] == pytest.approx(expected[key], rel=1e-5 if step else 1e-6), (step, key)
        for key in ("step", "learning_rate", "work/tokens", "work/needed", "rewards/accuracy"):
            assert found[key] == expected[key], (step, key)
        for key in ("rewards/margin", "unweighted/margin", "logprobs/chosen", "logprobs/rejected"):
            assert found[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-5), (step, key)
    began = torch.cat([weight.flatten() for weight in folders.load_model(saved_model, "cpu").state_dict().values()])
    assert (weights(several) - weights(one)).norm() < 1e-3 * (weights(one) - began).norm()


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_killed_and_started_again_it_ends_the_same_bit_for_bit(together, prepare, tmp_path, kind):
    """From a state that all processes can read: the one after it is unreadable, as rank 0 finds."""
    finish(start(2, prepare(tmp_path, parallel=kind, killed_at=10)), tmp_path, expect=1)
    assert len(curve(tmp_path)) == 10
    unreadable = shutil.copytree(tmp_path / "state/checkpoint-7", tmp_path / "state/checkpoint-9")
    (unreadable / "optimizer.pt").write_bytes(b"of another version")
    mark_complete(unreadable)
    log = finish(start(2, prepare(tmp_path, parallel=kind)), tmp_path)
    assert log.count("checkpoint-9: optimizer.pt cannot be read") == 1
    assert log.count("train: 7 of 20 steps, resumed") == 1
    assert seen(tmp_path)[0][0] == 7
    whole = together(2, parallel=kind)
    assert torch.equal(weights(tmp_path), weights(whole))
    assert curve(tmp_path) == curve(whole)


@pytest.mark.faults
def test_another_number_of_processes_goes_on_from_what_was_saved(together, prepare, tmp_path):
    finish(start(2, prepare(tmp_path, killed_at=10)), tmp_path, expect=1)
    finish(start(1, prepare(tmp_path)), tmp_path)
    assert [step[0] for step in seen(tmp_path)] == list(range(7, STEPS))
    whole = together(1)
    assert [one["loss"] for one in curve(tmp_path)] == pytest.approx([one["loss"] for one in curve(whole)], rel=1e-5)


@pytest.mark.faults
def test_asked_to_stop_all_stop_at_one_step_and_save(together, prepare, tmp_path):
    """The signal comes to the last process only, as it may a moment late elsewhere."""
    log = finish(start(2, prepare(tmp_path, stop_at=9)), tmp_path, expect=1)
    assert "train: stop requested (SIGURG): saved at step 10 of 20; run again to continue" in log
    finish(start(2, prepare(tmp_path)), tmp_path)
    assert [step[0] for step in seen(tmp_path, 1)] == list(range(10, STEPS))
    assert torch.equal(weights(tmp_path), weights(together(2, parallel="ddp")))


@pytest.mark.faults
def test_all_wait_for_a_lock_that_another_holds(prepare, tmp_path):
    """And a rank that waits for rank 0 does not begin without it."""
    with open(tmp_path / "state.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(2, prepare(tmp_path))
        while "waiting for it to end" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert not (tmp_path / "state").exists()
    finish(process, tmp_path)
    assert len(curve(tmp_path)) == STEPS


def test_more_processes_than_pairs_are_refused(monkeypatch, make_items, train_settings):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert items_per_step(make_items(9), train_settings(global_batch=4)) == 4
    message = "train.global_batch: expected at least 4 pairs for 4 processes, found 3; use fewer GPUs"
    with pytest.raises(StudyError, match=re.escape(message)):
        items_per_step(make_items(9), train_settings(global_batch=3))


def test_a_launcher_that_starts_fewer_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distributed.check_launch(1)
    with pytest.raises(StudyError, match=r"expected 2 processes \(--processes\), found WORLD_SIZE 1"):
        distributed.check_launch(2)


def test_a_model_whose_layers_are_hidden_is_not_sharded():
    with pytest.raises(StudyError, match=r"train.parallel: expected `layers` for fsdp, found none in Linear; use ddp"):
        model = torch.nn.Linear(2, 2)
        model.base_model = torch.nn.Linear(2, 2)
        shard(model)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for gpus in (0, 4):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        distributed.check_launch(4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(StudyError, match=r"expected a GPU for each of 4 processes, found 2; lower resources.train.gpu"):
        distributed.check_launch(4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs on this machine")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_gpus_train_as_one_processor_does(together, prepare, tmp_path, kind):
    finish(start(2, prepare(tmp_path, parallel=kind), on_gpus=True), tmp_path)
    losses, expected = ([one["loss"] for one in curve(folder)] for folder in (tmp_path, together(1)))
    assert losses == pytest.approx(expected, rel=1e-3)


# Who reads what


LENGTHS = [(3, 4, 5), (9, 9, 9), (1, 1, 1), (2, 2, 2), (5, 5, 5)]


@pytest.mark.parametrize("equal_count", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_processes_read_every_item_once(ranks, equal_count):
    step = [4, 0, 2, 1, 3]
    passes = [rank_passes(LENGTHS, step, ranks, rank, 12, equal_count) for rank in range(ranks)]
    assert sorted(i for own in passes for items, counts in own if counts for i in items) == sorted(step)
    assert all(own for own in passes)
    assert all(items == [2] for own in passes for items, counts in own if not counts)  # the shortest
    assert (len(set(map(len, passes))) == 1) or not equal_count


def test_one_process_reads_the_micro_batches_of_the_step():
    assert rank_passes(LENGTHS, [4, 0, 2], 1, 0, 12) == [(own, True) for own in micro_batches(LENGTHS, [4, 0, 2], 12)]


# How a rule starts it


def launch(threads=8, **resources):
    return Launch.of(resources, threads)


@pytest.mark.parametrize("resources", [{}, {"gpu": 0}, {"gpu": 1}, {"gpu": 1, "nodes": 1}])
def test_one_gpu_needs_no_launcher(resources):
    assert (launch(**resources).command(), launch(**resources).processes) == ("python", 1)


def test_several_gpus_are_one_process_each():
    started = launch(gpu=4, nodes=1)
    assert started.processes == 4
    assert started.command().startswith("accelerate launch --multi_gpu --num_machines 1 --num_processes 4 ")


@pytest.mark.parametrize("gres", ["gpu:4", "gpu:h100:4", "gpu:a100_3g.20gb:4"])
@pytest.mark.parametrize("resources", [{}, {"gpu": 0, "nodes": 1}, {"gpu": 4}])
def test_gpus_of_one_node_may_be_asked_for_as_gres(gres, resources):
    assert launch(gres=gres, **resources).command() == launch(gpu=4).command()


def test_other_resources_of_a_node_are_no_gpus():
    assert launch(gpu=2, gres="lscratch:100").processes == 2
    with pytest.raises(StudyError, match="expected resources gres: 'gpu:N'"):
        launch(nodes=2, gres="lscratch:100", mpi="srun")


@pytest.mark.parametrize(("gres", "gpu"), [("gpu:4", 8), ("gpu:h100:4", 1), ("gpu", 0), ("gpu:h100", 1)])
def test_gpus_of_one_node_that_cannot_be_counted_are_refused(gres, gpu):
    found = f"found gres {gres!r} and gpu {gpu}; correct the profile"
    with pytest.raises(StudyError, match=f"train: expected resources gres: 'gpu:N' and gpu: 0, or gpu alone, {found}"):
        launch(gres=gres, gpu=gpu)


def test_several_nodes_are_one_launcher_each():
    started = launch(gpu=8, nodes=2, gres="gpu:h100:4", mpi="srun", tasks=2)
    assert started.processes == 8
    assert " srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --gpus-per-node=4 bash -c 'exec acc" in started.command()
    assert " --num_machines 2 --num_processes 8 --num_cpu_threads_per_process 2 " in started.command()


@pytest.mark.parametrize("resources", [{"gpu": 8}, {"gres": "gpu:4"}, {"mpi": "srun"}, {"gres": "gpu", "mpi": "srun"}])
def test_several_nodes_without_what_they_need_are_refused(resources):
    with pytest.raises(StudyError, match=r"train on 2 nodes: expected resources gres: 'gpu:N' and mpi: srun, found"):
        launch(nodes=2, **resources)


@pytest.mark.parametrize(
    "mpi", ["srun; touch x", "$(touch x)", "`touch x`", "srun && x", "srun | x", "srun > x", "srun\nx"]
)
@attack(
    "code",
    "a profile whose resource `mpi` ends one command and begins another: `srun; touch x`",
    "train: resource mpi: expected a program and its flags, such as srun, found {mpi!r}; correct the profile",
)
def test_words_of_a_profile_are_one_command(mpi, outcome):
    with pytest.raises(StudyError) as error:
        launch(nodes=2, gres="gpu:1", mpi=mpi)
    assert str(error.value) == outcome.format(mpi=mpi)
    assert (
        " /opt/bin/srun --mpi=pmix --nodes=2 "
        in launch(nodes=2, gres="gpu:1", mpi="/opt/bin/srun --mpi=pmix").command()
    )


@pytest.mark.parametrize("resources", [{"gpu": "1; touch x"}, {"nodes": "2; touch x"}])
@attack("code", "a profile with text in place of a number of GPUs or nodes", "refused before it becomes a command")
def test_numbers_of_a_profile_are_numbers(resources):
    with pytest.raises(
        StudyError, match=r"train: resource \w+: expected a number, found '.; touch x'; correct the profile"
    ):
        launch(**{"nodes": 2, "gres": "gpu:1", "mpi": "srun", **resources})
