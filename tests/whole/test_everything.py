"""Every loss, weight source and form, run at the demo's size to its tables."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import workflow
from runs import Run

from wspin.config.load import read_study
from wspin.study.paths import StudyPaths

OVERLAYS = ("config/overlays/demo.yaml", "config/overlays/everything.yaml")
STUDY = StudyPaths(read_study([workflow.ROOT / name for name in ("config/config.yaml", *OVERLAYS)]))
SIDES = ("chosen", "rejected")

pytestmark = pytest.mark.demo


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    repository = workflow.checkout(tmp_path_factory.mktemp("everything"))
    Run(repository.folder, ["make", "--old-file=setup", "everything"]).finish(seconds=3000)
    return repository.folder / STUDY.results


def weights(results, folder, side):
    """The weights of every answer of one side, EOS included: a list of arrays."""
    tables = [pq.read_table(path) for path in sorted((results / folder / "weights").glob("*.parquet"))]
    return [np.array(row) for table in tables for row in table[f"{side}_weights"].to_pylist()]


def test_every_row_has_its_scores(results):
    table = (results / "tables/scores.csv").read_text()
    for model in STUDY.table_models():
        assert f"\n{model}," in table


def test_weights_have_the_numbers_that_their_form_asks_for(results):
    for side in SIDES:
        for answer in weights(results, "d.binary", side):
            inner = answer[:-1]  # EOS weighs 1
            assert set(inner) <= {0.0, 1.0}
            assert len(inner) // 2 - 1 <= inner.sum() <= len(inner) // 2 + 1  # truncated answers have no EOS
        every = np.concatenate(weights(results, "random", side))
        assert (every >= np.float32(0.7)).all()
        assert (every <= np.float32(1.3)).all()
        assert np.abs(np.concatenate(weights(results, "d.threshold", side))).max() <= 1.0
        assert np.concatenate(weights(results, "d.rank", side)).max() <= np.float32(1.3)


def test_weights_from_pairs_tell_tokens_apart(results):
    for model in (
        "tisdpo.p",
        "tisdpo.s",
        "tisdpo.d",
        "tisdpo.teacher",
        "contrast/ite0",
        "surprisal/ite1",
        "linear/ite1",
    ):
        assert len({*np.concatenate(weights(results, model, "chosen")).tolist()}) > 50, model


def test_stale_weights_of_iteration_0_are_wspins(results):
    for side in SIDES:
        for ours, theirs in zip(
            weights(results, "stale/ite0", side), weights(results, "wspin/ite0", side), strict=True
        ):
            assert ours.tolist() == theirs.tolist()


def test_the_mean_weight_of_the_data_set_is_one(results):
    answers = [answer[:-1] for side in SIDES for answer in weights(results, "mean_one/ite1", side)]
    assert np.concatenate(answers).mean() == pytest.approx(1.0, abs=0.01)  # but for truncated answers' last tokens


def test_weights_of_one_on_preferences_are_dpo_byte_for_byte(results):
    digests = [json.loads((results / model / "manifest.json").read_text())["files"] for model in ("ones", "dpo")]
    assert digests[0]["model.safetensors"] == digests[1]["model.safetensors"]
