"""A page of answers shows what the files hold, each weight beside its own token."""

from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from attacks import attack
from markdown_it import MarkdownIt

import report as program
from wspin.errors import StudyError
from wspin.report.examples import examples_page
from wspin.report.weights import Shard, weight_tables
from wspin.storage import tables

EOS = 9
PROMPTS = {
    "prompt_id": ["a", "b"],
    "prompt": ["Say\nhi.", "Bye?"],
    "response": ["Hi | you", "Bye"],
    "split": ["t", "t"],
}
ANSWERS = {"prompt_id": ["a", "b"], "response": ["No\nno", ""], "token_ids": [[3, 4], [EOS]]}
ANSWERS["finish_reason"] = ["length", "stop"]
CHOSEN = {"chosen_token_ids": [[1, 2, 5, EOS], [6, EOS]], "chosen_ends": [[2, 4, 8, 8], [3, 3]]}
REJECTED = {"rejected_token_ids": [[3, 4], [EOS]], "rejected_ends": [[3, 5], [0]]}


def floats(of):
    return [list(np.arange(1, len(ids) + 1, dtype=np.float32)) for ids in of]


@pytest.fixture
def files(tmp_path):
    """(prompts, a shard) of two pairs."""
    kinds = ("prompts", "generations", "reference", "weights")
    paths = {kind: str(tmp_path / kind / "00.parquet") for kind in kinds}
    tables.write(paths["prompts"], "prompts", PROMPTS, {})
    tables.write(paths["generations"], "generations", ANSWERS, {})
    chosen, rejected = floats(CHOSEN["chosen_token_ids"]), floats(REJECTED["rejected_token_ids"])
    read = {"prompt_id": ["a", "b"], **CHOSEN, **REJECTED, "chosen_logprobs": chosen, "rejected_logprobs": rejected}
    tables.write(paths["reference"], "reference", read, {"eos": EOS})
    hashes = tables.ids_hashes(tables.read_reference(paths["reference"]), "rejected")
    weights = {"prompt_id": ["a", "b"], "ids_hash": hashes, "chosen_weights": chosen, "rejected_weights": rejected}
    tables.write(paths["weights"], "weights", weights, {"counts": {"chosen": {"tokens": 4}, "rejected": {"tokens": 2}}})
    return paths.pop("prompts"), Shard(**paths)


def test_the_page(files):
    prompts, shard = files
    page = examples_page(prompts, {"sft": shard.generations}, {"wspin/ite0": shard}, 2)
    assert "\n## a\n\n    Say\n    hi.\n\n**Real answer**\n\n    Hi | you\n\n**sft**\n\n    No\n    no\n" in page
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [[cell.strip("| `") for cell in row] for row in rows] == [
        ["Hi", "1.00"],
        ["\\", "2.00"],
        ["you", "3.00"],
        ["EOS", "4.00"],
        ["Bye", "1.00"],
        ["EOS", "2.00"],
    ]
    assert "**Weights of the generated answer, wspin/ite0**\n\n`No\\n` 1.00 `no` 2.00\n" in page
    assert page.endswith("\n\n`EOS` 1.00\n")  # an empty answer is its end


def test_the_page_has_as_many_prompts_as_requested(files):
    prompts, shard = files
    page = examples_page(prompts, {"sft": shard.generations}, {}, 1)
    assert "## a" in page
    assert "## b" not in page
    assert "**Weights" not in page
    assert examples_page(prompts, {}, {}, 5).count("## ") == 2


def long_files(prompts, shard, count):
    """Files of so many pairs; returns their size in bytes."""
    ids, rng = [f"t-{i}" for i in range(count)], np.random.default_rng(0)
    texts = [rng.bytes(100).hex() for _ in ids]
    token_ids = list(rng.integers(0, 30_000, (count, 100), dtype=np.int32))
    ends, numbers = [np.arange(2, 202, 2, dtype=np.int32)] * count, list(rng.random((count, 100), dtype=np.float32))
    prompt_rows = {"prompt_id": ids, "prompt": texts, "response": texts, "split": ["t"] * count}
    answers = {"prompt_id": ids, "response": texts, "token_ids": token_ids, "finish_reason": ["stop"] * count}
    scores = {f"{side}_token_ids": token_ids for side in tables.SIDES} | {f"{side}_ends": ends for side in tables.SIDES}
    scores |= {f"{side}_logprobs": numbers for side in tables.SIDES}
    tables.write(prompts, "prompts", prompt_rows, {})
    tables.write(shard.generations, "generations", answers, {})
    tables.write(shard.reference, "reference", {"prompt_id": ids, **scores}, {"eos": -1})
    weights = {"ids_hash": tables.ids_hashes(tables.read_reference(shard.reference), "rejected")}
    weights |= {f"{side}_weights": numbers for side in tables.SIDES}
    tables.write(shard.weights, "weights", {"prompt_id": ids, **weights}, {})
    return sum(Path(path).stat().st_size for path in (prompts, *vars(shard).values()))


