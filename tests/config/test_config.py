"""The configuration files, the mistakes that are caught, flags, generated documents."""

import argparse
import copy
import difflib
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.utils import update_config

from wspin.config import base, document
from wspin.config.flags import add_flags, flags, from_flags
from wspin.config.load import load_study
from wspin.config.sources import Scratch
from wspin.config.stages import Dialogue, Generate, Train, Weigh, at_iteration
from wspin.config.study import Field, merge
from wspin.errors import StudyError

CONFIG = Path(__file__).parents[2] / "config"
BASE = CONFIG / "config.yaml"
OVERLAYS = sorted(
    path for path in CONFIG.rglob("*.yaml") if path != BASE and "tasks" not in path.relative_to(CONFIG).parts
)
SCRATCH = {
    "architecture": "qwen2",
    "text": "sft",
    "vocabulary": 320,
    "hidden": 64,
    "intermediate": 128,
    "layers": 2,
    "heads": 2,
}


def merged(*overlays):
    """The study of config.yaml under overlays, merged as Snakemake merges them."""
    study = yaml.safe_load(BASE.read_text())
    for overlay in overlays:
        update_config(study, copy.deepcopy(overlay))
    return study


def load(overlay=None):
    return load_study(merged(overlay or {}), [BASE])


def refusal(overlay):
    with pytest.raises(StudyError) as error:
        load(overlay)
    return str(error.value)


def line_of(text, file=BASE):
    """`file:line` of the first line that begins with a text, blanks aside."""
    lines = file.read_text().splitlines()
    return f"{file}:{next(i for i, line in enumerate(lines, 1) if line.strip().startswith(text))}"


# Configuration files


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: path.name if path else BASE.name)
def test_every_configuration_file_is_valid(overlay):
    files = [BASE, *([overlay] if overlay else [])]
    study = load_study(merged(*(yaml.safe_load(file.read_text()) for file in files[1:])), files)
    assert study.arms


@pytest.mark.parametrize("file", [BASE, *OVERLAYS], ids=lambda path: path.name)
def test_every_configuration_file_fits_the_schema_for_editors(file):
    checker = jsonschema.Draft202012Validator(json.loads((CONFIG / "schema.json").read_text()))
    given = yaml.safe_load(file.read_text())
    assert [error.message for error in checker.iter_errors(given)] == []
    for mistake in (
        {"trian": {}},
        {"arms": {"x": {"train": {"bta": 1}}}},
        {"train": {"learning_rate": "5e-7"}},
        {"seed": []},
    ):
        assert list(checker.iter_errors({**given, **mistake})), mistake


# Mistakes in files


def test_unknown_keys_are_named_with_line_and_nearest_key(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "seed: 1\ntrain:\n  bta: 0.3\n  schedule: {wramup: 0.2}\n"
        "arms:\n  spin: {trian: {}}\nmodels:\n  base:\n    revison: x\n"
    )
    with pytest.raises(StudyError) as error:
        load_study(merged(yaml.safe_load(overlay.read_text())), [BASE, overlay])
    assert sorted(str(error.value).splitlines()) == [
        f"{overlay}:3: train.bta: unknown key; did you mean `beta`?",
        f"{overlay}:4: train.schedule.wramup: unknown key; did you mean `warmup`?",
        f"{overlay}:6: arms.spin.trian: unknown key; did you mean `train`?",
        f"{overlay}:9: models.base.revison: unknown key; did you mean `revision`?",
    ]


