"""Which differences are tested, on made-up studies of several seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from seed_studies import (
    CONTRASTS,
    DRAWS,
    SEEDS,
    SIZES,
    drop,
    family,
    replicate,
    row_of,
    rows_of,
    study,
    task_samples,
)

from wspin.errors import StudyError
from wspin.report.hypotheses import POOLED, StudySamples, run_tests
from wspin.report.hypothesis_tables import Registered, family_lines
from wspin.report.significance import holm, mcnemar, seeds_test, sign_permutation


def gaps(samples, arm, task, k=1):
    """(seeds, documents): planted minus spin."""
    return np.stack(
        [
            samples.models[f"{replicate(arm, seed)}/ite{k}"][task][0].values
            - samples.models[f"{replicate('spin', seed)}/ite{k}"][task][0].values
            for seed in SEEDS
        ]
    )


def test_of_one_seed_each_task_has_mcnemar_and_their_average_a_permutation():
    samples = study(seeds=(42,))
    frame = run_tests(samples, CONTRASTS, None).frame
    assert len(frame) == 2 * 2 * 3
    assert set(frame.seed) == {42}
    assert dict(zip(frame.task, frame.test, strict=True)) == {
        "spell": "mcnemar",
        "choice": "mcnemar",
        "average": "documents",
    }
    assert set(frame.label) == {"exploratory"}
    assert frame.holm.isna().all()
    row, gap = row_of(frame, arm="planted", iteration=1, task="spell"), gaps_of_one(samples)
    assert (row.n, row.better, row.worse) == (60, (gap > 0).sum(), (gap < 0).sum())
    assert row.difference == pytest.approx(gap.mean())
    assert row.p == mcnemar(row.better, row.worse)


def gaps_of_one(samples):
    first, second = (samples.models[f"{arm}/ite1"]["spell"][0].values for arm in ("planted", "spin"))
    return first - second


def test_of_several_seeds_documents_and_seeds_are_tested_too():
    samples = study()
    frame = rows_of(run_tests(samples, CONTRASTS, None).frame, arm="planted", iteration=1)
    spell, choice = (gaps(samples, "planted", task) for task in SIZES)
    documents, seeds = (row_of(frame, task="spell", test=test, seed=POOLED) for test in ("documents", "seeds"))
    assert documents.difference == pytest.approx(spell.mean())
    assert seeds.difference == pytest.approx(spell.mean())
    assert (documents.n, seeds.n) == (60, 5)
    assert documents.p == sign_permutation(spell.mean(axis=0), 999, DRAWS.rng())
    assert seeds.p == pytest.approx(seeds_test(spell.mean(axis=1)))
    assert seeds.better + seeds.worse == (spell.mean(axis=1) != 0).sum()
    assert rows_of(frame, task="spell", test="mcnemar").seed.tolist() == list(SEEDS)
    shares = np.concatenate([spell.mean(axis=0) / 60, choice.mean(axis=0) / 40]) / 2
    average = row_of(frame, task="average", test="documents", seed=POOLED)
    assert average.difference == pytest.approx((spell.mean() + choice.mean()) / 2)
    assert (average.n, average.p) == (100, sign_permutation(shares, 999, DRAWS.rng()))
    by_seed = (spell.mean(axis=1) + choice.mean(axis=1)) / 2
    assert row_of(frame, task="average", test="seeds").p == pytest.approx(seeds_test(by_seed))


def test_a_planted_difference_is_found_and_a_planted_null_is_not():
    """By the test over seeds and by that over documents, after Holm over both contrasts and all tasks."""
    tasks = ["spell", "choice", "average"]
    for tests in (["seeds"], ["documents"], ["seeds", "documents"]):
        result = run_tests(study(), [], family(tasks=tasks, tests=tests))
        inside = rows_of(result.frame, label="preregistered")
        assert len(inside) == 2 * 3 * len(tests)
        assert (inside[inside.arm == "planted"].holm <= 0.05).all()
        assert (inside[inside.arm == "null"].holm > 0.05).all()
        assert inside.holm.tolist() == holm(inside.p)
        assert set(inside.iteration) == {1}
        assert set(inside.seed) == {POOLED}


def test_arms_are_compared_at_equal_seed():
    samples = study()
    for name in ("planted.s44", "spin.s46"):
        for k in range(2):
            del samples.models[f"{name}/ite{k}"]
    frame = rows_of(run_tests(samples, CONTRASTS[:1], None).frame, iteration=1, task="spell")
    assert rows_of(frame, test="mcnemar").seed.tolist() == [42, 43, 45]
    kept = gaps(study(), "planted", "spell")[[0, 1, 3]]
    assert row_of(frame, test="seeds").p == pytest.approx(seeds_test(kept.mean(axis=1)))
    assert row_of(frame, test="documents").difference == pytest.approx(kept.mean())


def test_values_that_are_not_right_or_wrong_have_permutations():
    frame = rows_of(run_tests(study(mc2=True), CONTRASTS, None).frame, task="mc2", arm="planted", iteration=0)
    assert frame.test.tolist() == ["documents"] * 6 + ["seeds"]
    assert frame.seed.tolist() == [*SEEDS, POOLED, POOLED]


def test_models_of_the_registry_are_compared_with_an_arms_iterations():
    samples = study(registry=("kd", "long"))
    frame = run_tests(samples, [], family(contrasts=["kd - spin", "kd - long"])).frame
    assert set(rows_of(frame, baseline="spin").iteration) == {0, 1}
    assert rows_of(frame, baseline="long").iteration.isna().all()
    row = row_of(frame, baseline="spin", task="spell", test="mcnemar", seed=44, iteration=1)
    first, second = (samples.models[name]["spell"][0].values for name in ("kd.s44", "spin.s44/ite1"))
    assert (row.better, row.worse) == ((first > second).sum(), (first < second).sum())
    inside = rows_of(frame, label="preregistered")
    assert inside.baseline.tolist() == ["spin", "long"]
    assert inside.iteration.tolist() == [1, pd.NA]


def test_what_the_study_lacks_is_named_and_counts_in_the_family():
    contrasts = ["planted - spin", "kd - spin", "null - spin"]
    result = run_tests(
        study(), [], family(contrasts=contrasts, tasks=["spell", "average", "gsm8k"], iterations=["last", 7])
    )
    inside = rows_of(result.frame, label="preregistered")
    assert len(inside) == 4
    reasons = {tuple(member[:5]): member.reason for member in result.untested}
    assert len(reasons) == len(result.untested) == 3 * 3 * 2 - 4
    assert reasons["kd", "spin", "last", "average", "seeds"] == "no kd among the models"
    assert reasons["null", "spin", 7, "average", "seeds"] == "no iteration 7"
    assert reasons["null", "spin", "last", "gsm8k", "seeds"] == "no task gsm8k"
    assert inside.holm.tolist() == pytest.approx(holm([*inside.p, *[math.nan] * 14])[:4])


def test_tests_that_the_data_do_not_allow_are_named():
    result = run_tests(study(seeds=(42,)), [], family(tasks=["spell"], tests=["seeds", "documents"]))
    assert [(member.test, member.reason) for member in result.untested] == [("seeds", "one seed in common")] * 2
    result = run_tests(study(groups={"all": ["spell"]}), [], family(tasks=["all"], tests=["mcnemar"]))
    assert [member.reason for member in result.untested] == ["a mean of tasks"] * 2
    result = run_tests(study(mc2=True), [], family(tasks=["mc2"], tests=["mcnemar"]))
    assert [member.reason for member in result.untested] == ["its answers are not all right or wrong"] * 2
    samples = study()
    samples.seeds.update({name: 10 * seed for name, seed in samples.seeds.items() if name.startswith("null")})
    result = run_tests(samples, CONTRASTS[1:], family(contrasts=["planted - spin"]))
    assert result.uncompared == (("null", "spin", "no seed in common"),)
    with pytest.raises(StudyError, match=r"--seeds: expected a seed of 'spin', found those of spin.s43"):
        del samples.seeds["spin"]
        run_tests(samples, CONTRASTS[:1], None)


def test_mcnemar_of_the_family_is_one_of_each_seed_and_a_permutation_that_of_all():
    inside = rows_of(
        run_tests(study(), [], family(tasks=["spell"], tests=["mcnemar", "documents"])).frame, label="preregistered"
    )
    assert rows_of(inside, test="mcnemar", arm="null").seed.tolist() == list(SEEDS)
    assert rows_of(inside, test="documents").seed.tolist() == [POOLED] * 2
    one = run_tests(study(seeds=(42,)), [], family(tests=["documents"])).frame
    assert rows_of(one, label="preregistered").seed.tolist() == [42] * 2


def test_the_seeds_of_the_family_are_those_of_its_members():
    """Members that have others in common are not tested, and count as they would have."""
    samples = drop(study(), "null.s44")
    for test, count in (("seeds", 1), ("documents", 1), ("mcnemar", 5)):
        chosen = family(tasks=["spell"], tests=[test], seeds=[*SEEDS])
        result = run_tests(samples, [], chosen)
        inside = rows_of(result.frame, label="preregistered")
        assert set(inside.arm) == {"planted"}
        (member,) = result.untested
        assert (member.arm, member.count) == ("null", count)
        assert member.reason == "seeds 42, 43, 45, 46 in common, expected 42, 43, 44, 45, 46"
        assert inside.holm.tolist() == pytest.approx(holm([*inside.p, *[math.nan] * count])[: len(inside)])
    assert len(run_tests(study(), [], family(seeds=[46, 45, 44, 43, 42])).untested) == 0


def test_leaving_an_arm_or_a_seed_out_leaves_the_number_of_tests():
    chosen = family(tasks=["spell"], tests=["mcnemar"])
    whole = family_lines(run_tests(study(), [], chosen), Registered("family.yaml", "ab12", chosen))[0]
    assert ": 10 tests, " in whole
    for samples in (study(arms=("spin", "planted")), drop(study(), "null.s44", "null.s45")):
        result = run_tests(samples, [], chosen)
        assert family_lines(result, Registered("family.yaml", "ab12", chosen))[0] == whole
        inside = rows_of(result.frame, label="preregistered", arm="planted")
        assert min(inside.holm) == pytest.approx(10 * min(inside.p))
    (member,) = result.untested
    assert (member.reason, member.count) == ("2 of 5 seeds not in common", 2)


def test_replicates_without_a_partner_of_their_seed_are_named():
    samples = drop(study(), "planted.s44", "spin.s46")
    result = run_tests(samples, CONTRASTS, None)
    assert result.unpaired == (
        ("planted", "spin", ("spin.s44", "planted.s46")),
        ("null", "spin", ("null.s46",)),
    )
    line = "Without a partner of their seed: planted - spin: spin.s44, planted.s46; null - spin: null.s46."
    assert line in family_lines(result, None)
    assert not run_tests(study(), CONTRASTS, None).unpaired


def test_documents_of_one_seed_on_right_and_wrong_answers_are_mcnemars():
    """The permutation of all signs has McNemar's p there."""
    result = run_tests(study(seeds=(42,)), [], family(tasks=["spell"], tests=["documents"]))
    assert result.untested == ()
    inside = rows_of(result.frame, label="preregistered")
    assert list(zip(inside.test, inside.seed, strict=True)) == [("mcnemar", 42)] * 2


