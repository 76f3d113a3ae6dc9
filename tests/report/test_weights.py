"""The table of weights, against a plain recomputation and by hand."""

import csv
import io
import json

import numpy as np
import pytest
from scored import by_side, conversation, shards, student, weighed

from wspin.report.weights import QUANTILES, TOP, Shard, to_csv, to_markdown, weight_rows
from wspin.storage import tables


@pytest.fixture
def study(scored_study):
    return scored_study


def recomputed(ids, found):
    """Numbers of a side, from its tokens' ids and weights; tokens by id: (count, mean weight)."""
    flat = np.concatenate(found).astype(float)
    row = {"tokens": len(flat), "mean": flat.sum() / len(flat), "sd": flat.std()}
    row |= {name: np.quantile(flat, share) for name, share in QUANTILES.items()}
    means = {}
    for token, weight in zip(np.concatenate(ids).tolist(), flat.tolist(), strict=True):
        means.setdefault(token, []).append(weight)
    return row, {token: (len(one), sum(one) / len(one)) for token, one in means.items()}


def shard_of(study, weights, i=None):
    rest = "" if i is None else f"-{i}"
    return Shard(weights, *(f"{study}/{kind}{rest}.parquet" for kind in ("reference", "generations")))


@pytest.fixture
def made(study, tmp_path):
    """The rows of the table for one iteration of two sides."""
    weighed(study, tmp_path / "weights.parquet")
    return weight_rows("wspin.s43/ite2", [shard_of(study, tmp_path / "weights.parquet")], study / "prompts.parquet")


def test_the_table_equals_a_plain_recomputation(study, tmp_path, made):
    table = tables.read(tmp_path / "weights.parquet", "weights")
    speaker = conversation(study / "student")
    assert [(row["arm"], row["iteration"], row["side"]) for row in made] == [
        ("wspin.s43", 2, "chosen"),
        ("wspin.s43", 2, "rejected"),
    ]
    for row in made:
        ids = student(study, row["side"])["token_ids"]
        found = by_side(table)[row["side"]]
        numbers, tokens = recomputed(ids, [one[: len(of)] for one, of in zip(found, ids, strict=True)])
        assert {key: row[key] for key in numbers} == pytest.approx(numbers)
        counts = tables.metadata(table)["counts"][row["side"]]
        shares = {key: counts[key] / numbers["tokens"] for key in ("at_lower", "at_upper", "unread", "unclear")}
        shares["mismatched"] = counts["mismatched"] / counts["segments"]
        assert {key: row[key] for key in shares} == pytest.approx(shares)
        often = sorted(((mean, token) for token, (count, mean) in tokens.items() if count >= 10), reverse=True)
        assert row["heaviest"] == [
            (speaker.tokenizer.decode([token]), pytest.approx(mean, abs=1e-4)) for mean, token in often
        ]
        assert len(often) > 0
    assert made[0]["mismatched"] > 0


def test_shards_make_one_row(study, tmp_path, made):
    shards(study, tmp_path)
    whole, paths = tables.read(tmp_path / "weights.parquet", "weights"), []
    counts = tables.metadata(whole)["counts"]
    halves = [{side: {key: n * part for key, n in of.items()} for side, of in counts.items()} for part in (0.25, 0.75)]
    for i, half in enumerate(halves):
        columns = {name: column[4 * i : 4 * i + 4] for name, column in whole.to_pydict().items()}
        paths.append(tmp_path / f"weights-{i}.parquet")
        tables.write(paths[-1], "weights", columns, {**tables.metadata(whole), "counts": half})
    parts = [shard_of(tmp_path, path, i) for i, path in enumerate(paths)]
    assert weight_rows("wspin.s43/ite2", parts, study / "prompts.parquet") == made


def test_csv_holds_every_number(made):
    """At full precision, and the tokens as JSON."""
    read = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [list(row) for row in read] == [[*made[0]]] * 2
    for row, expected in zip(read, made, strict=True):
        assert json.loads(row.pop("heaviest")) == [list(one) for one in expected["heaviest"]]
        assert {key: type(expected[key])(value) for key, value in row.items()} == {key: expected[key] for key in row}
    assert "\r" not in to_csv(made)
    assert to_csv([]).count("\n") == 1