def test_duplicate_keys_are_refused_with_their_line(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("seed: 1\ntrain:\n  beta: 0.1\n  epochs: 2\n  beta: 0.5\n")
    with pytest.raises(StudyError, match=f"{file}:5: train.beta: the key is given twice"):
        load_study(merged(yaml.safe_load(file.read_text())), [BASE, file])


def test_values_from_the_command_line_are_placed_too():
    assert refusal({"train": {"bta": 0.3}}).startswith(f"{line_of('train:')}: train.bta: ")
    assert refusal({"trian": {}}) == "config: trian: unknown key; did you mean `train`?"


# Mistakes in values


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"data": {"sft": {"split": None}}}, "data.sft.split: missing key"),
        (
            {"train": {"beta": "x"}},
            "train.beta: Input should be a valid number, unable to parse string as a number, found 'x'",
        ),
        (
            {"train": {"beta": [1, 2, "x", 4]}},
            "train.beta.2: Input should be a valid number, unable to parse string as a number, found 'x'",
        ),
        ({"train": {"epochs": 1.5}}, "train.epochs: Input should be a valid integer"),
        ({"train": {"sft": {"bta": 1}}}, "models.sft.train.bta: unknown key; did you mean `beta`?"),
        ({"models": {"base": {"revision": None}}}, "models.base: hub and revision belong together"),
        (
            {"models": {"base": {"revision": "main"}}},
            "models.base.revision: String should match pattern '^[0-9a-f]{40}$', found 'main'",
        ),
        ({"data": {"sft": {"revision": None}}}, "data.sft: hub and revision belong together"),
        (
            {"eval": {"sources": {"arc": {"revision": "v1.0"}}}},
            "eval.sources.arc.revision: String should match pattern",
        ),
        (
            {"models": {"base": {"path": "here"}}},
            "models.base: give exactly one of hub, path, package, scratch, from; found hub, path",
        ),
        ({"models": {"Base": {"path": "here"}}}, "models.Base: String should match pattern"),
        ({"models": {"sft": {"data": None}}}, "models.sft: `from`, `loss` and `data` belong together"),
        (
            {"models": {"dpo": {"data": "sft"}}},
            "models.dpo: loss sft trains on data sft, and a preference loss on data preferences",
        ),
        ({"models": {"dpo": {"train": {"loss": "sft"}}}}, "models.dpo.train.loss: the model's loss is 'dpo'"),
        ({"dialogue": {"max_prompt_tokens": 2048}}, "dialogue: max_prompt_tokens 2048 leaves no room for answers"),
        (
            {"generate": {"max_new_tokens": 1025}},
            "generate.max_new_tokens: with dialogue.max_prompt_tokens up to 2049 tokens, over dialogue.max_tokens 2048",
        ),
        ({"arms": {"spin": None, "wspin": None, "wspin.paper": None}}, "arms: Dictionary should have at least 1 item"),
    ],
)
def test_wrong_values_are_refused(overlay, message):
    (line,) = refusal(overlay).splitlines()
    assert line.startswith(f"{BASE}:")
    assert message in line


def test_an_arm_may_not_set_what_is_the_studys():
    for section in ("data", "models", "generate", "logprobs", "eval", "dialogue"):
        assert f"arms.spin.{section}: an arm may not set `{section}`, it is the study's" in refusal(
            {"arms": {"spin": {section: {}}}}
        )


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"train": {"learning_rate": [1e-7, 1e-7, 1e-7]}}, "train.learning_rate: 3 values for 4 iterations"),
        ({"train": {"learning_rate": [1e-7] * 5}}, "train.learning_rate: 5 values for 4 iterations"),
        ({"iterations": 3}, "train.learning_rate: 4 values for 3 iterations"),
        (
            {"arms": {"spin": {"iterations": 5}}},
            "arms.spin.train.learning_rate: learning_rate has 4 values for 5 iterations",
        ),
        (
            {"arms": {"spin": {"train": {"beta": [0.1] * 3}}}},
            "arms.spin.train.beta: beta has 3 values for 4 iterations",
        ),
        (
            {"arms": {"spin": {"train": {"beta": [0.1] * 5}}}},
            "arms.spin.train.beta: beta has 5 values for 4 iterations",
        ),
        (
            {"train": {"dpo": {"learning_rate": None}}},
            "models.dpo.train: learning_rate is a list per iteration, and this model has no iterations",
        ),
    ],
)
def test_lists_have_one_value_per_iteration(overlay, message):
    assert message in refusal(overlay)


def test_a_shorter_arm_takes_the_beginning_of_the_studys_lists():
    study = load({"arms": {"short": {"iterations": 2}}})
    assert at_iteration(study.arm_train("short"), 1).learning_rate == 5e-7


def test_names_are_one_set_beside_the_folders_of_the_results():
    for name in ("data", "logs", "tables", "gold"):
        assert f"arms.{name}: '{name}' is the name of a folder of the results" in refusal({"arms": {name: {}}})
        assert f"models.{name}: '{name}' is the name of a folder" in refusal({"models": {name: {"path": "here"}}})
    assert "arms.sft: 'sft' is a model of the registry too" in refusal({"arms": {"sft": {}}})


