"""Score files: what is read, and what is refused because it was made in different ways."""

import math
import re

import pytest
from score_files import (
    METRICS,
    MODELS,
    SCORES,
    put,
    score_texts,
)

from wspin.errors import StudyError
from wspin.report import scores
from wspin.report.tables import (
    score_tables,
)


def refusal(results, models=MODELS, metrics=METRICS, suites=("demo",)):
    with pytest.raises(StudyError) as error:
        score_tables(scores.read_scores(results, models, suites), metrics)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("engine", "vllm"),
        ("autocast", "bfloat16"),
        ("token_budget", 64),
        ("batch_size", 64),
        ("seeds", [0, 1234, 1234, 1]),
        ("versions", {**SCORES["versions"], "torch": "2.12.0"}),
        ("versions", {**SCORES["versions"], "vllm": "0.11"}),
        ("template", "zephyr"),
        ("tasks.spell.shots", 1),
        ("tasks.spell.version", 2.0),
        ("tasks.spell.n", 399),
        ("tasks.gsm8k.prompt_hash", "cc"),
    ],
)
def test_scores_made_in_different_ways_are_refused(results, place, value):
    def change(scores):
        *above, last = place.split(".")
        for key in above:
            scores = scores[key]
        scores[last] = value

    path = put(results, "spin/ite0", change)
    message = refusal(results)
    found, expected = repr(value), SCORES
    for key in place.split("."):
        expected = expected[key]
    within = {"template": "suite demo", "engine": "suite demo"}
    within |= dict.fromkeys(("versions", "token_budget"), "engine transformers")
    place = f"{place} (of {within[place]})" if place in within else place
    for part in (str(path), str(results / "sft/scores/demo.json"), f"{place}: expected {expected!r}", f"found {found}"):
        assert part in message


def test_suites_may_differ_in_template(results):
    """lm-eval's own tasks have none, those on held-out rows have the study's."""

    def change(scores):
        scores.update(suite="more", template=None, model="f0")
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    put(results, "sft", change, suite="more")
    assert len(scores.read_scores(results, ["sft"], ["demo", "more"])) == 2


def test_a_suite_has_one_engine_for_all_models_and_another_suite_may_have_another(results):
    """With the versions and settings of its own; the rest is equal in the whole table."""

    def change(scores, **changes):
        scores.update(suite="more", engine="vllm", token_budget=None, versions={"vllm": "0.11"}, **changes)
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    for model, fingerprint in (("sft", "f0"), ("spin/ite0", "f1")):
        put(results, model, lambda scores, model=fingerprint: change(scores, model=model), suite="more")
    files = scores.read_scores(results, MODELS, ["demo", "more"])
    assert [file.scores.engine for file in files] == ["transformers", "vllm"] * 2
    for changes, place in (
        ({"engine": "transformers"}, "engine (of suite more)"),
        ({"versions": {"vllm": "0.12"}}, "versions (of engine vllm)"),
        ({"autocast": "bfloat16"}, "autocast"),
        ({"batch_size": 1}, "batch_size"),
    ):
        put(results, "spin/ite0", lambda s, changes=changes: (change(s, model="f1"), s.update(changes)), suite="more")
        with pytest.raises(StudyError, match=re.escape(f"{results}/spin/ite0/scores/more.json: {place}: expected")):
            scores.read_scores(results, MODELS, ["demo", "more"])


def test_a_model_that_is_loaded_in_bfloat16_is_noted_and_has_one_dtype(results):
    """As a teacher too large for float32, beside models that are trained."""
    assert not any("bfloat16" in text for text in score_texts(results))
    put(results, "sft", lambda s: s.update(dtype="bfloat16", model="f0"))
    _, *texts = score_texts(results)
    assert all("Loaded in bfloat16: sft." in text for text in texts)
    put(results, "sft", lambda s: s.update(suite="more", model="f0", tasks={}), suite="more")
    message = refusal(results, ["sft"], suites=["demo", "more"])
    assert "dtype (of sft, engine transformers): expected 'bfloat16' as in" in message


def test_engines_may_load_a_model_in_precisions_of_their_own(results):
    """Of the suites with vLLM the weights have the precision of the products."""

    def change(scores):
        scores.update(suite="more", engine="vllm", dtype="bfloat16", model="f0", token_budget=None)
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    put(results, "sft", change, suite="more")
    files = scores.read_scores(results, ["sft"], ["demo", "more"])
    assert [file.scores.dtype for file in files] == ["float32", "bfloat16"]


def test_suites_of_one_model_belong_to_one_fingerprint(results):
    def change(scores):
        scores.update(suite="more", model="f2")
        scores["tasks"] = {"arc": scores["tasks"].pop("spell")}

    put(results, "sft", change, suite="more")
    message = refusal(results, ["sft"], {**METRICS, "arc": "exact_match,none"}, ["demo", "more"])
    assert "model (of sft): expected 'f0' as in" in message
    assert "found 'f2'" in message


def test_a_task_in_two_suites_is_refused(results):
    put(results, "sft", lambda scores: scores.update(suite="more", model="f0"), suite="more")
    assert "tasks.spell (suite)" in refusal(results, ["sft"], suites=["demo", "more"])


def test_trap_30_missing_is_an_error_never_zero(results):
    assert "wspin/ite0/scores/demo.json: expected the scores of suite 'demo', found no file" in refusal(
        results, ["wspin/ite0"]
    )
    assert "tasks.spell.metrics: expected 'acc,none', found exact_match,none" in refusal(
        results, metrics={**METRICS, "spell": "acc,none"}
    )
    assert "sft: expected scores of task 'arc', found gsm8k, spell" in refusal(
        results, metrics={**METRICS, "arc": "acc,none"}
    )
    assert "tasks.gsm8k: expected a metric chosen for it, found none" in refusal(
        results, metrics={"spell": "exact_match,none"}
    )
    put(results, "spin/ite0", lambda scores: scores["tasks"].pop("gsm8k"))
    assert "spin/ite0: expected scores of task 'gsm8k'" in refusal(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("engine"), "engine: missing key"),
        (lambda s: s["tasks"]["spell"].pop("n"), "tasks.spell.n: missing key"),
        (lambda s: s["tasks"]["spell"].update(n="400"), "tasks.spell.n: expected a whole number, found '400'"),
        (
            lambda s: s["tasks"]["spell"]["metrics"].update({"exact_match,none": None}),
            "tasks.spell.metrics.exact_match,none",
        ),
        (
            lambda s: s["tasks"]["spell"]["metrics"].update({"exact_match,none": math.nan}),
            "tasks.spell.metrics.exact_match,none: expected a finite number",
        ),
        (
            lambda s: s["tasks"]["spell"]["metrics"].update({"exact_match,none": 47.5}),
            "expected a fraction, found 47.5",
        ),
        (lambda s: s["tasks"]["spell"].update(stderr={}), "tasks.spell: stderr holds"),
        (lambda s: s.update(suite="other"), "suite: expected 'demo', found 'other'"),
    ],
)
def test_malformed_scores_are_refused(results, change, message):
    path = put(results, "sft", change)
    error = refusal(results)
    assert f"{path}: " in error
    assert message in error


def test_a_file_that_is_no_json_is_refused(results):
    (results / "sft/scores/demo.json").write_text("{")
    assert "sft/scores/demo.json: expected scores, found no JSON (" in refusal(results)
