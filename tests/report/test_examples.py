"""A page of answers shows what the files hold, each weight beside its own token."""

import numpy as np
import pytest

import examples as program
from wspin.errors import StudyError
from wspin.report import examples
from wspin.report.weights import Shard
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
    paths = {name: str(tmp_path / f"{name}.parquet") for name in ("prompts", "generations", "reference", "weights")}
    tables.write(paths["prompts"], "prompts", PROMPTS, {})
    tables.write(paths["generations"], "generations", ANSWERS, {})
    chosen, rejected = floats(CHOSEN["chosen_token_ids"]), floats(REJECTED["rejected_token_ids"])
    read = {"prompt_id": ["a", "b"], **CHOSEN, **REJECTED, "chosen_logprobs": chosen, "rejected_logprobs": rejected}
    tables.write(paths["reference"], "reference", read, {"eos": EOS})
    hashes = tables.ids_hashes(tables.read_reference(paths["reference"]), "rejected")
    weights = {"prompt_id": ["a", "b"], "ids_hash": hashes, "chosen_weights": chosen, "rejected_weights": rejected}
    tables.write(paths["weights"], "weights", weights, {})
    return paths.pop("prompts"), Shard(**paths)


def test_the_page(files):
    prompts, shard = files
    page = examples.page(prompts, {"sft": shard.generations}, {"wspin/ite0": shard}, 2).decode()
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


def test_as_many_prompts_as_asked(files):
    prompts, shard = files
    page = examples.page(prompts, {"sft": shard.generations}, {}, 1).decode()
    assert "## a" in page
    assert "## b" not in page
    assert "**Weights" not in page
    assert examples.page(prompts, {}, {}, 5).decode().count("## ") == 2


def test_long_texts_are_cut_and_say_so(files, tmp_path):
    long = {**PROMPTS, "prompt": ["x" * 601, "y" * 600]}
    tables.write(tmp_path / "long.parquet", "prompts", long, {})
    page = examples.page(str(tmp_path / "long.parquet"), {}, {}, 2).decode()
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
        examples.page(prompts, {}, {"wspin/ite0": shard}, 1)


def test_answers_to_other_prompts_are_refused(files, tmp_path):
    prompts, _ = files
    tables.write(tmp_path / "other.parquet", "generations", {**ANSWERS, "prompt_id": ["b", "a"]}, {})
    with pytest.raises(StudyError, match=r"other.parquet: expected the 2 rows of .*prompts.parquet, found 2; .* row 0"):
        examples.page(prompts, {"sft": str(tmp_path / "other.parquet")}, {}, 2)


def test_the_program_writes_the_page(files, tmp_path):
    prompts, shard = files
    named = ["--prompts", prompts, "--count", "2", "--opponents", "sft", "--answers", shard.generations]
    weighed = ["--iterations", "wspin/ite0", "--weights", shard.weights, "--reference", shard.reference]
    output = tmp_path / "examples.md"
    program.main([*named, *weighed, "--generations", shard.generations, "--output", str(output)])
    assert output.read_bytes() == examples.page(prompts, {"sft": shard.generations}, {"wspin/ite0": shard}, 2)
