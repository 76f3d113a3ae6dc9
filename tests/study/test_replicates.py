"""Arms and models with several seeds: what they stand for, what they share, and which are compared."""

import pytest
from configuration import load, refusal

from wspin.iteration import Iteration
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

SEEDS = {"seeds": [42, 43, 44]}


def paths(arms, report=None, **overlay):
    return StudyPaths(load({"arms": arms, "report": {"published": None, **(report or {})}, **overlay}))


def test_an_arm_with_seeds_stands_for_one_arm_of_each():
    study = paths({"spin": SEEDS, "wspin.paper": {"seeds": [43, 42]}})
    assert study.arms == ["spin", "spin.s43", "spin.s44", "wspin", "wspin.paper", "wspin.paper.s43"]
    assert {arm: study.seed(arm) for arm in study.replicates("spin")} == {"spin": 42, "spin.s43": 43, "spin.s44": 44}
    assert study.study.arm_weigh("wspin.paper.s43") == study.study.arm_weigh("wspin.paper")
    explicit = {"spin.s43": {"seed": 43}, "spin.s44": {"seed": 44}, "wspin.paper.s43": {"seed": 43}}
    explicit["wspin.paper.s43"] |= {"train": {"loss": "wspin"}, "weigh": {"mu_rejected": 1.0}}
    written = paths(explicit)
    assert written.study.arms.keys() == study.study.arms.keys()
    for arm in explicit:
        assert study.iteration_files(Iteration(arm, 1)) == written.iteration_files(Iteration(arm, 1))


def test_arms_of_a_seed_share_the_answers_and_their_log_probabilities():
    study = paths({"spin": SEEDS, "wspin": SEEDS})
    assert study.start_sets == ["sft", "sft/s43", "sft/s44"]
    first = [Iteration(arm, 0) for arm in ("spin.s43", "wspin.s43")]
    assert {study.response_set(iteration) for iteration in first} == {"sft/s43"}
    assert {study.reference_folder(iteration) for iteration in first} == {"sft/s43"}
    assert study.positive_logprobs("wspin.s43/ite0", "00")[1] == "results/logprobs/teacher/sft/s43/00.parquet"


def test_arms_are_compared_with_the_baseline_of_their_seed():
    study = paths({"spin": SEEDS, "wspin": SEEDS, "wspin.paper": {"seeds": [42, 45]}}, iterations=1, train=ONE_RATE)
    assert study.comparisons() == [
        ("wspin/ite0", "spin/ite0"),
        ("wspin.paper/ite0", "spin/ite0"),
        ("wspin.s43/ite0", "spin.s43/ite0"),
        ("wspin.s44/ite0", "spin.s44/ite0"),
    ]
    assert study.uncompared() == ["wspin.paper.s45=45"]


ONE_RATE = {"learning_rate": 5e-7}
KD = {"from": "base", "loss": "sft", "data": "answers", "of": "teacher"}


def test_models_with_seeds_are_trained_and_shown_once_for_each():
    models = {"kd": {**KD, **SEEDS}}
    study = paths({}, models=models, generate={"answers": "greedy"}, eval={"models": ["base", "kd"]})
    assert study.study.eval.models == ["base", "kd", "kd.s43", "kd.s44"]
    assert study.replicates("kd") == study.replicates("kd.s44") == ["kd", "kd.s43", "kd.s44"]
    assert [study.draw_seed(name) for name in study.replicates("kd")] == [(42, 0), (43, 0), (44, 0)]
    assert study.training_answers("kd.s43") == study.training_answers("kd")


def test_replicates_are_pooled_and_compared_at_equal_seed():
    """Models of the registry with the last iteration; the table is made where there are replicates alone."""
    models, shown = {"kd": {**KD, "seeds": [42, 43, 45]}}, {"eval": {"models": ["base", "kd"]}}
    arms = {"spin": SEEDS, "wspin": SEEDS, "wspin.paper": None}
    study = paths(arms, models=models, generate={"answers": "greedy"}, iterations=1, train=ONE_RATE, **shown)
    pairs = [("kd", "kd.s43"), ("kd", "kd.s45"), ("spin", "spin.s43"), ("spin", "spin.s44")]
    assert study.replicate_pairs() == [*pairs, ("wspin", "wspin.s43"), ("wspin", "wspin.s44")]
    outside = [("kd", "spin/ite0"), ("kd.s43", "spin.s43/ite0")]
    assert study.pooled_comparisons() == [*study.comparisons(), *outside]
    flags = RuleFlags(study).report_pooled()
    assert {"kd=kd.s43", "wspin=wspin.s44", "kd.s43=spin.s43/ite0"} <= set(flags)
    assert "they share SFT, prompts, teacher" in flags[flags.index("--note") + 1]
    assert "wspin=wspin.s44" in RuleFlags(study).report_rewards()
    drawn = RuleFlags(study).report_histograms()  # seeds of an arm without weights draw it no second time
    assert drawn[drawn.index("--replicates") + 1 :] == ["wspin=wspin.s43", "wspin=wspin.s44"]
    assert {"results/tables/pooled.csv", "results/tables/pooled.md"} <= set(study.tables())

    single = paths({})
    assert single.replicate_pairs() == []
    assert single.pooled_comparisons() == single.comparisons()
    assert not [path for path in single.tables() if "pooled" in path]
    assert "results/figures/pooled.svg" in single.figures()
    assert not {"--note", "--replicates"} & set(RuleFlags(single).report_pooled())


