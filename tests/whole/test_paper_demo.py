"""SWIFT's tables 1, 3 and 9 at the demo's size: the overlays make their tables, and share the models of all three."""

import csv
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
import targets
import workflow

from wspin.report.scores import AVERAGE

DEMO = "config/overlays/demo.yaml"
SIDES = ("chosen", "rejected")


def overlays(table):
    return (f"{targets.PAPER}/{table}.yaml", f"{targets.PAPER}/demo.yaml")


STUDIES = {table: targets.paths_of(DEMO, *overlays(table)) for table in ("swift1", "swift3", "swift9")}


def test_the_twins_have_the_rows_of_their_tables():
    assert STUDIES["swift1"].table_models() == [
        *("base", "teacher", "sft", "dpo", "ipo", "tdpo", "tisdpo"),
        *(f"{arm}/ite{k}" for arm in ("spin", "wspin.paper") for k in range(2)),
    ]
    assert list(STUDIES["swift3"].study.arms) == ["spin", "wspin.paper", "random", "contrast.paper", "reverse.paper"]
    assert list(STUDIES["swift9"].study.arms) == ["wspin.paper", "noise.paper"]
    assert {study.results for study in STUDIES.values()} == {"results/paper_demo"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the results, and what each table's run has trained."""
    copy, trained = workflow.checkout(tmp_path_factory.mktemp("paper")), {}
    for name, study in STUDIES.items():
        repository = workflow.Repository(copy.folder, (DEMO, *overlays(name)))
        trained[name] = repository.plan("tables", "figures").counts.get("train", 0)
        repository.make("tables", "figures", "--cores", "2")
        assert all((copy.folder / path).exists() for path in (*study.tables(), *study.figures()))
    return copy.folder / "results/paper_demo", trained


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.demo
def test_every_table_has_its_rows_and_what_was_trained_is_not_trained_again(made):
    results, trained = made
    for name, study in STUDIES.items():
        rows = read(results / f"tables/{name}/scores.csv")
        assert {row["model"] for row in rows} == set(study.table_models())
        differences = read(results / f"tables/{name}/differences.csv")
        assert {row["task"] for row in differences} == {*study.study.report.metrics, AVERAGE}
    assert trained == {"swift1": 11, "swift3": 10, "swift9": 2}  # swift3: two models for each contrast


@pytest.mark.demo
def test_weights_are_those_of_the_papers_ranges(made):
    results, _ = made

    def weights(iteration, side):
        table = pq.read_table(results / iteration / "weights/00.parquet")
        return [np.array(row)[:-1] for row in table[f"{side}_weights"].to_pylist()]  # EOS, or a truncated answer's end

    for side in SIDES:
        clean, noisy, reverse = (
            weights(f"{arm}/ite0", side) for arm in ("wspin.paper", "noise.paper", "reverse.paper")
        )
        random = np.concatenate(weights("random/ite0", side))
        assert -0.5 <= random.min() < -0.3 and 1.3 < random.max() <= 1.5
        noise = np.concatenate([noisy - clean for noisy, clean in zip(noisy, clean, strict=True)])
        assert 0.15 < np.abs(noise).max() <= 0.2001
        for ours, theirs in zip(reverse, clean, strict=True):
            assert ours == pytest.approx(1.0 - theirs, abs=1e-5)
        assert all(0.606 < weight < 4.49 for weight in itertools.chain(*clean))  # μ = 1 on both sides