def test_a_study_and_the_arms_of_another_one_never_share_a_folder(tmp_path):
    results = str(tmp_path)
    for name in ("nested", "spin"):
        (tmp_path / name).mkdir()
    (tmp_path / "nested/config.yaml").touch()
    assert load({"results": results})
    for section, entry in (("arms", {}), ("models", {"path": "here"})):
        found = f"{section}.nested: '{results}/nested' holds another study's results"
        assert found in refusal({"results": results, section: {"nested": entry}})
    assert load({"results": f"{results}/spin"})
    (tmp_path / "spin/ite0").mkdir()
    assert f"results: '{results}/spin' is a model's or an arm's folder" in refusal({"results": f"{results}/spin"})


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"start": "nobody"}, "start: no model 'nobody' in the registry; it holds base, sft, teacher, dpo"),
        ({"arms": {"spin": {"start": "nobody"}}}, "arms.spin.start: no model 'nobody'"),
        ({"data": {"fits": ["base", "nobody"]}}, "data.fits: no model 'nobody'"),
        ({"data": {"fits": ["base", "sft"]}}, "data.fits: 'sft' is trained on the rows that it would select"),
        ({"eval": {"models": ["base", "nobody"]}}, "eval.models: no model 'nobody'"),
        ({"models": {"dpo": {"from": "nobody"}}}, "models.dpo.from: no model 'nobody'"),
        ({"models": {"sft": {"from": "sft"}}}, "models.sft.from: 'sft' is trained from itself"),
        ({"models": {"sft": {"from": "dpo"}}}, "models.sft.from: 'sft' is trained from itself"),
        (
            {"models": {"base": {"hub": None, "revision": None, "scratch": {**SCRATCH, "context": 64}}}},
            "models.base.scratch.context: shorter",
        ),
        ({"train": {"loss": "sft"}}, "arms.spin.train.loss: loss sft has no opponent"),
        ({"eval": {"suites": {"new": {"piqa": 0}}}}, "eval.sources: suite 'new' has no source"),
        ({"eval": {"suites": {"arc": {"piqa": 0}}}}, "report.metrics: task 'piqa' has no metric"),
        ({"eval": {"suites": {"arc": {"mmlu": 0}}}}, "eval.suites: task 'mmlu' is in two suites"),
        ({"eval": {"sources": {"new": {"path": "here"}}}}, "eval.sources.new: no suite 'new'"),
        ({"report": {"metrics": {"piqa": "acc,none"}}}, "report.metrics.piqa: no task 'piqa' in eval.suites"),
        ({"arms": {"b": {"fork": {"from": "nobody", "at": 1}}}}, "arms.b.fork.from: no arm 'nobody'"),
        ({"arms": {"b": {"fork": {"from": "spin", "at": 4}}}}, "arms.b.fork.at: 'spin' has no iteration 4"),
        (
            {"arms": {"b": {"iterations": 2, "fork": {"from": "spin", "at": 3}}}},
            "arms.b.fork.at: the arm ends before iteration 3",
        ),
        (
            {"arms": {"b": {"start": "base", "fork": {"from": "spin", "at": 1}}}},
            "arms.b.start: a fork starts from the iteration before",
        ),
        (
            {"arms": {"b": {"fork": {"from": "spin", "at": 1}}, "c": {"fork": {"from": "b", "at": 2}}}},
            "arms.c.fork.from: 'b' is a fork itself; fork from 'spin'",
        ),
        ({"data": {"heldout": {"split": "train_sft"}}}, "data.heldout.split: 'train_sft' is the training split"),
        ({"results": "results/"}, "results: found 'results/', expected 'results'"),
        ({"results": "./results"}, "results: found './results', expected 'results'"),
        ({"models": {"sft": {"template": "zephyr"}}}, "models.sft.template: the model takes part in training"),
        ({"dialogue": {"template": "humanassistant"}}, "dialogue.template: found 'humanassistant'; expected"),
        (
            {"train": {"sft": {"reduction": None}, "reduction": None}},
            "models.sft.train.reduction: missing key; loss sft",
        ),
        ({"train": {"beta": None}}, "arms.spin.train.beta: missing key; loss spin needs it"),
        ({"train": {"alpha": None}}, "arms.wspin.train.alpha: missing key; loss wspin needs it"),
        ({"generate": {"dtype": None}}, ": generate.dtype: missing key; engine vllm needs it"),
        (
            {"generate": {"temperature": 0.005}},
            ": generate.temperature: vllm raises temperatures between 0 and 0.01 to 0.01",
        ),
        (
            {"generate": {"engine": "transformers", "batch_size": None}},
            ": generate.batch_size: missing key; engine transformers needs it",
        ),
        (
            {
                "eval": {
                    "engine": "vllm",
                    "sources": {"arc": {"hub": None, "revision": None, "path": "a", "heldout": True}},
                }
            },
            ": eval.engine: vllm cannot tokenise held-out rows",
        ),
        ({"teacher": "nobody"}, "teacher: no model 'nobody'"),
        ({"teacher": None}, "teacher: missing key; the token weights of arm 'wspin' come from a teacher"),
        ({"arms": {"wspin": {"teacher": "nobody"}}}, "arms.wspin.teacher: no model 'nobody'"),
        ({"arms": {"spin": {"teacher": "base"}}}, "arms.spin.teacher: loss spin has no token weights; remove the key"),
        ({"arms": {"spin": {"weigh": {"k": 2.0}}}}, "arms.spin.weigh: loss spin has no token weights; remove the key"),
        (
            {"arms": {"wspin": {"weigh": {"source": "equal"}, "teacher": "base"}}},
            "arms.wspin.teacher: source equal uses no teacher",
        ),
        ({"arms": {"wspin": {"weigh": {"uper": 1.0}}}}, "arms.wspin.weigh.uper: unknown key; did you mean `upper`?"),
        ({"arms": {"wspin": {"weigh": {"k": -1}}}}, "arms.wspin.weigh.k: Input should be greater than 0, found -1"),
        ({"weigh": {"given": "a.jsonl"}}, ": weigh.given: weights belong to the tokens of their answers"),
        (
            {
                "generate": {"given": "a.jsonl"},
                "arms": {"spin": {"seed": 1}, "wspin": {"seed": 2}, "wspin.paper": {"start": "base"}},
            },
            ": generate.given: no arm starts from 'sft' with",
        ),
        (
            {"generate": {"given": "a.jsonl"}, "weigh": {"given": "a.jsonl"}, "arms": {"wspin": {"weigh": {"k": 2.0}}}},
            ": weigh.given: no arm weighs as the study does",
        ),
        ({"arms": {"wspin": {"weigh": {"given": "a.jsonl"}}}}, "arms.wspin.weigh.given: unknown key"),
        ({"weigh": {"mu_rejected": None}}, ": weigh.mu_rejected: missing key; source teacher"),
        ({"weigh": {"lower": 2.0}}, ": weigh.lower: found 2.0, above upper 1.5"),
        ({"weigh": {"normalise": "sum_to"}}, ": weigh.normalise_to: missing key"),
        ({"weigh": {"k": float("inf")}}, "weigh.k: Input should be a finite number"),
        ({"arms": {"spin": {"train": {"alpha": 0.5}}}}, "arms.spin.train.alpha: loss spin does not use it"),
        (
            {"arms": {"wspin": {"weigh": {"source": "equal", "upper": 9.0}}}},
            "arms.wspin.weigh.upper: source equal with normalise none does not use it",
        ),
        (
            {"arms": {"wspin": {"weigh": {"source": "equal", "control": "one_minus"}}}},
            "arms.wspin.weigh.control: one_minus keeps equal weights equal",
        ),
        ({"arms": {"wspin": {"weigh": {"control": "random"}}}}, "weigh.source: control random uses no teacher"),
        (
            {"eval": {"sources": {"arc": {"hub": None, "revision": None, "path": "here", "heldout": True}}}},
            "eval.models: 'teacher' has template 'zephyr'; tasks on held-out rows compare models in dialogue.template",
        ),
        (
            {"arms": {"wspin": {"weigh": {"control": "one_minus", "normalise": "mean_one"}}}},
            "arms.wspin.weigh.normalise: one_minus gives weights of both signs",
        ),
        ({"models": {"dpo": {"loss": "wspin"}}}, "models.dpo: loss wspin is for arms only"),
        (
            {"arms": {"wspin": {"train": {"triplets": True, "global_batch": 65}}}},
            "arms.wspin.train.global_batch: found 65, expected a multiple of 2: triplets keeps the 2 pairs of a prompt",
        ),
        (
            {"resources": {"train": {"gpu": 65}}},
            "arms.spin.train.global_batch: 64 pairs are too few for resources.train.gpu 65",
        ),
        (
            {"arms": {"wspin": {"train": {"alpha": 0.5, "parallel": "fsdp"}}}},
            "arms.wspin.train.parallel: alpha 0.5 keeps a whole reference model on each GPU",
        ),
        ({"report": {"baseline": "nobody"}}, "report.baseline: no arm 'nobody'; there are spin, wspin, wspin.paper"),
    ],
)
def test_contradictions_between_sections_are_refused(overlay, message):
    assert message in refusal(overlay)


