"""The figure of answer lengths."""

import json
import re

import numpy as np
import pytest
from matplotlib.text import Text

import report_lengths as program
from wspin.errors import StudyError
from wspin.report import lengths
from wspin.report.style import render
from wspin.storage import tables

TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def put(path, counts, cut=0):
    """A file of answers with so many tokens, of which the last ones are cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"train-{i}" for i in range(len(counts))]
    reasons = ["stop"] * (len(counts) - cut) + ["length"] * cut
    columns = {"response": names, "token_ids": [[1] * count for count in counts], "finish_reason": reasons}
    tables.write(path, "generations", {"prompt_id": names, **columns}, {})
    return str(path)


def put_real(path, counts):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"train-{i}" for i in range(len(counts))]
    parts = {"token_ids": [[1] * n for n in counts], "ends": [[1] * n for n in counts]}
    parts["logprobs"] = [[-1.0] * n for n in counts]
    columns = {f"{side}_{part}": values for side in tables.SIDES for part, values in parts.items()}
    tables.write(path, "reference", {"prompt_id": names, **columns}, {"eos": 0})
    return str(path)


def drawn(folder, arms, iterations=2):
    answers = [put(folder / "00.parquet", range(1, 21), cut=2)]
    real = lengths.real_quantiles([put_real(folder / "real.parquet", range(1, 41))])
    names = {f"{arm}/ite{k}": arm for arm in arms for k in range(iterations)}
    return lengths.answer_lengths(lengths.length_quantiles(dict.fromkeys(names, answers), names), real)


def test_quantiles_are_those_of_all_answers_of_shards_and_seeds(tmp_path):
    rng = np.random.default_rng(7)
    counts = rng.integers(1, 90, (4, 50))
    paths = [put(tmp_path / f"{i}.parquet", values.tolist(), cut=i) for i, values in enumerate(counts)]
    files = {"spin/ite1": paths[:2], "spin.s43/ite1": paths[2:]}
    (row,) = lengths.length_quantiles(files, dict.fromkeys(files, "spin")).itertuples(index=False)
    assert row[:4] == ("spin", 1, 200, pytest.approx(6 / 200))
    assert row[4:] == tuple(np.quantile(counts, lengths.QUANTILES, method="inverted_cdf"))


def test_real_answers_are_the_chosen_ones_of_a_reference(tmp_path):
    real = lengths.real_quantiles([put_real(tmp_path / "real.parquet", range(1, 41))])
    assert real.to_dict() == {"answers": 40, "cut": 0, "q05": 2, "q25": 10, "median": 20, "q75": 30, "q95": 38}


def test_the_figure_shows_quantiles_and_the_share_that_is_cut(tmp_path):
    above, below = drawn(tmp_path, ["spin", "wspin"]).axes
    half, tails = above.collections[:2]
    assert [segment[:, 1].tolist() for segment in half.get_segments()] == [[5, 15]] * 2
    assert [segment[:, 1].tolist() for segment in tails.get_segments()] == [[1, 19]] * 2
    assert below.get_xlabel() == "iteration that trains on the answers"
    levels = [line.get_ydata()[0] for line in above.lines[:3]]
    assert levels == [2, 20, 38]
    assert [line.get_ydata().tolist() for line in below.lines] == [pytest.approx([10, 10])] * 2


@pytest.mark.parametrize(("count", "iterations"), [(1, 1), (12, 4)])
def test_nothing_overlaps_in_a_column_of_a_paper(tmp_path, count, iterations):
    figure = drawn(tmp_path, [f"random_matched{i}" for i in range(count)], iterations)
    assert figure.get_figwidth() == 3.3
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    assert all(box.x0 >= -0.5 and box.x1 <= figure.bbox.x1 + 0.5 for box in boxes)
    assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.shrunk(0.99, 0.97).overlaps(other)]
    assert figure.axes[0].bbox.height == pytest.approx(1.5 * figure.dpi, rel=0.1)
    letters = [*figure.legends[0].get_texts(), *(axes.yaxis.label for axes in figure.axes)]
    assert all(isinstance(text, Text) and text.get_fontsize() == 7.0 for text in letters)


def test_program_draws_and_records(tmp_path):
    put(tmp_path / "answers/00.parquet", [3, 4])
    put_real(tmp_path / "reference/00.parquet", [5])
    output = tmp_path / "lengths.svg"
    folders = ["--generations", f"{tmp_path}/answers", "--real", f"{tmp_path}/reference"]
    flags = ["--shards", "00", "--iterations", "spin/ite0", *folders, "--output", str(output)]
    program.main(flags)
    assert {"spin", "real"} <= set(TEXT.findall(output.read_text()))
    record = json.loads((tmp_path / "lengths.svg.provenance.json").read_text())
    assert set(record["inputs"]) == {f"{tmp_path}/{kind}/00.parquet" for kind in ("answers", "reference")}
    first = output.read_bytes()
    program.main(flags)
    assert output.read_bytes() == first
    with pytest.raises(StudyError, match="--generations: expected 2 folders, one per iteration, found 1"):
        program.main([*flags, "--iterations", "spin/ite0", "spin/ite1"])
    with pytest.raises(StudyError, match="expected a file of generations, found none"):
        program.main([*flags, "--shards", "01"])


def test_the_figure_is_equal_from_equal_rows(tmp_path):
    first, second = (render(drawn(tmp_path, ["spin"]), "a.svg") for _ in range(2))
    assert first == second
