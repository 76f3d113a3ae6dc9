"""Which differences are tested, on made-up studies of several seeds; and the table of tests."""

import csv
import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
from score_files import CHOSEN, COMPARED, cells, put_both

import report_tests as program
from wspin.config.preregistration import Preregistration
from wspin.errors import StudyError
from wspin.report.hypotheses import POOLED, PermutationDraws, StudySamples, run_tests
from wspin.report.hypothesis_tables import Registered, family_lines, hypothesis_tables
from wspin.report.samples import TaskSamples
from wspin.report.significance import holm, mcnemar, seeds_test, sign_permutation
from wspin.rng import row_generator

DRAWS = PermutationDraws(999, 42)
SEEDS = (42, 43, 44, 45, 46)
SIZES = {"spell": 60, "choice": 40}
SHIFTS = {"planted": 0.2}  # points by which an arm answers more often right; the others: none


def replicate(name, seed):
    return name if seed == 42 else f"{name}.s{seed}"


def task_samples(task, values):
    documents = [(i, f"{task} {i}") for i in range(len(values))]
    return [TaskSamples("samples", task, documents, [f"prompt {i}" for i in range(len(values))], values)]


def model_samples(arm, seed, k, mc2=False):
    """A model's tasks: documents have difficulties, trainings their own luck with each."""
    tasks = {}
    for task, n in SIZES.items():
        difficulty = row_generator("difficulty", task).random(n)
        luck = row_generator("luck", arm, seed, k, task).normal(0.0, 0.2, n)
        right = (0.4 + SHIFTS.get(arm, 0.0) + luck > difficulty).astype(float)
        tasks[task] = task_samples(task, right)
    if mc2:
        tasks["mc2"] = task_samples("mc2", row_generator("mc2", arm, seed).random(30) + SHIFTS.get(arm, 0.0))
    return tasks


def study(arms=("spin", "planted", "null"), seeds=SEEDS, iterations=2, registry=(), groups=None, mc2=False):
    models = {replicate(name, seed): model_samples(name, seed, 0, mc2) for name in registry for seed in seeds}
    models |= {
        f"{replicate(arm, seed)}/ite{k}": model_samples(arm, seed, k, mc2)
        for arm in arms
        for seed in seeds
        for k in range(iterations)
    }
    names = (*arms, *registry)
    seed_of = {replicate(name, seed): seed for name in names for seed in seeds}
    replicates = [(name, replicate(name, seed)) for name in names for seed in seeds if seed != 42]
    return StudySamples(models, seed_of, replicates, groups or {}, DRAWS)


def family(**changes):
    given = {"level": 0.05, "contrasts": ["planted - spin", "null - spin"], "tasks": ["average"]}
    return Preregistration(**{**given, "iterations": ["last"], "tests": ["seeds"], **changes})


CONTRASTS = [("planted", "spin"), ("null", "spin")]


def rows_of(frame, **where):
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def row_of(frame, **where):
    (row,) = rows_of(frame, **where).itertuples()
    return row


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
    assert [member.reason for member in result.untested] == ["one seed in common"] * 4
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


# The table


def table(samples, contrasts, registered=None):
    result = run_tests(samples, contrasts, registered and registered.preregistration)
    return hypothesis_tables(result, registered, DRAWS), result


def test_the_page_shows_the_family_first_and_pooled_tests_of_last_iterations():
    registered = Registered("family.yaml", "ab12", family(contrasts=["null - spin", "kd - spin"], iterations=[0]))
    texts, result = table(study(), CONTRASTS, registered)
    header, *rows = cells(texts[".md"])
    assert header[:6] == ["arm - baseline", "iteration", "task", "seed", "test", "n"]
    assert rows[0][:5] == ["null - spin", "0", "average", "pooled", "seeds"]
    assert [row[-1] for row in rows] == ["preregistered", *["exploratory"] * 12]
    assert {(row[1], row[3]) for row in rows[1:]} == {("1", "pooled")}
    lines = family_lines(result, registered)
    assert lines == [
        "Preregistered in family.yaml, SHA-256 ab12: 2 tests, p adjusted by Holm's method.",
        "Significant at level 0.05: none.",
        "Preregistered, not tested: kd - spin at iteration 0, average, seeds: no kd among the models.",
    ]
    assert all(f"* {line}\n" in texts[".md"] for line in lines)
    assert len(list(csv.DictReader(texts[".csv"].splitlines()))) == len(result.frame) == 2 * 2 * (2 * 7 + 7)