def test_a_mistake_for_all_arms_is_reported_once():
    """And not for arms without token weights."""
    assert len(refusal({"weigh": {"lower": 2.0}}).splitlines()) == 1
    assert load({"arms": {"wspin": None, "wspin.paper": None}, "weigh": {"lower": 2.0}})


@pytest.mark.parametrize("name", ["tis-dpo", "tisdpo", "wspin"])
def test_the_published_names_of_the_loss_are_the_same_loss(name):
    study = load({"arms": {"wspin": {"train": {"loss": name}}}})
    assert study.weighted("wspin")
    assert flags(study.arm_train("wspin"))[:2] == ["--loss", "wspin"]


def test_weights_hold_what_they_are_made_from_alone():
    """So that an edit of the rest makes none again."""
    study = load({"arms": {"equal": {"train": {"loss": "wspin"}, "weigh": {"source": "equal"}}}})
    assert set(study.arm_weigh("wspin").model_dump(exclude_none=True)) == set(Weigh.model_fields) - {"normalise_to"}
    equal = study.arm_weigh("equal").model_dump(exclude_none=True)
    assert equal == {"source": "equal", "control": "none", "normalise": "none", "eos_weight": 1.0}


def test_both_members_of_a_cycle_are_named():
    lines = refusal({"models": {"sft": {"from": "dpo"}}})
    assert "models.sft.from: 'sft' is trained from itself" in lines
    assert "models.dpo.from: 'dpo' is trained from itself" in lines


