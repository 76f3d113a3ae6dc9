"""The figure of token weights."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scored import by_side, student, weighed

import report_histograms as program
from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.report import histograms
from wspin.report.style import render
from wspin.storage import tables
from wspin.weigh.alignment import align_ids
from wspin.weigh.inputs import AlignedAnswer
from wspin.weigh.weights import weight_side

TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def rows(arms, iterations=4, weights=((0.6, 30), (1.0, 50), (4.48, 20)), clamps=(0.6, 4.48)):
    found = []
    for arm in arms:
        for k in range(iterations):
            for side in tables.SIDES:
                found += [(arm, k, side, weight, tokens, False) for weight, tokens in weights]
                found += [(arm, k, side, weight, 0, True) for weight in clamps]
    return pd.DataFrame(found, columns=histograms.COLUMNS)


def shares(axes):
    """The heights of an iteration's histogram, for each of them."""
    return [patch.get_data().values for patch in axes.patches]


def test_counts_are_those_of_a_plain_recomputation(scored_study, tmp_path):
    """To three digits, EOS left out, shards and seeds added up."""
    paths = [tmp_path / "weights.parquet", tmp_path / "other.parquet"]
    for path, changes in zip(paths, ({}, {"lower": -1.0}), strict=True):
        weighed(scored_study, path, **changes)
    reference = str(scored_study / "reference.parquet")
    shards = {f"wspin{seed}/ite2": [(str(path), reference)] for seed, path in zip(("", ".s43"), paths, strict=True)}
    counted = histograms.count_weights(shards, dict.fromkeys(shards, "wspin"))
    assert set(counted.arm) == {"wspin"} and set(counted.iteration) == {2}
    for side in tables.SIDES:
        ids = student(scored_study, side)["token_ids"]
        found = [by_side(tables.read(path, "weights"))[side] for path in paths]
        plain = [w for of in found for values, own in zip(of, ids, strict=True) for w in values[: len(own)]]
        mine = counted[(counted.side == side) & ~counted.is_clamp]
        repeated = np.repeat(mine.weight.to_numpy(), mine.tokens.to_numpy(int))
        assert np.sort(repeated) == pytest.approx(np.sort(plain), rel=0.006)
        assert all(len(f"{weight:.6g}".replace(".", "").strip("0")) <= 3 for weight in mine.weight)
        clamps = counted[(counted.side == side) & counted.is_clamp].weight
        sign = 1 if side == "chosen" else -1
        bounds = 1.3 * np.exp(sign * np.array([-0.5, -1.0, 1.5]))
        assert sorted(clamps) == pytest.approx(sorted(bounds))


KEYS = {"lower": -0.5, "upper": 1.5}
FORMS = {
    "exp_clamp": {"k": 1.3, "mu_chosen": 1.0, "mu_rejected": -1.0, **KEYS},
    "linear": {"mu_chosen": 1.0, "mu_rejected": -1.0, **KEYS},
    "threshold": KEYS,
    "threshold_and_scale": {**KEYS, "scale_lower": 0.7, "scale_upper": 1.3},
}


MOVED = [("control", "inverse"), ("control", "noise"), ("normalise", "mean_one")]


def settings(form, **changes):
    given = {"source": "teacher", "segment_agg": "paper_mean", "control": "none", "normalise": "none"}
    return Weigh(**{**given, "eos_weight": 1.0, "form": form, **FORMS.get(form, {}), **changes})


@pytest.mark.parametrize("side", tables.SIDES)
@pytest.mark.parametrize("control", ["none", "permuted"])
@pytest.mark.parametrize("form", FORMS)
def test_clamps_are_the_weights_of_log_ratios_beyond_the_bounds(form, control, side):
    bounded = settings(form, control=control)
    answer = AlignedAnswer("train-0", False, np.array([-90.0, 90.0]), np.zeros(2), align_ids(2, 2))
    (found,), *_ = weight_side(side, [answer], bounded, (42, 0))
    assert sorted(found) == pytest.approx(histograms.clamped_weights(side, bounded))


