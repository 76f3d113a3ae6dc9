"""Which models weigh the tokens of arms and registry models, and in which files their log-probabilities lie."""

import pytest
from configuration import load, refusal

from wspin.iteration import Contrast, Iteration
from wspin.study.jobs import rows
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

PAIRS = {"from": "sft", "loss": "dpo", "data": "preferences"}
WSPIN = {**PAIRS, "loss": "wspin"}
MODELS = {
    "sft": {"views": {"good": "Well: {prompt}", "bad": "Badly: {prompt}"}},
    "dpo.reverse": {"from": "sft", "loss": "dpo", "data": "preferences", "reverse": True},
    "sft.chosen": {"from": "sft", "loss": "sft", "data": "preferences.chosen"},
    "p": {**WSPIN, "weigh": {"source": "pair", "positive": "sft@good", "negative": "sft@bad"}},
    "d": {**WSPIN, "weigh": {"source": "pair", "positive": "dpo", "negative": "dpo.reverse"}},
    "spin.dpo": {"from": "spin/ite3", "loss": "dpo", "data": "preferences"},
    "kd": {"from": "base", "loss": "sft", "data": "answers", "of": "teacher"},
}
ARMS = {
    "contrast": {"train": {"loss": "wspin"}, "weigh": {"source": "pair", "retrain": True}},
    "surprisal": {
        "train": {"loss": "wspin"},
        "weigh": {"source": "pair", "positive": "teacher", "negative": "none"},
    },
}
OVERLAY = {"models": MODELS, "arms": ARMS, "generate": {"answers": "greedy"}}


@pytest.fixture(scope="module")
def study():
    return StudyPaths(load(OVERLAY))


def names(paths):
    return [path.removeprefix("results/") for path in paths]


def test_every_scorer_is_named_once(study):
    contrasts = [f"contrast/ite{k}/{side}" for k in range(4) for side in ("minus", "plus")]
    assert study.scorers == sorted(["dpo", "dpo.reverse", "sft@bad", "sft@good", "teacher", *contrasts])
    assert study.contrast_models == contrasts


def test_a_view_is_a_model_in_another_template(study):
    assert study.scorer_model("sft@good") == "results/sft/model"
    assert (study.template("sft@good"), study.template("sft")) == ("Well: {prompt}", "human-assistant")
    flags = RuleFlags(study).logprobs_scorer("sft@good", "preferences.rejected", "00")
    assert flags[flags.index("--template") + 1] == "Well: {prompt}"
    assert flags[-2:] == ["--side", "rejected"]


@pytest.mark.parametrize("shifted", [True, False])
def test_the_released_source_has_the_teacher_alone_as_scorer(shifted):
    """Read one position early it is a scorer of its own, beside the teacher of other arms."""
    weigh = {"source": "swift_as_released", "shifted": shifted}
    arms = {"released": {"train": {"loss": "wspin"}, "weigh": weigh}}
    study = StudyPaths(load({"arms": arms, "models": {"m": {**WSPIN, "weigh": weigh}}}))
    name = "teacher@shifted" if shifted else "teacher"
    assert study.scorer_pair("released/ite1") == study.scorer_pair("m") == (name, None)
    assert study.scorers == sorted({name, "teacher"})
    sides = ("gold", "released/ite1")
    assert names(study.positive_logprobs("released/ite1", "00")) == [
        f"logprobs/{name}/{side}/00.parquet" for side in sides
    ]
    assert study.scorer_model(name) == study.scorer_model("teacher")
    assert study.template(name) == study.template("teacher")
    flags = RuleFlags(study).logprobs_scorer
    assert flags(name, "gold", "00") == [*flags("teacher", "gold", "00"), *["--shifted"] * shifted]
    weights = RuleFlags(study).weigh("released/ite1", "00")
    assert weights[weights.index("--shifted") + 1] == str(shifted).lower()
    assert not {"--form", "--k", "--segment-agg"} & set(weights)


def test_preference_pairs_are_scored_side_by_side(study):
    sides = ("preferences.chosen", "preferences.rejected")
    assert names(study.positive_logprobs("p", "01")) == [f"logprobs/sft@good/{side}/01.parquet" for side in sides]
    assert names(study.negative_logprobs("d", "01")) == [f"logprobs/dpo.reverse/{side}/01.parquet" for side in sides]
    assert study.scorer_rows(sides[0]) == "results/data/preferences.parquet"
    assert study.scorer_rows("gold") == study.scorer_rows("sft") == "results/data/prompts.parquet"
    assert names(study.training_weights("d"))[:2] == ["d/weights/00.parquet", "d/weights/01.parquet"]


def test_no_files_for_the_student_and_for_none(study):
    assert study.negative_logprobs("surprisal/ite0", "00") == []
    assert study.negative_logprobs("wspin/ite0", "00") == []
    assert study.positive_logprobs("surprisal/ite0", "00") == study.positive_logprobs("wspin/ite0", "00")