# Merging


def test_null_deletes_an_inherited_key():
    study = load({"models": {"dpo": None}, "eval": {"models": ["base"]}})
    assert list(study.models) == ["base", "sft", "teacher"]
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": None, "c": [3]}, "d": None}) == {"a": {"c": [3]}}


def test_overrides_of_trainings_merge_in_their_order():
    study = load(
        {
            "train": {"dpo": {"epochs": 3, "beta": 0.2}},
            "models": {"dpo": {"train": {"beta": "0.3", "schedule": {"warmup": 0}}}},
        }
    )
    train = study.model_train("dpo")
    assert (train.loss, train.epochs, train.beta, train.learning_rate) == ("dpo", 3, 0.3, 5e-7)
    assert (train.schedule.warmup, train.schedule.decay) == (0.0, "linear")
    arm = load({"arms": {"spin": {"train": {"schedule": {"decay": "constant"}}}}}).arm_train("spin")
    assert (arm.loss, arm.schedule.warmup, arm.schedule.decay, arm.epochs) == ("spin", 0.1, "constant", 2)


def test_texts_from_the_command_line_become_numbers():
    study = load({"train": {"beta": "0.3", "epochs": "3"}, "iterations": "4", "dialogue": {"eos_on_cut": "true"}})
    assert (study.train.beta, study.train.epochs, study.iterations, study.dialogue.eos_on_cut) == (0.3, 3, 4, True)
    assert load({"arms": {"spin": {"train": {"beta": "0.3"}}}}).arm_train("spin").beta == 0.3


# Flags


def rendered(overlay, k=0):
    return flags(at_iteration(load(overlay).arm_train("spin"), k))


