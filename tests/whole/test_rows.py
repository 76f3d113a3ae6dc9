"""What Snakemake plans for the papers' rows beside SPIN and WSPIN, and what an edit makes it plan again."""

import pytest
import workflow

RESULTS = "results/rows"
SIDES = ("preferences.chosen", "preferences.rejected")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A study with these rows in which nothing has run."""
    return workflow.checkout(tmp_path_factory.mktemp("rows"), workflow.TWO_ARMS, "tests/configs/rows.yaml")


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    """Its finished trainings, made by stubs."""
    study = rows.copy(tmp_path_factory.mktemp("trained") / "study")
    study.use_stubs()
    study.make("models")
    return study


def made(planned):
    """Folders of models and of files by shard among the outputs."""
    names = {output.removeprefix(f"{RESULTS}/") for output in planned.made()}
    folders = {name.rsplit("/", 1)[0] for name in names if name.endswith(("/model", ".parquet", ".json"))}
    return {folder for folder in folders if not folder.startswith(("data", "fetched"))}


def logprobs(*scorers, sides=SIDES):
    return {f"logprobs/{scorer}/{side}" for scorer in scorers for side in sides}


EVERYWHERE = {"base", "teacher", "sft", "sft/preferences"}
OWN = {  # what a row makes beside these
    "dpo.reverse": {"dpo.reverse"},
    "sft.chosen": {"sft.chosen"},
    "tisdpo.p": {*logprobs("sft@good", "sft@bad"), "tisdpo.p", "tisdpo.p/weights"},
    "tisdpo.s": {
        *logprobs("sft.chosen", "sft.rejected"),
        *("sft.chosen", "sft.rejected", "tisdpo.s", "tisdpo.s/weights"),
    },
    "tisdpo.d": {*logprobs("dpo", "dpo.reverse"), "dpo", "dpo.reverse", "tisdpo.d", "tisdpo.d/weights"},
    "spin.dpo": {
        *("spin/ite0", "spin/ite1", "spin/ite1/generations", "spin/ite1/reference", "sft/generations", "sft/reference"),
        *("spin/ite1/preferences", "spin.dpo"),
    },
    "kd": {"teacher/answers", "kd"},
    "contrast/ite0": {
        *("sft/generations", "sft/reference", "contrast/ite0/plus", "contrast/ite0/minus"),
        *logprobs("contrast/ite0/plus", "contrast/ite0/minus", sides=("gold", "sft")),
        *("contrast/ite0/weights", "contrast/ite0"),
    },
    "mean/ite0": {
        *("sft/generations", "sft/reference", *logprobs("teacher", sides=("gold", "sft"))),
        *("mean/ite0/weight_sums", "mean/ite0/weights", "mean/ite0"),
    },
}


@pytest.mark.parametrize("row", OWN)
def test_a_row_plans_its_models_and_files(rows, row):
    planned = made(rows.plan(f"{RESULTS}/{row}/model"))
    assert planned - EVERYWHERE == OWN[row]


def test_finished_rows_plan_nothing(trained):
    assert trained.plan("models").jobs == []


EDITS = {
    "a view's text": (
        {"models": {"sft": {"views": {"good": "Very well. {prompt}\n"}}}},
        {*logprobs("sft@good"), "tisdpo.p", "tisdpo.p/weights"},
    ),
    "a scorer's training": (
        {"models": {"dpo.reverse": {"train": {"epochs": 3}}}},
        {*logprobs("dpo.reverse"), "dpo.reverse", "tisdpo.d", "tisdpo.d/weights"},
    ),
    "one side's training": (
        {"models": {"sft.chosen": {"train": {"epochs": 3}}}},
        {*logprobs("sft.chosen"), "sft.chosen", "tisdpo.s", "tisdpo.s/weights"},
    ),
    "a model's weights": ({"models": {"tisdpo.s": {"weigh": {"k": 2.0}}}}, {"tisdpo.s", "tisdpo.s/weights"}),
    "how the distilled model answers": ({"generate": {"answers": "sampled"}}, {"teacher/answers", "kd"}),
    "its end token": ({"models": {"teacher": {"eos": "</s>"}}}, {"teacher/answers", "kd"}),
    "the sides of a baseline": (
        {"models": {"dpo": {"reverse": True}}},
        {*logprobs("dpo"), "dpo", "tisdpo.d", "tisdpo.d/weights"},
    ),
    "an arm that a baseline starts from": (
        {"arms": {"spin": {"train": {"beta": [0.1, 0.3]}}}},
        {"spin/ite1", "spin/ite1/preferences", "spin.dpo"},
    ),
    "weights over the data set": (
        {"arms": {"mean": {"weigh": {"normalise_over": "dataset"}}}},
        {f"mean/ite{k}{kind}" for k in (0, 1) for kind in ("", "/weights", "/weight_sums")}
        | {"mean/ite1/generations", "mean/ite1/reference", "logprobs/teacher/mean/ite1"},
    ),
    "a contrast's weights": (
        {"arms": {"contrast": {"weigh": {"k": 2.0}}}},
        {"contrast/ite0", "contrast/ite0/weights", "contrast/ite1/generations", "contrast/ite1/reference"}
        | {"contrast/ite1/plus", "contrast/ite1/minus", "contrast/ite1/weights", "contrast/ite1"}
        | logprobs("contrast/ite1/plus", "contrast/ite1/minus", sides=("gold", "contrast/ite1")),
    ),
}


@pytest.mark.parametrize(("edit", "expected"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_plans_what_depends_on_it_alone(trained, edit, expected):
    assert made(trained.overlay(edit).plan("models")) == expected
