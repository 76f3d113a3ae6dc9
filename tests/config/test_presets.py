"""The studies in a paper's settings."""

import pytest
import workflow
import yaml

from wspin.config.load import read_study
from wspin.config.stages import at_iteration
from wspin.config.study import RESERVED
from wspin.iteration import Iteration
from wspin.study.paths import StudyPaths

FOLDER = workflow.ROOT / "config/overlays"
PRESETS = ("spin", "spin_zephyr", "swift_as_released", "swift_paper")
STUDY = yaml.safe_load((workflow.ROOT / "config/config.yaml").read_text())


def overlay(preset):
    return yaml.safe_load((FOLDER / f"{preset}.yaml").read_text())


def load(preset):
    below = {"everything": ["demo"], "findings": ["demo"], "findings_words": ["demo", "findings"]}.get(preset, [])
    return read_study([workflow.ROOT / "config/config.yaml", *(FOLDER / f"{name}.yaml" for name in (*below, preset))])


def leaves(node, place=()):
    """(place, value) of everything that an overlay says."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, (*place, key))
        else:
            yield (*place, key), value


def at(mapping, place):
    for key in place:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping


def test_the_page_of_the_overlays_lists_each_with_its_results():
    page = (FOLDER / "README.md").read_text()
    overlays = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert overlays == ["controls", "demo", "everything", "findings", "findings_words", "smollm2", *PRESETS]
    for name in overlays:
        assert f"`{name}.yaml`" in page
        assert f"`{load(name).results}`" in page


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_nothing_that_the_study_has_already(preset):
    """But what baselines keep, where the preset changes what they inherit. What it deletes is there."""
    said = overlay(preset)
    for place, value in leaves(said):
        if value is None:
            assert at(STUDY, place) is not None, place
            continue
        kept = place[:2] in (("train", "sft"), ("train", "dpo")) and place[2] in said["train"]
        inherited = at(STUDY, (place[0], *place[2:])) if kept else at(STUDY, place)
        assert (inherited == value) is kept, place


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_plans_a_study_in_a_folder_of_its_own(repository, preset):
    study = load(preset)
    planned = workflow.Repository(repository.folder, (f"config/overlays/{preset}.yaml",)).plan("models")
    first = {arm: entry.fork.at if entry.fork else 0 for arm, entry in study.arms.items()}
    trained = [name for name, model in study.models.items() if model.from_]
    assert planned.counts["train"] == len(trained) + sum(study.iterations - k for k in first.values())
    assert all(output.startswith(f"{study.results}/") for output in planned.made())
    name = study.results.removeprefix("results/")
    assert name in RESERVED
    assert name not in {*STUDY["arms"], *STUDY["models"]}


def test_swift_paper_has_the_texts_signs_and_batch():
    study = load("swift_paper")
    assert list(study.arms) == ["spin", "wspin", "wspin.window1"]
    weigh = study.arm_weigh("wspin")
    assert (weigh.k, weigh.mu_chosen, weigh.mu_rejected, weigh.lower, weigh.upper) == (1.0, 1.0, 1.0, -0.5, 1.5)
    train = study.arm_train("wspin")
    assert (train.global_batch, train.epochs, train.optimizer, study.resources.train.gpu) == (2, 2, "rmsprop", 1)
    assert train.learning_rate == [5e-7, 5e-7, 1e-7, 1e-7]
    assert (study.dialogue.template, study.data.sft.prompts) == ("human-assistant", 50000)


@pytest.mark.parametrize("model", ["sft", "dpo"])
def test_what_swift_paper_starts_from_is_the_studys(model):
    whole = read_study([workflow.ROOT / "config/config.yaml"])
    assert load("swift_paper").model_train(model) == whole.model_train(model)


def test_spin_has_spins_schedule():
    study = load("spin")
    train = study.arm_train("spin")
    assert [at_iteration(train, k).beta for k in range(4)] == [0.1, 0.1, 0.1, 5.0]
    assert (train.global_batch, train.epochs, train.schedule.warmup) == (64, 2, 0.1)
    assert (study.dialogue.template, study.dialogue.max_prompt_tokens) == ("instruction-response", 512)
    assert (study.dialogue.max_tokens, study.generate.max_new_tokens) == (1024, 256)
    assert (train.max_grad_norm, study.model_train("dpo").beta) == (1.0, 0.1)
    assert {study.model_train(model).max_grad_norm for model in ("sft", "dpo")} == {10.0}


def test_window1_differs_from_wspin_in_its_window_alone():
    study, name = load("swift_paper"), "wspin.window1"
    assert (study.arms[name].data_window, study.data_window) == (1, 2)
    assert study.arm_train(name) == study.arm_train("wspin")
    assert study.arm_weigh(name) == study.arm_weigh("wspin")
    layout = StudyPaths(study)
    sets = {arm: layout.replayed_sets(Iteration(arm, 2)) for arm in ("wspin", name)}
    assert [len(sets[arm]) for arm in sets] == [1, 0]
    assert layout.parent(f"{name}/ite1") == "wspin/ite0"


def test_swift_as_released_has_the_weights_of_the_code_and_their_control():
    study, whole = load("swift_as_released"), read_study([workflow.ROOT / "config/config.yaml"])
    assert list(study.arms) == ["spin", "wspin", "by.length"]
    sums = {"control": "none", "normalise": "sum_to", "normalise_to": 100.0, "eos_weight": 0.0}
    released = {"source": "swift_as_released", "shifted": True, "segments": "common_starts", **sums}
    assert study.arm_weigh("wspin").model_dump(exclude_none=True) == released
    assert study.arm_weigh("by.length").model_dump(exclude_none=True) == {"source": "equal", **sums}
    assert study.arm_train("wspin") == study.arm_train("by.length") == whole.arm_train("wspin")
    assert study.arm_train("wspin").alpha == 0.0
    layout = StudyPaths(study)
    assert layout.scorers == ["teacher@shifted"]
    assert layout.teacher("by.length") is None


def test_spin_zephyr_has_the_settings_of_spin_and_its_model():
    study, spin = load("spin_zephyr"), load("spin")
    pinned = load("swift_paper").models["teacher"]
    assert (study.models["sft"].hub, study.models["sft"].revision) == (pinned.hub, pinned.revision)
    assert (list(study.arms), list(study.models), study.teacher, study.start) == (["spin"], ["sft", "dpo"], None, "sft")
    as_spin = study.arm_train("spin").model_copy(update={"gradient_checkpointing": False, "parallel": "ddp"})
    assert as_spin == spin.arm_train("spin")
    assert study.dialogue == spin.dialogue.model_copy(update={"eos": "</s>"})
    generate = study.generate
    assert (generate.engine, generate.temperature, generate.max_new_tokens) == ("transformers", 0.0, 256)
    assert study.eval.suites == spin.eval.suites


@pytest.mark.parametrize("preset", ["findings", "findings_words"])
def test_the_findings_have_each_control_once_and_differ_in_the_task_alone(preset):
    study, demo = load(preset), load("demo")
    seeds = dict.fromkeys(study.arms, 0)
    for arm in study.arms:
        seeds[arm.partition(".s4")[0]] += 1
    assert {arm: count for arm, count in seeds.items() if count not in (0, 5)} == {"equal.mean_one": 1}  # as spin
    changed = {arm: entry.weigh for arm, entry in study.arms.items() if entry.weigh and entry.seed is None}
    assert changed == {
        "wspin.paper": {"mu_rejected": 1.0},
        "permuted": {"control": "permuted"},
        "random_matched": {"control": "random_matched"},
        "inverse": {"control": "inverse"},
        "equal.mean_one": {"source": "equal", "normalise": "mean_one"},
        "wspin.mean_one": {"normalise": "mean_one"},
    }
    assert study.arms == load("findings").arms
    replicates = [f"{name}{other}" for name in ("kd", "sft.long") for other in ("", ".s43", ".s44", ".s45", ".s46")]
    assert study.eval.models == ["base", "sft", "teacher", *replicates]
    assert study.report.preregistration == "config/preregistration.yaml"
    # Every pair that self-play reads holds two answers: the new ones, and from iteration 1 on the replayed ones too.
    # In both studies as many passes as its three rounds in the first.
    train, pairs = study.arm_train("spin"), 1 + study.data_window * (load("findings").iterations - 1)
    for name in ("kd", "sft.long"):
        assert study.model_train(name).epochs == study.model_train("sft").epochs + 2 * pairs * train.epochs
    assert study.model_train("sft.long").learning_rate == study.model_train("sft").learning_rate
    assert (study.seed, study.weigh) == (demo.seed, demo.weigh)