def test_markdown_shows_the_numbers_that_one_looks_at_first(made):
    header, _, first, second, *rest = to_markdown(made).splitlines()
    row = made[0]
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[:3] == ["wspin.s43/ite2", "chosen", str(row["tokens"])]
    assert cells[3:6] == [
        f"{row['mean']:.2f} ± {row['sd']:.2f}",
        f"{row['median']:.2f}",
        f"{row['q05']:.2f} to {row['q95']:.2f}",
    ]
    assert cells[6:8] == [f"{100 * row[key]:.1f} %" for key in ("at_lower", "at_upper")]
    assert cells[8].split("` `")[0].strip("`") == row["heaviest"][0][0]
    assert second.split("|")[2].strip() == "rejected"
    assert header.count("|") == first.count("|") == second.count("|") == 10
    assert rest[0] == ""
    assert to_markdown([]) == "No arm weighs its tokens.\n"


# A table by hand


def written(folder, said, found, ids, ends):
    """Files of one iteration in which every answer, real or generated, is the same; EOS is 0."""
    names = [f"train-{i}" for i in range(len(said))]
    rows = {"prompt_id": names, "prompt": names, "response": said, "split": ["train"] * len(said)}
    tables.write(folder / "prompts.parquet", "prompts", rows, {})
    columns = {"prompt_id": names, "response": said, "token_ids": ids, "finish_reason": ["stop"] * len(said)}
    tables.write(folder / "generations.parquet", "generations", columns, {})
    parts = {"token_ids": ids, "ends": ends, "logprobs": found}
    columns = {f"{side}_{part}": values for side in tables.SIDES for part, values in parts.items()}
    tables.write(folder / "reference.parquet", "reference", {"prompt_id": names, **columns}, {"eos": 0})
    counts = {"tokens": sum(map(len, ids)) - len(ids)}
    hashes = tables.ids_hashes(tables.read_reference(folder / "reference.parquet"), "rejected")
    columns = {f"{side}_weights": found for side in tables.SIDES} | {"ids_hash": hashes, "prompt_id": names}
    made_with = {"counts": dict.fromkeys(tables.SIDES, counts)}
    tables.write(folder / "weights.parquet", "weights", columns, made_with)
    return weight_rows("a/ite0", [shard_of(folder, folder / "weights.parquet")], folder / "prompts.parquet")


def test_tokens_of_one_text_are_kept_apart_and_rare_ones_left_out(tmp_path):
    """Ten answers of two tokens "a", a token of two letters, EOS; one of a heavy token that nobody else says."""
    said, ids, ends = ["aab|"] * 10 + ["x"], [[5, 6, 7, 0]] * 10 + [[8, 0]], [[1, 2, 4, 4]] * 10 + [[1, 1]]
    found = [[1.0, 3.0, 2.0 + i / 10, 9.0] for i in range(10)] + [[50.0, 9.0]]
    made = written(tmp_path, said, found, ids, ends)
    for row in made:
        assert row["heaviest"] == [("a", 3.0), ("b|", 2.45), ("a", 1.0)]
        assert (row["tokens"], row["median"], row["mean"]) == (31, 2.5, pytest.approx((10 + 30 + 24.5 + 50) / 31))
    assert r"`a` `b\|` `a`" in to_markdown(made)


def test_no_more_than_twenty_tokens_are_shown(tmp_path):
    count = TOP + 5
    ids, ends = [[*range(1, count + 1), 0]] * 10, [[*range(1, count + 1), count]] * 10
    made = written(tmp_path, ["n" * count] * 10, [[*map(float, range(count + 1))]] * 10, ids, ends)
    assert [mean for _, mean in made[0]["heaviest"]] == [24.0 - i for i in range(20)]


def test_markdown_writes_line_breaks_as_letters(tmp_path):
    made = written(tmp_path, ["\n\t日"] * 10, [[3.0, 2.0, 1.0, 0.0]] * 10, [[4, 5, 6, 0]] * 10, [[1, 2, 3, 3]] * 10)
    assert [token for token, _ in made[0]["heaviest"]] == ["\n", "\t", "日"]
    line = to_markdown(made).splitlines()[2]
    assert r"`\n` `\t` `日`" in line
    first, _ = csv.DictReader(io.StringIO(to_csv(made)))
    assert json.loads(first["heaviest"]) == [["\n", 3.0], ["\t", 2.0], ["日", 1.0]]


def test_an_iteration_without_tokens_has_no_numbers(tmp_path):
    made = written(tmp_path, ["", ""], [[1.0], [1.0]], [[0], [0]], [[0], [0]])
    for row in made:
        assert (row["tokens"], row["heaviest"]) == (0, [])
        assert np.isnan([row["mean"], row["sd"], row["median"]]).all()
    first, _ = csv.DictReader(io.StringIO(to_csv(made)))
    assert (first["tokens"], first["mean"], first["q05"], first["heaviest"]) == ("0", "", "", "[]")
    lines = to_markdown(made).splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["a/ite0", "chosen", "0", *["-"] * 6]