def test_the_page_reads_the_rows_that_it_shows(files):
    """Not the files of every iteration: their size is that of the study."""
    prompts, shard = files
    size = long_files(prompts, shard, 1500)
    before = psutil.Process().io_counters().read_chars
    page = examples_page(prompts, {"sft": shard.generations}, {"wspin/ite0": shard}, 2)
    assert psutil.Process().io_counters().read_chars - before < size / 10
    for path in (prompts, *vars(shard).values()):  # as of files without a checksum of their first rows
        pq.write_table(pq.read_table(path), path)
    assert page == examples_page(prompts, {"sft": shard.generations}, {"wspin/ite0": shard}, 2)


def test_long_texts_are_truncated_with_a_mark(files, tmp_path):
    long = {**PROMPTS, "prompt": ["x" * 601, "y" * 600]}
    tables.write(tmp_path / "long.parquet", "prompts", long, {})
    page = examples_page(str(tmp_path / "long.parquet"), {}, {}, 2)
    assert f"    {'x' * 600} [...]\n" in page
    assert f"    {'y' * 600}\n" in page


def test_weights_of_other_answers_are_refused(files):
    prompts, shard = files
    table = tables.read(shard.weights, "weights")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    tables.write(shard.weights, "weights", {**columns, "ids_hash": ["0", "1"]}, {})
    with pytest.raises(
        StudyError, match=r"row 0, rejected: expected weights of token ids \w+, found those of 0; weigh the"
    ):
        examples_page(prompts, {}, {"wspin/ite0": shard}, 1)


def test_answers_to_other_prompts_are_refused(files, tmp_path):
    prompts, _ = files
    tables.write(tmp_path / "other.parquet", "generations", {**ANSWERS, "prompt_id": ["b", "a"]}, {})
    with pytest.raises(
        StudyError, match=r"other.parquet: expected the 2 rows of .*prompts/00.parquet, found 2; .* row 0"
    ):
        examples_page(prompts, {"sft": str(tmp_path / "other.parquet")}, {}, 2)


def flags(prompts, shard, *iterations):
    """Flags for these iterations, each of them with the files of `shard`."""
    folders = {f"--{kind}": [str(Path(path).parent)] * len(iterations) for kind, path in vars(shard).items()}
    named = ["--prompts", prompts, "--shards", "00", "--iterations", *iterations]
    return [*named, *(word for flag, paths in folders.items() for word in (flag, *paths))]


def test_the_program_writes_the_page(files, tmp_path):
    prompts, shard = files
    shown = ["--count", "2", "--opponents", "sft", "--answers", shard.generations]
    output = tmp_path / "examples.md"
    program.main(["examples", *shown, *flags(prompts, shard, "wspin/ite0"), "--output", str(output)])
    assert output.read_text() == examples_page(prompts, {"sft": shard.generations}, {"wspin/ite0": shard}, 2)


def test_the_program_writes_the_table_of_weights(files, tmp_path):
    prompts, shard = files
    outputs = [tmp_path / "weights.csv", tmp_path / "weights.md"]
    command = ["weights", *flags(prompts, shard, "wspin/ite0", "wspin/ite1"), "--output", *map(str, outputs)]
    program.main(command)
    tables = weight_tables({"wspin/ite0": [shard], "wspin/ite1": [shard]}, prompts)
    assert {path.suffix: path.read_text() for path in outputs} == tables
    with pytest.raises(StudyError, match="expected 2 folders, one per iteration, found 1"):
        program.main([*command, "--generations", str(tmp_path)])


ESCAPES = "\x1b[2J\x1b[8mhidden\r\u202eover\u2028## forged\x85\x0b"
SHOWN = r"\x1b[2J\x1b[8mhidden\r\u202eover\u2028## forged\x85\x0b"


@attack(
    "display",
    "codes of a terminal, marks that turn text and other line ends in a prompt, an answer, a token or a row's id",
    "shown as text; the lines of a text stay lines of its block",
)
def test_texts_of_models_are_text(files, tmp_path):
    _, shard = files
    rows = {**PROMPTS, "prompt_id": ["<script>[a](javascript:b)\n# x", "b"], "prompt": [f"one\ttab\n{ESCAPES}\n", "y"]}
    tables.write(tmp_path / "rows.parquet", "prompts", rows, {})
    page = examples_page(str(tmp_path / "rows.parquet"), {}, {}, 1)
    assert all(line.replace("\t", "").isprintable() for line in page.split("\n"))
    assert f"\n\n    one\ttab\n    {SHOWN}\n\n**Real answer**" in page
    blocks = MarkdownIt().parse(page)
    assert [block.tag for block in blocks if block.type == "heading_open"] == ["h2"]
    kinds = {token.type for block in blocks for token in block.children or ()}
    assert not kinds & {"link_open", "html_inline", "image"}

    tables.write(tmp_path / "rows.parquet", "prompts", {**PROMPTS, "response": [ESCAPES, "Bye"]}, {})
    page = examples_page(str(tmp_path / "rows.parquet"), {}, {"wspin/ite0": shard}, 2)
    assert all(line.isprintable() for line in page.split("\n"))
