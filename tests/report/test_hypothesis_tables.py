"""The table of tests, of made-up studies; and the program that writes it."""

import csv
import hashlib
import json

from score_files import CHOSEN, COMPARED, cells, put_both
from seed_studies import CONTRASTS, DRAWS, SEEDS, family, replicate, row_of, study

import report_tests as program
from wspin.report.hypotheses import run_tests
from wspin.report.hypothesis_tables import Registered, family_lines, hypothesis_tables


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
    texts, result = table(study(), [], registered)
    assert "* Preregistered, not tested: kd - spin at the last iteration, average, seeds: no kd" in texts[".md"]
    points = f"{100 * row_of(result.frame, arm='planted', label='preregistered').difference:+.2f}"
    expected = f"* Significant at level 0.05: planted - spin at iteration 1, average, seeds: {points}.\n"
    assert expected in texts[".md"]
    assert float(points) > 0


def test_what_is_significant_has_its_seed_and_what_has_no_p_its_reason():
    chosen = family(contrasts=["spin - planted"], tasks=["spell"], tests=["mcnemar", "seeds"])
    registered = Registered("family.yaml", "ab12", chosen)
    samples = study()
    for seed in SEEDS:
        for arm in ("spin", "planted"):
            samples.models[f"{replicate(arm, seed)}/ite1"] = samples.models[f"{arm}/ite1"]
    significant, missing = family_lines(run_tests(samples, [], registered.preregistration), registered)[1:]
    names = [f"spin - planted at iteration 1, spell, mcnemar, seed {seed}: -" for seed in SEEDS]
    assert [name in significant for name in names] == [True] * 5
    name = "spin - planted at iteration 1, spell, seeds"
    assert missing == f"Preregistered, not tested: {name}: the differences of all seeds are equal."


def test_significant_is_what_the_adjusted_p_allows():
    p = row_of(
        run_tests(study(), [], family()).frame, arm="planted", label="preregistered"
    ).p  # of two: Holm doubles it
    for factor, expected in ((1.5, "none."), (2.5, "planted - spin at iteration 1, average, seeds: +")):
        registered = Registered("family.yaml", "ab12", family(level=factor * p))
        result = run_tests(study(), [], registered.preregistration)
        assert family_lines(result, registered)[1].startswith(f"Significant at level {factor * p:g}: {expected}")


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
    named += ["--note", "Replicates differ in their seed."]
    shown = ["--results", str(compared), "--suites", "demo", "--models", *models, "--metrics", *metrics]
    program.main([*shown, *named, "--draws", "99", "--seed", "42", "--output", *map(str, outputs)])
    rows = list(csv.DictReader(outputs[0].read_text().splitlines()))
    assert [row["label"] for row in rows].count("preregistered") == 1
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"report_tests: Preregistered in {path}, SHA-256 {sha256}: 1 test, " in capsys.readouterr().out
    assert sha256 in outputs[1].read_text()
    assert outputs[1].read_text().endswith("the CSV has all. Replicates differ in their seed.\n")
    record = json.loads((compared / "tables/tests.md.provenance.json").read_text())
    assert record["program"] == "report_tests"
    assert str(path) in record["inputs"]