def test_the_page_names_what_is_significant():
    contrasts = ["planted - spin", "null - spin", "kd - spin"]
    registered = Registered("family.yaml", "ab12", family(contrasts=contrasts))
    texts, _ = table(study(), [], registered)
    assert "* Preregistered, not tested: kd - spin at the last iteration, average, seeds: no kd" in texts[".md"]
    assert "* Significant at level 0.05: planted - spin at iteration 1, average, seeds.\n" in texts[".md"]


def test_significant_is_what_the_adjusted_p_allows():
    p = row_of(
        run_tests(study(), [], family()).frame, arm="planted", label="preregistered"
    ).p  # of two: Holm doubles it
    for factor, expected in ((1.5, "none."), (2.5, "planted - spin at iteration 1, average, seeds.")):
        registered = Registered("family.yaml", "ab12", family(level=factor * p))
        result = run_tests(study(), [], registered.preregistration)
        assert family_lines(result, registered)[1] == f"Significant at level {factor * p:g}: {expected}"


def test_the_page_of_one_seed_shows_its_tests():
    texts, _ = table(study(seeds=(42,)), CONTRASTS)
    rows = cells(texts[".md"])[1:]
    assert [(row[0], row[4]) for row in rows] == [
        (f"{arm} - spin", test) for arm in ("planted", "null") for test in ("mcnemar", "mcnemar", "documents")
    ]
    assert all(row[-2:] == ["", "exploratory"] for row in rows)
    assert "* No preregistration (report.preregistration): all tests are exploratory.\n" in texts[".md"]


def test_the_page_leaves_the_iteration_of_registry_models_empty():
    registered = Registered("family.yaml", "ab12", family(contrasts=["kd - long"]))
    texts, result = table(study(arms=(), registry=("kd", "long")), [], registered)
    rows = cells(texts[".md"])[1:]
    assert [row[:2] for row in rows] == [["kd - long", ""]] * 6  # the family's test, and five that are exploratory
    assert rows[0][-1] == "preregistered"
    assert family_lines(result, registered)[1].startswith("Significant at level 0.05: ")


def test_without_arms_to_compare_the_page_says_so():
    texts, result = table(study(), [])
    assert texts[".md"].startswith("There are no arms to compare.\n")
    assert texts[".csv"].strip() == ",".join(result.frame.columns)


# The program


def test_the_program_writes_tables_and_prints_the_family(compared, capsys):
    put_both(compared, "wspin.s43/ite0")
    put_both(compared, "spin.s43/ite0")
    path = compared / "family.yaml"
    path.write_text("level: 0.05\ncontrasts: [wspin - spin]\ntasks: [spell]\niterations: [0]\ntests: [documents]\n")
    models = [*COMPARED, "wspin.s43/ite0", "spin.s43/ite0"]
    metrics = [f"{task}={metric}" for task, metric in CHOSEN.items()]
    outputs = [compared / f"tables/tests.{suffix}" for suffix in ("csv", "md")]
    named = ["--contrasts", "wspin=spin", "--replicates", "spin=spin.s43", "wspin=wspin.s43"]
    named += ["--seeds", "spin=42", "wspin=42", "spin.s43=43", "wspin.s43=43", "--preregistration", str(path)]
    shown = ["--results", str(compared), "--suites", "demo", "--models", *models, "--metrics", *metrics]
    program.main([*shown, *named, "--draws", "99", "--seed", "42", "--output", *map(str, outputs)])
    rows = list(csv.DictReader(outputs[0].read_text().splitlines()))
    assert [row["label"] for row in rows].count("preregistered") == 1
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"report_tests: Preregistered in {path}, SHA-256 {sha256}: 1 tests" in capsys.readouterr().out
    assert sha256 in outputs[1].read_text()
    record = json.loads((compared / "tables/tests.md.provenance.json").read_text())
    assert record["program"] == "report_tests"
    assert str(path) in record["inputs"]
