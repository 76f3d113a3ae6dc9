"""Saved states that others may have written: no pickle in them runs, and what cannot be read is set aside."""

import json
import pickle
import shutil

import pytest
import torch
from attacks import attack
from trainings import SEED, curve, interrupted, scored, trained, weights

from wspin.models import folders
from wspin.storage.files import sha256, write_checked_json
from wspin.train import journal
from wspin.train.run import train


class Planted:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, scratch_model, make_items, train_settings):
    """A folder with a whole training of two epochs, `whole`, and an interrupted one with two saved states, `parts`."""
    folder, model = tmp_path_factory.mktemp("trainings"), folders.load_model(scratch_model, "cpu")
    items, settings = scored(model, make_items(10)), train_settings(epochs=2)

    def fresh():
        return folders.load_model(scratch_model, "cpu")

    expected = trained(fresh(), items, settings, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, fresh, items, settings, folder / "parts", 6)
    return folder, fresh, items, settings, expected


@pytest.fixture
def saved(trainings, tmp_path, capsys):
    """The later of two saved states, and a function that resumes the training; it returns the printed lines."""
    folder, fresh, items, settings, expected = trainings
    shutil.copytree(folder / "parts", tmp_path / "parts")

    def resume():
        """The training ends as one that was not interrupted, and no pickle has run."""
        capsys.readouterr()
        model = fresh()
        train(model, items, settings, "float32", SEED, tmp_path / "parts")
        assert torch.equal(weights(model), expected)
        assert curve(tmp_path / "parts") == curve(folder / "whole")
        assert not (tmp_path / "ran").exists()
        return capsys.readouterr().out.replace(f"{tmp_path}/parts/", "").splitlines()

    return tmp_path / "parts/checkpoint-4", resume


@attack("code", "a pickle that runs a command, as one of the eight pickled files of a saved state", "it is never run")
@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("optimizer.pt", 2),
        ("scheduler.pt", 2),
        ("scaler.pt", 2),
        ("rng_state.pth", 2),
        ("training_args.bin", 4),  # no program reads it
        ("pytorch_model.bin", 2),
        ("model.safetensors", 2),
        ("pytorch_model_fsdp.bin", 2),
    ],
)
def test_pickles_in_saved_states_do_not_run(saved, tmp_path, name, start, form):
    folder, resume = saved
    with open(folder / name, "wb") as file:
        (torch.save if form == "torch" else pickle.dump)({"a": Planted(tmp_path / "ran")}, file)
    journal.mark_complete(folder)
    assert f"train: {start} of 6 steps, resumed" in resume()
    assert (folder.parent / "unreadable-checkpoint-4" / name).exists() == (start == 2)


@attack(
    "shared folders",
    "a saved state with right hashes that torch cannot read",
    "train: checkpoint-4: optimizer.pt cannot be read (RuntimeError); kept as unreadable-checkpoint-4, its steps are "
    "repeated",
)
def test_a_state_that_cannot_be_read_is_set_aside_for_the_one_before_it(saved, outcome):
    folder, resume = saved
    (folder / "optimizer.pt").write_bytes(b"of another version")
    journal.mark_complete(folder)
    assert resume()[:2] == [outcome, "train: 2 of 6 steps, resumed"]


def test_without_a_readable_state_a_training_starts_again(saved):
    folder, resume = saved
    for one in (folder, folder.with_name("checkpoint-2")):
        (one / "trainer_state.json").write_text("[" * 100_000)
        journal.mark_complete(one)
    (folder.parent / "unreadable-checkpoint-4").mkdir()  # of an earlier restart
    assert [line.partition(";")[0] for line in resume()[:3]] == [
        "train: checkpoint-4: trainer_state.json cannot be read (RecursionError)",
        "train: checkpoint-2: trainer_state.json cannot be read (RecursionError)",
        "train: 0 of 6 steps",
    ]
    assert (folder.parent / "unreadable-checkpoint-4-2/trainer_state.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("optimizer.pt", [1], "optimizer.pt cannot be read (AttributeError)"),
        ("optimizer.pt", {"state": {}}, "optimizer.pt cannot be read (KeyError)"),
        ("scheduler.pt", None, "found no scheduler.pt"),
        ("trainer_state.json", '{"global_step": 3}', "trainer_state.json cannot be read (ValueError)"),
        ("trainer_state.json", '{"step": 4}', "trainer_state.json cannot be read (TypeError)"),
        ("metrics.jsonl", '{"loss": 1}\n', "metrics.jsonl cannot be read (KeyError)"),
        ("model.safetensors", None, "found no model.safetensors"),
        ("pytorch_model_fsdp_0", "", "found pytorch_model_fsdp_0, which is no part of a saved state"),
    ],
)
def test_states_of_another_shape_are_set_aside(saved, name, content, found):
    folder, _ = saved
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, str):
        (folder / name).write_text(content)
    else:
        torch.save(content, folder / name)
    journal.mark_complete(folder)
    assert journal.is_whole(folder)
    assert journal.unreadable(folder, 4) == found


@attack("shared folders", "a saved state whose mark names files outside its folder", "damaged: its steps are repeated")
@pytest.mark.parametrize("name", ["../../outside", "{outside}", "/dev/zero", "a\\b"])
def test_a_mark_names_files_of_its_folder_alone(saved, tmp_path, name):
    folder, _ = saved
    (tmp_path / "outside").write_text("a")
    files = json.loads((folder / journal.COMPLETE).read_text())["files"]
    write_checked_json(
        folder / journal.COMPLETE,
        {"files": {**files, name.format(outside=tmp_path / "outside"): sha256(tmp_path / "outside")}},
    )
    assert not journal.is_whole(folder)


def test_a_file_that_the_mark_lacks_is_damage(saved):
    """The Trainer would read it."""
    folder, _ = saved
    (folder / "scaler.pt").write_bytes(b"")
    assert not journal.is_whole(folder)
    assert journal.last_saved(folder.parent).name == "checkpoint-2"


def test_folders_that_are_no_saved_states_are_passed_over(saved):
    folder, _ = saved
    for name in ("checkpoint-x", "checkpoint-", "checkpoint-4.old", "checkpoint-٣"):
        shutil.copytree(folder, folder.with_name(name))
    assert journal.last_saved(folder.parent) == folder


def test_every_process_raises_what_keeps_the_first_from_reading(monkeypatch, tmp_path):
    """The others would wait for its state in a collective, for an hour."""
    sent = []

    def refuse(state):
        raise PermissionError(13, "Permission denied", str(state))

    monkeypatch.setattr(journal, "_last_saved", refuse)
    monkeypatch.setattr(journal, "gather", lambda value: sent.append(value) or [value])
    with pytest.raises(PermissionError):
        journal.last_saved(tmp_path)
    first = pickle.loads(pickle.dumps(sent))
    monkeypatch.setattr(journal, "rank", lambda: 1)
    monkeypatch.setattr(journal, "gather", lambda value: [*first, value])
    with pytest.raises(PermissionError, match=tmp_path.name):
        journal.last_saved(tmp_path)