def test_weights_without_fixed_ends_have_no_clamps():
    unbounded = [settings("origin"), settings("binary", top_percent=50.0)]
    moved = [settings("linear", **{key: value}) for key, value in MOVED]
    assert [histograms.clamped_weights("chosen", one) for one in (*unbounded, *moved)] == [()] * 5


def test_a_panel_shows_the_share_of_the_tokens_and_the_clamps():
    figure = histograms.weight_histograms(rows(["wspin", "equal"], iterations=2))
    assert [axes.get_title() for axes in figure.axes] == [
        f"{arm}, {side}" for arm in ("wspin", "equal") for side in tables.SIDES
    ]
    for axes in figure.axes:
        assert len(axes.patches) == 2
        for heights in shares(axes):
            assert heights[[0, -1]] == pytest.approx([30, 20])
            assert heights.sum() == pytest.approx(100)
        assert sorted(line.get_xdata()[0] for line in axes.lines) == [0.6, 4.48]
    found = set(TEXT.findall(render(figure, "a.svg").decode()))
    assert {"ite0", "ite1", "clamp", "weight of a token", "share of the tokens, %"} <= found


def test_weights_without_clamps_have_no_mark():
    figure = histograms.weight_histograms(rows(["equal"], weights=[(1.0, 7)], clamps=()))
    assert "clamp" not in TEXT.findall(render(figure, "a.svg").decode())
    assert not any(axes.lines for axes in figure.axes)
    assert [heights.max() for heights in shares(figure.axes[0])] == [100] * 4


@pytest.mark.parametrize(("count", "iterations", "name"), [(1, 1, "wspin"), (12, 4, "random_matched_long_name")])
def test_nothing_overlaps_in_a_column_of_a_paper(count, iterations, name):
    figure = histograms.weight_histograms(rows([f"{name}{i}" for i in range(count)], iterations))
    assert figure.get_figwidth() == 3.3
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    boxes += [Text.get_window_extent(figure._supylabel)]
    assert all(box.x0 >= -0.5 and box.x1 <= figure.bbox.x1 + 0.5 for box in boxes)
    assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.shrunk(0.99, 0.97).overlaps(other)]
    assert [axes.bbox.height for axes in figure.axes] == [pytest.approx(0.55 * figure.dpi, rel=0.1)] * 2 * count


def test_a_study_without_weights_has_a_figure_that_says_so():
    found = TEXT.findall(render(histograms.weight_histograms(rows([])), "a.svg").decode())
    assert found == ["no arm weighs its tokens"]


def test_program_draws_and_records(scored_study, tmp_path):
    for folder in ("weights", "reference"):
        (tmp_path / folder).mkdir()
    weighed(scored_study, tmp_path / "weights/00.parquet")
    (tmp_path / "reference/00.parquet").write_bytes((scored_study / "reference.parquet").read_bytes())
    output = tmp_path / "weights.svg"
    folders = ["--weights", f"{tmp_path}/weights", "--reference", f"{tmp_path}/reference"]
    flags = ["--shards", "00", "--iterations", "wspin/ite0", *folders, "--output", str(output)]
    program.main(flags)
    first = output.read_bytes()
    program.main(flags)
    assert output.read_bytes() == first
    record = json.loads((tmp_path / "weights.svg.provenance.json").read_text())
    assert set(record["inputs"]) == {f"{tmp_path}/{kind}/00.parquet" for kind in ("weights", "reference")}
    with pytest.raises(StudyError, match="--weights: expected 2 folders, one per iteration, found 1"):
        program.main([*flags, "--iterations", "wspin/ite0", "wspin/ite1"])
    (tmp_path / "reference/00.parquet").unlink()
    with pytest.raises(StudyError, match="expected a file of reference, found none"):
        program.main(flags)