def test_a_replicate_refers_to_the_replicates_of_its_seed():
    fork = {"fork": {"from": "spin", "at": 1}, "train": {"beta": 5.0}}
    pair = {"train": {"loss": "wspin"}, "weigh": {"source": "pair", "positive": "late.dpo", "negative": "spin/ite0"}}
    models = {"late.dpo": {"from": "spin/ite3", "loss": "dpo", "data": "preferences", "seeds": [42, 43]}}
    two = {"seeds": [42, 43]}
    study = paths({"spin": two, "late": {**fork, **two}, "other": {**pair, **SEEDS}}, models=models)
    assert study.opponent(Iteration("late.s43", 1)) == "spin.s43/ite0"
    assert study.parent("late.dpo.s43") == "spin.s43/ite3"
    assert study.scorer_pair("other.s43/ite0") == ("late.dpo.s43", "spin.s43/ite0")
    assert study.scorer_pair("other.s44/ite0") == study.scorer_pair("other/ite0") == ("late.dpo", "spin/ite0")
    assert study.replicates("late") == ["late", "late.s43"]
    assert study.replicates("other") == ["other", "other.s43", "other.s44"]


def test_replicates_may_have_an_sft_of_their_own():
    study = paths({"spin": SEEDS, "wspin": SEEDS, "wspin.paper": None}, replicates="all")
    assert list(study.study.models) == ["base", "sft", "sft.s43", "sft.s44", "teacher", "dpo"]
    assert study.opponent(Iteration("wspin.s43", 0)) == study.response_set(Iteration("spin.s43", 0)) == "sft.s43"
    assert study.draw_seed("sft.s43") == (43, 0)
    assert study.parent("sft.s43") == "base"
    assert study.study.eval.models == ["base", "sft", "sft.s43", "sft.s44", "dpo", "teacher"]
    assert study.replicates("wspin") == ["wspin", "wspin.s43", "wspin.s44"]
    assert ("wspin.s44/ite3", "spin.s44/ite3") in study.comparisons()


def test_arms_alike_in_all_but_the_name_keep_their_own_replicates():
    study = paths({"spin": SEEDS, "again": SEEDS})
    assert study.replicates("again") == ["again", "again.s43", "again.s44"]
    assert study.replicates("again.s43") == ["again", "again.s43", "again.s44"]
    assert study.replicates("spin") == ["spin", "spin.s43", "spin.s44"]
    placebo = paths({"spin": SEEDS, "again": {}, "by_hand": {"seed": 7}})
    assert placebo.replicates("again") == ["again"]
    assert placebo.replicates("by_hand") == ["spin", "by_hand", "spin.s43", "spin.s44"]


def test_models_are_compared_at_an_iteration_that_the_baseline_has_with_every_seed():
    arms = {
        "spin": {},
        "spin.s43": {"seed": 43, "iterations": 1, "train": ONE_RATE},
        "wspin": None,
        "wspin.paper": None,
    }
    models = {"kd": {**KD, "seeds": [42, 43]}}
    study = paths(arms, models=models, generate={"answers": "greedy"}, eval={"models": ["kd"]})
    assert study.replicates("spin") == ["spin"]  # trained otherwise
    arms["spin.s43"] = {"seed": 43, "iterations": 1}
    study = paths(arms, models=models, generate={"answers": "greedy"}, eval={"models": ["kd"]}, train=ONE_RATE)
    assert study.pooled_comparisons()[-2:] == [("kd", "spin/ite0"), ("kd.s43", "spin.s43/ite0")]


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"arms": {"spin": {"seeds": [43]}}}, "arms.spin.seeds: expected the study's seed 42 among them"),
        ({"arms": {"spin": {"seeds": [42, 43, 43]}}}, "arms.spin.seeds: 43 is given 2 times"),
        ({"arms": {"spin": {"seeds": []}}}, "arms.spin.seeds: expected 1 or more entries, found []"),
        ({"arms": {"spin": {"seed": 43, "seeds": [42]}}}, "arms.spin: expected seed or seeds, found both"),
        ({"arms": {"spin": SEEDS, "spin.s43": {}}}, "arms.spin.seeds: 'spin.s43' is given too; rename that one"),
        ({"models": {"teacher": SEEDS}}, "models.teacher: only a model that is trained here (`from`) has a seed"),
        ({"replicates": "everything"}, "replicates: expected 'generation and training' or 'all', found 'everything'"),
    ],
)
def test_seeds_without_a_meaning_are_refused(overlay, message):
    assert message in refusal(overlay)


def test_a_mistake_in_what_is_replicated_is_reported_once():
    message = refusal({"arms": {"spin": {**SEEDS, "train": {"beta": -1.0}}}})
    assert message.count("train.beta") == 1


def test_tests_know_contrasts_replicates_and_seeds():
    shown = {"models": {"kd": {**KD, "seeds": [42, 43]}}, "generate": {"answers": "greedy"}, "eval": {"models": ["kd"]}}
    report = {"preregistration": "config/preregistration.yaml", "bootstrap": 99}
    arms = {"spin": {"seeds": [42, 43]}, "wspin": {"seeds": [42, 43]}, "wspin.paper": None}
    for baseline in ("spin", "spin.s43"):
        words = RuleFlags(paths(arms, report={**report, "baseline": baseline}, **shown)).report_tests()
        assert "they share SFT, prompts, teacher" in words[words.index("--note") + 1]
        assert words[words.index("--contrasts") : words.index("--note")] == [
            *("--contrasts", "wspin=spin"),
            *("--replicates", "kd=kd.s43", "spin=spin.s43", "wspin=wspin.s43"),
            *("--seeds", "spin=42", "spin.s43=43", "wspin=42", "wspin.s43=43", "kd=42", "kd.s43=43"),
            *("--draws", "99", "--seed", "42", "--preregistration", "config/preregistration.yaml"),
        ]
    alone = RuleFlags(paths({"wspin": None, "wspin.paper": None})).report_tests()
    assert not {"--contrasts", "--replicates", "--preregistration", "--note"} & set(alone)
