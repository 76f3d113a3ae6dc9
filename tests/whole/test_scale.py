"""What a job of one shard takes does not grow with the study."""

import sys

import pytest
import scored

from wspin.config.flags import flags
from wspin.config.stages import Generate, Logprobs
from wspin.config.weigh import Weigh
from wspin.storage import tables

FEW, TIMES, CHARACTERS = 2_000, 20, 2_000  # rows of a study, of a larger one, and of a row beyond the first shard
GROWTH = 1.15  # of the peak; the rows that are not of the shard would be half of it
GENERATE = {"engine": "transformers", "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "batch_size": 8}


@pytest.fixture(scope="module")
def rows(scored_study, tmp_path_factory):
    """By number of prompts: files that begin with the scored study's rows, its only shard."""
    folder, head = tmp_path_factory.mktemp("scale"), tables.read(scored_study / "prompts.parquet", "prompts")
    paths = {}
    for count in (FEW, TIMES * FEW):
        more = count - head.num_rows
        texts = [f"{i} {'no row of this shard ' * (CHARACTERS // 21)}" for i in range(more)]
        added = {"prompt_id": [f"more-{i}" for i in range(more)], "prompt": texts, "response": ["yes"] * more}
        added["split"] = ["train"] * more
        columns = {name: [*values, *added[name]] for name, values in head.to_pydict().items()}
        paths[count] = folder / f"{count}.parquet"
        tables.write(paths[count], "prompts", columns, {})
    return paths


def commands(study, rows, output):
    """By program: its command for the first shard of these rows."""
    shard = f"--shard 0 --shard-size {len(scored.PAIRS)} --output {output}".split()
    model = f"--model {study / 'student'} --manifest {study / 'student.json'}".split()
    dialogue, own = flags(scored.dialogue_settings()), ["--generations", study / "generations.parquet"]
    seed, state = ["--seed", "42", "0"], ["--state", output.with_suffix("")]
    scorers = ["--positive-logprobs", study / "far-gold.parquet", study / "far-said.parquet"]
    logprobs, weigh = flags(Logprobs(autocast="float32", token_budget=4096)), flags(Weigh(**scored.SETTINGS))
    return {
        "generate": [*model, "--prompts", rows, *shard, *seed, *state, *flags(Generate(**GENERATE)), *dialogue],
        "logprobs": ["reference", *model, "--rows", rows, *own, *shard, *logprobs, *dialogue],
        "weigh": ["--rows", rows, *own, "--reference", study / "reference.parquet", *scorers, *shard, *seed, *weigh],
    }


@pytest.mark.parametrize(
    "program", [*(pytest.param(name, marks=pytest.mark.faults) for name in ("generate", "logprobs")), "weigh"]
)
def test_memory_of_a_shard_does_not_grow_with_the_number_of_prompts(
    scored_study, rows, tmp_path, program, root, monkeypatch
):
    monkeypatch.syspath_prepend(root)
    from bench.measure import of_command

    peaks, outputs = [], []
    for count, path in rows.items():
        output = tmp_path / f"{count}.parquet"
        command = [root / f"workflow/scripts/{program}.py", *commands(scored_study, path, output)[program]]
        peaks.append(of_command([sys.executable, *command], tmp_path / "measured.json")["bytes"])
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]
    assert peaks[1] < GROWTH * peaks[0], peaks


def test_a_shard_is_read_as_from_the_whole_table(rows):
    whole = tables.read(rows[TIMES * FEW], "prompts")
    for index, size in ((0, 64), (1, 990), (3, 1000), (40, 1000), (0, TIMES * FEW), (20, 1999)):
        assert tables.read_shard(rows[TIMES * FEW], "prompts", index, size).equals(tables.shard(whole, index, size))