def of_values(values):
    """A study of two arms, from {arm: {task: (seeds, documents)}}."""
    seeds = range(42, 42 + len(next(iter(values["spin"].values()))))
    models = {
        f"{replicate(arm, seed)}/ite0": {task: task_samples(task, rows[seed - 42]) for task, rows in tasks.items()}
        for arm, tasks in values.items()
        for seed in seeds
    }
    seed_of = {replicate(arm, seed): seed for arm in values for seed in seeds}
    replicates = [(arm, replicate(arm, seed)) for arm in values for seed in seeds if seed != 42]
    return StudySamples(models, seed_of, replicates, {}, DRAWS)


def test_differences_that_cancel_are_none():
    """In every seed +d of 400 and -3 d of 1200 documents: without a difference of the averages, whatever rounding."""

    def answers(right):
        return np.stack([np.repeat([1.0, 0.0], [first, n - first]) for n, first in right])

    gained = (5, 8, 11, 14, 17)
    spin = {"small": answers([(400, 200)] * 5), "large": answers([(1200, 600)] * 5)}
    wspin = {
        "small": answers([(400, 200 + d) for d in gained]),
        "large": answers([(1200, 600 - 3 * d) for d in gained]),
    }
    frame = run_tests(of_values({"spin": spin, "wspin": wspin}), [("wspin", "spin")], None).frame
    row = row_of(frame, task="average", test="seeds")
    assert math.isnan(row.p)
    assert (row.difference, row.better, row.worse) == (0.0, 0, 0)
    assert set(rows_of(frame, task="average", test="documents").difference) == {0.0}


