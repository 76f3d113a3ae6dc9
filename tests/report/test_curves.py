"""Training curves, and the figure of reward margins."""

import json
import re

import numpy as np
import pytest
from score_files import tuples

import report_rewards as program
from wspin.errors import StudyError
from wspin.report import curves
from wspin.report.replicates import methods
from wspin.report.style import render
from wspin.storage import provenance
from wspin.storage.files import sha256

REPLICATES = [("spin", "spin.s43"), ("kd", "kd.s43")]
TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def put(folder, name, weighted, factor=0.5, change=lambda entry: None):
    """Write the curve of an iteration, whose unweighted margins are the weighted ones times a factor."""
    path = folder / name / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for step, margin in enumerate(weighted, 1):
        entry = {"step": step, "loss": 0.7, "rewards/margin": margin, "unweighted/margin": factor * margin}
        change(entry)
        lines.append(json.dumps(entry))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def drawn(folder, names):
    paths = {name: folder / name / "metrics.jsonl" for name in names}
    return curves.reward_margins(curves.read_margins(paths, methods(names, REPLICATES)))


def lines(axes):
    """Label -> ordinates of the curves of a panel."""
    return {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}


def test_rows_are_the_steps_of_the_curves(tmp_path):
    paths = {name: put(tmp_path, name, [0.0, 0.5]) for name in ("spin/ite1", "spin.s43/ite1")}
    frame = curves.read_margins(paths, methods(paths, REPLICATES))
    assert tuples(frame)[0] == ("spin", 1, "spin", 1, 0.0, 0.0)
    assert tuples(frame)[-1] == ("spin", 1, "spin.s43", 2, 0.5, 0.25)


def test_both_margins_of_every_iteration_are_drawn(tmp_path):
    for k in range(2):
        put(tmp_path, f"spin/ite{k}", [0.0, 1.0 + k])
    put(tmp_path, "late/ite1", [0.0, 4.0])
    figure = drawn(tmp_path, ["spin/ite0", "spin/ite1", "late/ite1"])
    above, below = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title() for axes in above] == ["ite0", "ite1"]
    assert lines(above[1])["late"].tolist() == [0.0, 4.0]
    assert lines(below[1])["late"].tolist() == [0.0, 2.0]
    assert lines(above[0])["late"].size == 0
    found = TEXT.findall(render(figure, "a.svg").decode())
    assert [text for text in ("spin", "late") if found.count(text) != 1] == []
    assert {"step", "(as in the loss)", "(all tokens alike)"} <= set(found)


def test_a_curve_is_the_mean_over_replicates_and_a_tenth_of_the_steps(tmp_path):
    put(tmp_path, "spin/ite0", [float(step) for step in range(30)])
    put(tmp_path, "spin.s43/ite0", [float(step + 2) for step in range(30)])
    figure = drawn(tmp_path, ["spin/ite0", "spin.s43/ite0"])
    (line,) = lines(figure.axes[0]).values()
    assert line[:3] == pytest.approx([1.5, 2.0, 3.0])  # the first is the mean of 1 and 2
    assert len(line) == 30


def test_a_diverged_training_leaves_the_others_their_scale(tmp_path):
    put(tmp_path, "spin/ite0", [0.0, 0.5, 1.0])
    put(tmp_path, "wspin/ite0", [0.0, 1e30, float("nan")])
    axes = drawn(tmp_path, ["spin/ite0", "wspin/ite0"]).axes[0]
    assert axes.get_ylim()[1] < 2


def test_a_step_where_a_seed_diverged_is_a_gap(tmp_path):
    """Of the mean over the seeds too: it would jump to the others' level; the running mean does not bridge it."""
    for seeds in (["spin"], ["spin", "spin.s43"]):
        for name in seeds:
            put(tmp_path, f"{name}/ite0", [0.5] * 30)
        put(tmp_path, "spin/ite0", [*[0.0] * 10, float("nan"), 1e30, *[0.0] * 18])
        figure = drawn(tmp_path, [f"{name}/ite0" for name in seeds])
        for axes in figure.axes:
            (line,) = lines(axes).values()
            assert np.flatnonzero(np.isnan(line)).tolist() == [10, 11]


@pytest.mark.parametrize(("count", "iterations"), [(1, 1), (4, 4), (12, 8)])
def test_nothing_overlaps_in_a_column_of_a_paper(tmp_path, count, iterations):
    names = [f"{'random_matched' if arm > 4 else 'arm'}{arm}/ite{k}" for arm in range(count) for k in range(iterations)]
    for name in names:
        put(tmp_path, name, [0.0, -1.25, 1.25])
    figure = drawn(tmp_path, names)
    assert figure.get_figwidth() == pytest.approx(max(3.3, 0.5 + 0.7 * iterations))
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    assert all(box.x0 >= -0.5 and box.x1 <= figure.bbox.x1 + 0.5 for box in boxes)
    assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.shrunk(0.99, 0.99).overlaps(other)]
    assert min(axes.bbox.width for axes in figure.axes) > 0.1 * figure.dpi


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line per step, found none"),
        ("{]\n", r"line 1: expected the entries of a step, found Expecting"),
        ('{"step": 1}\n', r"line 1: rewards/margin: missing key"),
        ('{"step": "1", "rewards/margin": 0.0, "unweighted/margin": 0.0}\n', "line 1: step: expected a whole number"),
        ('{"step": 0, "rewards/margin": 0.0, "unweighted/margin": 0.0}\n', "line 1: step: expected"),
        ("[]\n", "line 1: expected"),
    ],
)
def test_a_malformed_curve_is_refused(tmp_path, text, message):
    path = put(tmp_path, "spin/ite0", [])
    path.write_text(text)
    with pytest.raises(StudyError, match=f"{path}: {message}.*; train the model again"):
        drawn(tmp_path, ["spin/ite0"])


def test_no_bit_of_a_curve_changes_unnoticed(tmp_path):
    """A changed digit is a number too: the model's record holds the hash of its curve."""
    path = put(tmp_path, "spin/ite0", [0.0, 0.5])
    (tmp_path / "spin/ite0/model").mkdir()
    provenance.write_record(tmp_path / "spin/ite0/model", {"program": "train", "code": "x", "curve": sha256(path)})
    drawn(tmp_path, ["spin/ite0"])
    path.write_text(path.read_text().replace("0.7", "0.6"))
    message = f"{path}: expected the bytes of its model's record, found others: it is damaged; train the model again"
    with pytest.raises(StudyError, match=f"^{message}$"):
        drawn(tmp_path, ["spin/ite0"])


def test_a_missing_curve_is_refused(tmp_path):
    with pytest.raises(StudyError, match="expected a training curve, found no file"):
        drawn(tmp_path, ["spin/ite0"])


def test_program_draws_and_records(tmp_path):
    paths = [put(tmp_path, name, [0.0, 1.0]) for name in ("spin/ite0", "wspin/ite0")]
    output = tmp_path / "rewards.svg"
    flags = ["--iterations", "spin/ite0", "wspin/ite0", "--output", str(output)]
    program.main([*flags, "--curves", *map(str, paths)])
    record = json.loads((tmp_path / "rewards.svg.provenance.json").read_text())
    assert record["program"] == "report_rewards"
    assert set(record["inputs"]) == set(map(str, paths))
    first = output.read_bytes()
    program.main([*flags, "--curves", *map(str, paths)])
    assert output.read_bytes() == first
    with pytest.raises(StudyError, match="--curves: expected 2 files, one per iteration, found 1"):
        program.main([*flags, "--curves", str(paths[0])])