def test_a_retrained_pair_learns_from_its_iterations_pairs(study):
    plus, minus = (Contrast(Iteration("contrast", 2), side).name for side in ("plus", "minus"))
    assert names(study.positive_logprobs("contrast/ite2", "00"))[1] == f"logprobs/{plus}/contrast/ite2/00.parquet"
    assert names(study.negative_logprobs("contrast/ite2", "00"))[0] == f"logprobs/{minus}/gold/00.parquet"
    assert study.parent(plus) == study.parent(minus) == "contrast/ite1"
    assert study.training_reference(plus) == study.training_reference("contrast/ite2")
    assert study.training_weights(plus) == []
    train = RuleFlags(study).train
    assert train(plus)[:4] == ["--replays", "0", "--unreplayed", "true"]
    assert train(minus)[:6] == ["--replays", "0", "--unreplayed", "true", "--reverse", "true"]
    assert train(plus)[train(plus).index("--loss") :][:2] == ["--loss", "dpo"]


def test_what_a_registry_model_is_trained_on(study):
    train = RuleFlags(study).train
    assert train("dpo.reverse")[:4] == ["--replays", "0", "--reverse", "true"]
    assert train("sft.chosen")[:4] == ["--replays", "0", "--side", "chosen"]
    assert study.training_rows("sft.chosen") == "results/data/preferences.parquet"
    assert names(study.training_answers("kd"))[0] == "teacher/answers/00.parquet"
    assert study.training_rows("kd") == "results/data/prompts.parquet"
    assert study.training_reference("spin.dpo")[0] == "results/spin/ite3/preferences/00.parquet"
    assert study.ancestors("spin.dpo")[:2] == ["spin/ite3", "spin/ite2"]


def test_status_knows_their_jobs(study):
    table = rows(study)
    assert [len(table["d"][column]) for column in ("reference", "scorers' logprobs", "weights")] == [5, 20, 5]
    assert table["kd"]["generations"][0].outputs == ("results/teacher/answers/00.parquet",)
    assert list(table).index("contrast/ite0/plus") < list(table).index("contrast/ite0")


def test_a_study_without_them_has_the_flags_of_before():
    """Finished trainings are not repeated."""
    flags = RuleFlags(StudyPaths(load())).train("spin/ite1")
    assert flags[:8] == ["--replays", "1", "--seed", "42", "1", "--autocast", "bfloat16", "--loss"]


def weighed_by(**weigh):
    return {"m": {**WSPIN, "weigh": {"source": "pair", **weigh}}}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"m": {**PAIRS, "data": "sft"}}, "a preference loss trains on data preferences"),
        ({"m": {"from": "sft", "loss": "sft", "data": "answers"}}, "data answers and `of`"),
        ({"m": {"from": "sft", "loss": "sft", "data": "sft", "reverse": True}}, "reverse swaps the sides of pairs"),
        ({"m": {**WSPIN, "reverse": True, "weigh": {"source": "equal"}}}, "no loss wspin"),
        ({"m": {"from": "base", "loss": "sft", "data": "sft", "eos": "</s>"}}, "ends its answers with dialogue.eos"),
        ({"m": {**PAIRS, "weigh": {"k": 2.0}}}, "weigh goes with loss wspin"),
        ({"m": {**PAIRS, "from": "spin/ite4"}}, "arm 'spin' has ite0 to ite3"),
        ({"m": {**PAIRS, "from": "spun/ite0"}}, "no arm 'spun'"),
        (weighed_by(positive="dpo"), "weigh.negative: missing key"),
        (weighed_by(positive="sft@x", negative="none"), "no view 'x' of 'sft'"),
        (weighed_by(positive="teacher@shifted", negative="none"), "no view 'shifted' of 'teacher'"),
        (
            {"sft": {"views": {"shifted": "So: {prompt}"}}},
            "models.sft.views.shifted: 'shifted' has a meaning of its own",
        ),
        (weighed_by(retrain=True), "only arms have iterations to train a pair in"),
        (weighed_by(positive="m", negative="none"), "'m' needs 'm'"),
        (weighed_by(positive="student", negative="student"), "expected another scorer than negative, found 'student'"),
        ({"student": WSPIN}, "'student' is a word in place of a scorer"),
        (weighed_by(positive="none", negative="none"), "none and none have no log-probabilities"),
        ({"kd": MODELS["kd"]}, "generate.answers: missing key"),
        ({"base": {"eos": "</s>"}}, "no model is trained on this one's answers"),
        ({"none": WSPIN}, "'none' is a word in place of a scorer"),
    ],
)
def test_contradictions_are_refused(models, message):
    assert message in refusal({"models": models})


def test_a_pair_that_is_trained_anew_needs_settings_of_its_own():
    arms = {"c": {"train": {"loss": "wspin"}, "weigh": {"source": "pair", "retrain": True}}}
    edit = {"arms": arms, "train": {"beta": [0.1, 0.1, 0.1, 5.0]}, "models": {"dpo": None}}
    assert "beta is a list per iteration, and this model has no iterations: give train.dpo.beta" in refusal(edit)


def test_a_teacher_that_an_arm_does_not_use_is_no_circle():
    m = {**WSPIN, "weigh": {"source": "pair", "positive": "dpo", "negative": "none"}}
    assert load({"teacher": "m", "models": {"m": m}}).teacher == "m"


def test_a_pupil_completes_cut_answers_as_references_do():
    flags = RuleFlags(StudyPaths(load({**OVERLAY, "dialogue": {"eos_on_cut": True}}))).train
    cut = {model: flags(model)[flags(model).index("--eos-on-cut") + 1] for model in ("kd", "sft", "dpo")}
    assert cut == {"kd": "true", "sft": "false", "dpo": "false"}