def test_a_documents_differences_that_cancel_favour_neither():
    spin, wspin = np.zeros((3, 2)), np.array([[0.1, 0.5], [0.2, 0.5], [-0.3, 0.5]])
    frame = run_tests(of_values({"spin": {"mc2": spin}, "wspin": {"mc2": wspin}}), [("wspin", "spin")], None).frame
    row = row_of(frame, task="mc2", test="documents", seed=POOLED)
    assert (row.better, row.worse) == (1, 0)


def test_an_iteration_named_twice_is_one_member():
    result = run_tests(study(), [], family(iterations=["last", 1]))
    assert len(rows_of(result.frame, label="preregistered")) == 2


def test_the_average_is_that_of_the_groups():
    frame = run_tests(study(groups={"average": ["spell"], "all": ["spell", "choice"]}), CONTRASTS[:1], None).frame
    at = {task: row_of(frame, task=task, iteration=1, test="seeds") for task in ("spell", "choice", "average", "all")}
    assert at["average"].difference == at["spell"].difference
    assert at["all"].difference == pytest.approx((at["spell"].difference + at["choice"].difference) / 2)


def test_equal_models_differ_in_no_test():
    samples = study()
    for seed in SEEDS:
        samples.models[f"{replicate('null', seed)}/ite1"] = samples.models[f"{replicate('spin', seed)}/ite1"]
    frame = rows_of(run_tests(samples, CONTRASTS, family()).frame, arm="null", iteration=1)
    assert set(frame.difference) == {0.0}
    assert set(frame[frame.test != "seeds"].p) == {1.0}
    assert frame[frame.test == "seeds"].p.isna().all()
