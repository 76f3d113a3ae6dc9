"""Wrong values and contradictions between sections, and what the arms make of their settings."""

from pathlib import Path

import pytest
import yaml
from configuration import BASE, CONFIG, SCRATCH, load, refusal

from wspin.config.flags import flags
from wspin.config.stages import at_iteration
from wspin.config.weigh import FORM_KEYS, STORED

SUITES = dict.fromkeys(load({}).eval.suites, "transformers")

# Mistakes in values


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"data": {"sft": {"split": None}}}, "data.sft.split: missing key"),
        (
            {"train": {"beta": "x"}},
            "train.beta: expected a number, found 'x'",
        ),
        (
            {"train": {"beta": [1, 2, "x", 4]}},
            "train.beta.2: expected a number, found 'x'",
        ),
        ({"report": {"folder": "scores.md"}}, "report.folder: expected the name of a folder, of a-z, 0-9, `_` and `-`"),
        ({"train": {"epochs": 1.5}}, "train.epochs: expected a whole number, found 1.5"),
        ({"train": {"sft": {"bta": 1}}}, "train.sft.bta: unknown key; did you mean `beta`?"),
        ({"models": {"base": {"revision": None}}}, "models.base: hub and revision belong together"),
        (
            {"models": {"base": {"revision": "main"}}},
            "models.base.revision: expected the 40 hex digits of a commit, found 'main'",
        ),
        ({"data": {"sft": {"revision": None}}}, "data.sft: hub and revision belong together"),
        (
            {"eval": {"sources": {"arc": {"revision": "v1.0"}}}},
            "eval.sources.arc.revision: expected the 40 hex digits of a commit",
        ),
        (
            {"models": {"base": {"path": "here"}}},
            "models.base: expected exactly one of hub, path, package, scratch, from, found hub, path",
        ),
        ({"models": {"Base": {"path": "here"}}}, "models.Base: expected a name of a-z"),
        ({"models": {"sft": {"data": None}}}, "models.sft: `from`, `loss` and `data` belong together"),
        (
            {"models": {"dpo": {"data": "sft"}}},
            "models.dpo: a preference loss trains on data preferences, and loss sft on data sft, preferences.chosen,",
        ),
        ({"models": {"dpo": {"train": {"loss": "sft"}}}}, "models.dpo.train.loss: the model's loss is 'dpo'"),
        ({"dialogue": {"max_prompt_tokens": 2048}}, "dialogue: max_prompt_tokens 2048 leaves no room for answers"),
        (
            {"generate": {"max_new_tokens": 1025}},
            "generate.max_new_tokens: expected at most 1024 (dialogue.max_tokens 2048 less max_prompt_tokens 1024)",
        ),
        ({"arms": {"spin": None, "wspin": None, "wspin.paper": None}}, "arms: expected 1 or more entries, found {}"),
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
        (
            {"train": {"learning_rate": [1e-7, 1e-7, 1e-7]}},
            "train.learning_rate: expected one value or a list of 4",
        ),
        (
            {"train": {"learning_rate": [1e-7] * 5}},
            "train.learning_rate: expected one value or a list of 4",
        ),
        (
            {"iterations": 3},
            "train.learning_rate: expected one value or a list of 3",
        ),
        (
            {"arms": {"spin": {"iterations": 5}}},
            "arms.spin.train.learning_rate: expected one value or a list of 5",
        ),
        (
            {"arms": {"spin": {"train": {"beta": [0.1] * 3}}}},
            "arms.spin.train.beta: expected one value or a list of 4",
        ),
        (
            {"arms": {"spin": {"train": {"beta": [0.1] * 5}}}},
            "arms.spin.train.beta: expected one value or a list of 4",
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


def test_an_overlays_results_are_no_arm_of_the_study():
    """Whether the overlay has run or not: two studies must never share a folder."""
    overlays = [yaml.safe_load(file.read_text()) for file in (CONFIG / "overlays").rglob("*.yaml")]
    folders = {overlay["results"] for overlay in overlays if "results" in overlay}
    assert {Path(folder).name for folder in folders} >= {"demo", "smollm2", "swift_paper"}
    for name in (Path(folder).name for folder in folders):
        assert f"arms.{name}: '{name}' is the name of a folder of the results" in refusal({"arms": {name: {}}})


@pytest.mark.parametrize("spelling", ["results/x/", "results//x", "./results/x", "results/y/../x"])
def test_trap_25_the_results_have_one_spelling(spelling):
    assert f"results: found '{spelling}', expected 'results/x'" in refusal({"results": spelling})


def test_a_study_takes_its_own_results_for_its_own(tmp_path):
    (tmp_path / "iterative/ite0").mkdir(parents=True)
    assert load({"results": str(tmp_path), "arms": {"iterative": {}}})


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"start": "nobody"}, "start: no model 'nobody' in the registry; it holds base, sft, teacher, dpo"),
        ({"arms": {"spin": {"start": "nobody"}}}, "arms.spin.start: no model 'nobody'"),
        ({"data": {"fits": ["base", "nobody"]}}, "data.fits: no model 'nobody'"),
        ({"data": {"fits": ["base", "sft"]}}, "data.fits: 'sft' is trained on the rows that it would select"),
        ({"eval": {"models": ["base", "nobody"]}}, "eval.models: no model 'nobody'"),
        ({"models": {"dpo": {"from": "nobody"}}}, "models.dpo.from: no model 'nobody'"),
        ({"models": {"sft": {"from": "sft"}}}, "models.sft: expected a model that does not need itself"),
        ({"models": {"sft": {"from": "dpo"}}}, "; break the circle"),
        (
            {"models": {"base": {"hub": None, "revision": None, "scratch": {**SCRATCH, "context": 64}}}},
            "models.base.scratch.context: shorter",
        ),
        ({"train": {"loss": "sft"}}, "arms.spin.train.loss: loss sft has no opponent"),
        ({"eval": {"suites": {"new": {"piqa": 0}}}}, "eval.suites.new: no source; add one to eval.sources"),
        ({"eval": {"suites": {"arc": {"piqa": 0}}}}, "eval.suites.arc.piqa: no metric; add one to report.metrics"),
        ({"eval": {"suites": {"arc": {"mmlu": 0}}}}, "eval.suites.arc.mmlu: task 'mmlu' is in two suites"),
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
        *(
            (
                {"models": {name: {"dtype": "bfloat16"}}},
                f"models.{name}.dtype: expected float32, as the model takes part",
            )
            for name in ("base", "sft", "dpo")
        ),
        ({"dialogue": {"template": "humanassistant"}}, "dialogue.template: found 'humanassistant'; expected"),
        (
            {"train": {"sft": {"reduction": None}, "reduction": None}},
            "train.reduction: missing key; needed by loss sft",
        ),
        (
            {"train": {"beta": None}},
            "train.beta: missing key; needed by loss dpo, spin, hinge, ipo, tdpo1, tdpo2, wspin",
        ),
        ({"train": {"alpha": None}}, "train.alpha: missing key; needed by loss tdpo2, wspin"),
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
            ": eval.engine: vllm cannot tokenise the held-out rows of suite 'arc' as training does; use transformers",
        ),
        (
            {
                "eval": {
                    "engine": {**SUITES, "arc": "vllm"},
                    "sources": {"arc": {"hub": None, "revision": None, "path": "a", "heldout": True}},
                }
            },
            ": eval.engine.arc: vllm cannot tokenise the held-out rows of suite 'arc' as training does",
        ),
        (
            {"eval": {"engine": {name: "vllm" for name in SUITES if name != "gsm8k"}}},
            ": eval.engine: no engine for suite 'gsm8k'; add one, such as `gsm8k: transformers`",
        ),
        (
            {"eval": {"engine": {**SUITES, "gsm": "vllm"}}},
            "eval.engine.gsm: no suite 'gsm'; there are arc, hellaswag, mmlu, truthfulqa, winogrande, gsm8k",
        ),
        (
            {"eval": {"engine": {**SUITES, "gsm8k": "vlm"}}},
            "eval.engine.gsm8k: expected 'transformers' or 'vllm', found 'vlm'; did you mean 'vllm'?",
        ),
        (
            {"eval": {"engine": "vlm"}},
            "eval.engine: expected 'transformers' or 'vllm', found 'vlm'; did you mean 'vllm'?",
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
        ({"arms": {"wspin": {"weigh": {"k": -1}}}}, "arms.wspin.weigh.k: expected a number above 0, found -1"),
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
        ({"weigh": {"lower": 2.0}}, ": weigh.lower: expected at most upper 1.5, found 2.0"),
        ({"weigh": {"normalise": "sum_to"}}, ": weigh.normalise_to: missing key"),
        ({"arms": {"wspin": {"weigh": {"source": "pair"}}}}, ": weigh.positive: missing key; source pair"),
        (
            {"arms": {"wspin": {"weigh": {"source": "pair", "retrain": True, "positive": "dpo"}}}},
            "arms.wspin.weigh.positive: source pair with normalise none does not use it; remove the key",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "threshold", "preset": "default", "lower": -1.0}}}},
            "arms.wspin.weigh.preset: preset gives lower, upper; remove it, or set lower to null",
        ),
        (
            {"weigh": {"form": "random", "preset": "default", "scale_upper": 1}},
            "weigh: preset gives scale_lower, scale_",
        ),
        ({"weigh": {"preset": "default"}}, "weigh: form exp_clamp has no preset; remove the key, or give one"),
        (
            {"arms": {"wspin": {"weigh": {"normalise_over": "side"}}}},
            "arms.wspin.weigh.normalise_over: source teacher with normalise none does not use it",
        ),
        (
            {"weigh": {"upper": -0.5}},
            "weigh.lower: expected less than upper -0.5, found -0.5: that makes all weights equal",
        ),
        (
            {"weigh": {"mu_chosen": 0, "mu_rejected": 0}},
            "weigh.mu_chosen: expected mu_chosen or mu_rejected other than 0",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "binary", "preset": "default"}}}},
            "weigh.top_percent: expected less than 100, found 100.0: that makes all weights equal",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "rank_based", "scale_lower": 1, "scale_upper": 1}}}},
            "arms.wspin.weigh.scale_lower: expected less than scale_upper 1.0, found 1.0",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "binary"}}}},
            ": weigh.top_percent: missing key; source teacher, form bina",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "binary", "preset": "aggressive", "normalise": "mean_one"}}}},
            "arms.wspin.weigh.normalise: form binary may give an answer weights of zero alone",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "origin", "normalise": "mean_one"}}}},
            "arms.wspin.weigh.normalise: form origin gives weights of both signs",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "linear", "control": "inverse"}}}},
            "arms.wspin.weigh.control: inverse takes positive weights, form linear may give others",
        ),
        (
            {"arms": {"wspin": {"weigh": {"form": "random", "preset": "default"}}}},
            "weigh.source: form random uses no teacher; expected equal",
        ),
        (
            {"arms": {"wspin": {"weigh": {"source": "swift_as_released"}}}},
            "weigh.shifted: missing key; source swift_as_released",
        ),
        (
            {"arms": {"wspin": {"weigh": {"source": "swift_as_released", "shifted": True, "form": "linear"}}}},
            "arms.wspin.weigh.form: source swift_as_released with normalise none does not use it",
        ),
        (
            {"arms": {"wspin": {"weigh": {"source": "swift_as_released", "shifted": True, "segment_agg": "log_mean"}}}},
            "arms.wspin.weigh.segment_agg: source swift_as_released with normalise none does not use it",
        ),
        (
            {"arms": {"wspin": {"weigh": {"source": "swift_as_released", "shifted": True, "control": "random"}}}},
            "arms.wspin.weigh.source: control random uses no teacher",
        ),
        (
            {"arms": {"wspin": {"weigh": {"shifted": True}}}},
            "arms.wspin.weigh.shifted: source teacher with normalise none does not use it",
        ),
        (
            {"arms": {"wspin": {"weigh": {"source": "equal", "segments": "common_starts"}}}},
            "arms.wspin.weigh.segments: source equal with normalise none does not use it",
        ),
        ({"weigh": {"k": float("inf")}}, "weigh.k: expected a finite number, found inf"),
        ({"arms": {"spin": {"train": {"alpha": 0.5}}}}, "arms.spin.train.alpha: loss spin does not use it"),
        (
            {"arms": {"spin": {"train": {"loss": "hinge", "label_smoothing": 0.1}}}},
            "arms.spin.train.label_smoothing: loss hinge does not use it; remove the key",
        ),
        (
            {"arms": {"spin": {"train": {"loss": "tdpo", "reference_free": True}}}},
            "arms.spin.train.reference_free: loss tdpo1 does not use it; remove the key",
        ),
        (
            {"models": {"dpo": {"train": {"alpha": 0.5}}}},
            "models.dpo.train.alpha: loss dpo does not use it; remove the key",
        ),
        (
            {"arms": {"wspin": {"train": {"alpha": 0.5, "reference_free": True}}}},
            "arms.wspin.train.reference_free: alpha 0.5 adds a KL term to the reference; remove one of the two keys",
        ),
        (
            {"train": {"reference_free": True}, "arms": {"wspin": {"train": {"alpha": 0.5}}}},
            ": train.reference_free: alpha 0.5 adds a KL term to the reference",
        ),
        (
            {"arms": {"spin": {"train": {"loss": "tdpo2"}}}},
            ": train.alpha: loss tdpo2 without its KL term is dpo: expected above 0",
        ),
        (
            {"arms": {"spin": {"train": {"loss": "tdpo1", "parallel": "fsdp"}}}},
            "arms.spin.train.parallel: loss tdpo1 keeps a whole reference model on each GPU",
        ),
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
        ({"models": {"dpo": {"weigh": {"k": 2.0}}}}, "models.dpo: weigh goes with loss wspin"),
        (
            {"arms": {"wspin": {"train": {"triplets": True, "global_batch": 65}}}},
            "arms.wspin.train.global_batch: found 65, expected a multiple of 2: triplets keeps the 2 pairs of a prompt",
        ),
        (
            {"resources": {"train": {"gpu": 65}}},
            "train.global_batch: expected one pair or more for each GPU (resources.train.gpu 65), found 64",
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
    unweighted = {"arms": {"wspin": None, "wspin.paper": None}}
    assert load({**unweighted, "weigh": {"lower": 2.0}})


@pytest.mark.parametrize("name", ["tis-dpo", "tisdpo", "wspin"])
def test_trap_09_the_published_names_of_the_loss_are_the_same_loss(name):
    study = load({"arms": {"wspin": {"train": {"loss": name}}}})
    assert study.weighted("wspin")
    assert flags(study.arm_train("wspin"))[:2] == ["--loss", "wspin"]


@pytest.mark.parametrize(
    ("name", "loss"), [("sigmoid", "spin"), ("logistic", "spin"), ("tdpo", "tdpo1"), ("hinge", "hinge"), ("ipo", "ipo")]
)
def test_the_published_names_of_other_losses(name, loss):
    study = load({"arms": {"spin": {"train": {"loss": name}}}})
    assert flags(study.arm_train("spin"))[:2] == ["--loss", loss]
    assert not study.weighted("spin")


def test_a_switch_that_is_off_leaves_no_trace():
    """Trainings of before the switch existed do not run again."""
    plain, off, on = (load({"train": {"reference_free": value}}).arm_train("spin") for value in (None, False, True))
    assert flags(plain) == flags(off)
    assert "--reference-free" not in flags(plain)
    assert "reference_free" not in off.recorded()
    assert on.recorded()["reference_free"] is True
    assert flags(on)[flags(on).index("--reference-free") + 1] == "true"
    assert (
        load({"train": {"reference_free": True}, "arms": {"spin": {"train": {"loss": "tdpo1"}}}})
        .arm_train("spin")
        .reference_free
        is None
    )


def test_weights_hold_what_they_are_made_from_alone():
    """So that an edit of the rest makes none again."""
    study = load({"arms": {"equal": {"train": {"loss": "wspin"}, "weigh": {"source": "equal"}}}})
    weigh = study.arm_weigh("wspin").model_dump(exclude_none=True)
    always = {"source", "control", "normalise", "eos_weight"}
    assert set(weigh) == {*always, "form", *FORM_KEYS["exp_clamp"], "segment_agg"}
    assert set(study.arm_weigh("wspin").stored()) == {*always, *STORED}
    equal = study.arm_weigh("equal").model_dump(exclude_none=True)
    assert equal == {"source": "equal", "control": "none", "normalise": "none", "eos_weight": 1.0}


def test_both_members_of_a_cycle_are_named():
    lines = refusal({"models": {"sft": {"from": "dpo"}}})
    assert "'sft' needs 'dpo' needs 'sft'" in lines or "'dpo' needs 'sft' needs 'dpo'" in lines
