"""A training's curve in an experiment tracker: what it gets, from whom, where, and that it changes nothing."""

import os
from copy import deepcopy

import pytest
from trainings import SEED, curve, trained, weights
from transformers import TrainerCallback
from transformers.integrations import integration_utils

import train as program
from wspin.config import trackers
from wspin.config.flags import flags
from wspin.config.stages import Dialogue
from wspin.errors import StudyError
from wspin.train import run
from wspin.train.tracking import TrackedRun, tracked_run

VARIABLES = ("TENSORBOARD_LOGGING_DIR", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR")
MISSING = (
    "train.report_to: expected the package {0} in this environment, found none; run `pip install {0}`, or set none"
)


class Tracker(TrainerCallback):
    """In place of a package: keeps what it is told, and what the environment was."""

    runs: list = []

    def on_train_begin(self, args, state, control, **_):
        self.runs.append((args.run_name, args.project, {name: os.environ.get(name) for name in VARIABLES}, []))

    def on_log(self, args, state, control, logs, **_):
        self.runs[-1][-1].append((state.global_step, logs))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """None of the trackers' variables, before and after."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def tracker(monkeypatch):
    """Stands for Weights & Biases, and that as installed."""
    monkeypatch.setattr(Tracker, "runs", [])
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    return Tracker


def track(model, items, settings, state):
    state.mkdir(exist_ok=True, parents=True)
    tracked = tracked_run(settings.report_to, str(state.parent / "spin/ite0/metrics.jsonl"), state)
    run.train(model, items, settings, "float32", SEED, state, tracked)
    return weights(model)


def sft(train_settings, tracker):
    return train_settings(loss="sft", beta=None, label_smoothing=None, report_to=tracker)


def test_a_tracker_gets_the_curve_and_changes_no_weight(
    make_items, train_settings, tracker, model, scratch_model, tmp_path
):
    items, state, other = make_items(16, answers=1), tmp_path / "0123456789abcdef", deepcopy(model)
    found = track(model, items, sft(train_settings, "wandb"), state)
    assert found.equal(trained(other, items, sft(train_settings, "none"), tmp_path / "plain"))
    assert curve(state) == curve(tmp_path / "plain")
    ((name, project, environment, logs),) = tracker.runs
    assert (name, project) == (f"{tmp_path}/spin/ite0/01234567", "wspin")
    told = [{"step": step, **{key: entry[key] for key in entry if key != "epoch"}} for step, entry in logs]
    assert [entry for entry in told if "loss" in entry] == curve(state)
    folder = tmp_path / "spin/ite0/tracking/01234567"
    assert folder.is_dir()
    assert environment["WANDB_MODE"] == "offline"
    assert environment["WANDB_DIR"] == environment["TENSORBOARD_LOGGING_DIR"] == str(folder)


def test_the_users_own_variables_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DIR", "/elsewhere")
    TrackedRun("wandb", "spin/ite0", tmp_path / "tracking").arguments()
    assert [os.environ[name] for name in VARIABLES[1:]] == ["online", "wspin", "/elsewhere"]


def test_of_several_processes_the_first_alone_reports(monkeypatch, tmp_path):
    tracked = TrackedRun("tensorboard", "spin/ite0", tmp_path / "tracking")
    assert tracked.arguments()["report_to"] == ["tensorboard"]
    monkeypatch.setenv("RANK", "1")
    assert tracked.arguments() == {}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_stops_a_training_before_it_begins(
    monkeypatch, name, scratch_model, train_settings, tmp_path
):
    """In one line, before a model is loaded or a state written."""
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    (tmp_path / "prompts.parquet").write_text("not read")
    dialogue = Dialogue(template="human-assistant", eos="x", max_prompt_tokens=8, max_tokens=9, eos_on_cut=False)
    words = [*flags(sft(train_settings, name)), *flags(dialogue), "--replays", 0, "--autocast", "float32"]
    words += ["--model", scratch_model, "--manifest", scratch_model.with_suffix(".json"), "--seed", 42, 0]
    words += ["--rows", tmp_path / "prompts.parquet", "--processes", 1, "--state", tmp_path / "state"]
    files = ["--output", tmp_path / "m", "--output-manifest", tmp_path / "m.json", "--metrics", tmp_path / "m.jsonl"]
    with pytest.raises(StudyError) as refused:
        program.main(list(map(str, [*words, *files])))
    assert str(refused.value) == MISSING.format(name)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.parquet"]


def test_without_a_tracker_nothing_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert tracked_run("none", "m.jsonl", tmp_path) is None


def test_tensorboard_gets_every_step_once(make_items, train_settings, model, tmp_path):
    """The package itself: its file holds what the record holds."""
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    state = tmp_path / "0123456789abcdef"
    track(model, make_items(16, answers=1), sft(train_settings, "tensorboard"), state)
    events = EventAccumulator(str(tmp_path / "spin/ite0/tracking/01234567"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(entry["step"], pytest.approx(entry["loss"])) for entry in curve(state)]
    assert len(found) == 4