def test_equal_values_give_equal_flags():
    usual = rendered({"train": {"beta": 0.1, "learning_rate": 5.0e-7, "max_grad_norm": 10.0}})
    assert rendered({"train": {"max_grad_norm": 10, "beta": yaml.safe_load("0.10"), "learning_rate": "5e-7"}}) == usual
    assert rendered({"arms": {"spin": {"train": {"beta": "0.1", "learning_rate": [5e-7] * 4}}}}) == usual
    reordered = merged()
    reordered["train"] = dict(reversed(reordered["train"].items()))
    reordered["train"]["schedule"] = dict(reversed(reordered["train"]["schedule"].items()))
    assert flags(at_iteration(load_study(reordered).arm_train("spin"), 0)) == rendered({})
    assert rendered({"train": {"beta": 0.2}}) != rendered({})


def test_flags_hold_this_iterations_values_alone():
    given = {"train": {"learning_rate": [1e-6, 2e-6, 3e-6, 4e-6]}}
    rates = [rendered(given, k)[rendered(given, k).index("--learning-rate") + 1] for k in range(4)]
    assert rates == ["1e-06", "2e-06", "3e-06", "4e-06"]


SECTIONS = {
    "train": at_iteration(load().arm_train("spin"), 2),
    "train of a baseline": load().model_train("dpo"),
    "dialogue": Dialogue(
        template="Q: {prompt}\n100% A: ", eos="</s>", max_prompt_tokens=3, max_tokens=9, eos_on_cut=True
    ),
    "generate": Generate(engine="transformers", temperature=0, top_p=0.95, max_new_tokens=5, batch_size=2),
    "logprobs": load().logprobs,
    "scratch": Scratch(**SCRATCH, context=128),
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_flags_come_back_as_the_section_they_came_from(section):
    parser = argparse.ArgumentParser()
    add_flags(parser, type(section))
    assert from_flags(parser.parse_args(flags(section)), type(section)) == section


def test_a_percent_sign_in_a_description_is_no_format():
    class Odd(base.Section):
        share: float = Field(description="100% of it")

    parser = argparse.ArgumentParser()
    add_flags(parser, Odd)
    assert "100% of it" in parser.format_help()


def test_sections_share_a_parser_and_every_flag_is_required(capsys):
    parser = argparse.ArgumentParser()
    add_flags(parser, Generate)
    add_flags(parser, Dialogue)
    given = [*flags(SECTIONS["generate"]), *flags(SECTIONS["dialogue"])]
    assert from_flags(parser.parse_args(given), Dialogue) == SECTIONS["dialogue"]
    with pytest.raises(SystemExit):
        parser.parse_args(given[2:])
    assert "--engine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--beta", "x", "--beta: Input should be a valid number, unable to parse string as a number, found 'x'"),
        ("--schedule-warmup", "2", "--schedule-warmup: Input should be less than or equal to 1, found '2'"),
        ("--optimizer", "sgd", "--optimizer: Input should be 'rmsprop' or 'adamw', found 'sgd'"),
    ],
)
def test_wrong_flags_are_refused_by_name(flag, value, message):
    parser = argparse.ArgumentParser()
    add_flags(parser, Train)
    with pytest.raises(StudyError) as error:
        from_flags(parser.parse_args([*flags(SECTIONS["train"]), flag, value]), Train)
    assert str(error.value) == message


# Documents


def test_every_key_has_a_description():
    assert [".".join(key.path) for key in document.leaves() if not key.node.get("description")] == []
    assert len(document.leaves()) > 80


@pytest.mark.parametrize("name", ["README.md", "schema.json"])
def test_generated_documents_are_up_to_date(name):
    text = document.render_for(CONFIG)[name]
    diff = difflib.unified_diff(
        (CONFIG / name).read_text().splitlines(), text.splitlines(), f"config/{name}", "generated", lineterm=""
    )
    shown = "\n".join(diff)
    assert not shown, f"run `python tests/update.py`:\n{shown}"


def test_the_readme_explains_every_file_and_every_key():
    text = (CONFIG / "README.md").read_text()
    for path in CONFIG.iterdir():
        assert f"| `{path.name}{'/' if path.is_dir() else ''}` |" in text, f"name {path.name} in document.INTRODUCTION"
    for key in document.leaves():
        single = len(key.path) == 1
        assert f"| `{'.'.join(key.path if single else key.path[1:])}` |" in text
    marked = [line.split("`")[1] for line in text.splitlines() if "**per iteration**" in line]
    assert marked == ["beta", "learning_rate", "epochs"]
