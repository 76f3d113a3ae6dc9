"""Answers that a killed job had finished are kept."""

import json
import re

import numpy as np
import pytest
from attacks import attack
from generations import job, kill_in_the_middle, read, run

from wspin.config.stages import Generate
from wspin.errors import StudyError
from wspin.generate import sampling
from wspin.generate.answer import Answer
from wspin.storage import tables


class Engine:
    """Answers a prompt of n tokens with n tokens, the last prompt first; may die after some."""

    def __init__(self, dies_after=None):
        self.asked, self.dies_after = [], dies_after

    def generate(self, prompts, draws, finished):
        for i in reversed(range(len(prompts))):
            if self.dies_after == len(self.asked):
                raise KeyboardInterrupt
            self.asked.append(prompts[i])
            finished(i, Answer([*prompts[i][1:], int(draws(i).integers(1000))], "stop"))
        return {"slot_steps": 1}


VOCABULARY = 1000
PROMPTS = [[i] * (i + 1) for i in range(7)]


def draws(i):
    return np.random.default_rng(i)


def test_trap_29_an_interrupted_shard_goes_on_with_the_rest(tmp_path, capsys):
    """No prompt is asked twice, and what comes out is what an undisturbed run gives."""
    whole, _ = sampling.sample_answers(Engine(), PROMPTS, draws, tmp_path / "whole", VOCABULARY)
    first, second = Engine(dies_after=3), Engine()
    with pytest.raises(KeyboardInterrupt):
        sampling.sample_answers(first, PROMPTS, draws, tmp_path / "state", VOCABULARY)
    answers, work = sampling.sample_answers(second, PROMPTS, draws, tmp_path / "state", VOCABULARY)
    assert answers == whole
    assert sorted(first.asked + second.asked) == sorted(PROMPTS)
    assert work["kept"] == 3
    assert "generate: 3 of 7 answers kept from an earlier attempt" in capsys.readouterr().out


def test_a_torn_line_is_asked_again(tmp_path):
    whole, _ = sampling.sample_answers(Engine(), PROMPTS, draws, tmp_path / "state", VOCABULARY)
    path = tmp_path / "state" / "answers.jsonl"
    path.write_text(path.read_text()[:-5])
    again = Engine()
    answers, work = sampling.sample_answers(again, PROMPTS, draws, tmp_path / "state", VOCABULARY)
    assert answers == whole
    assert again.asked == [PROMPTS[0]]
    assert sampling.AnswerStore(tmp_path / "state", len(PROMPTS), VOCABULARY).answers == dict(
        enumerate(whole)
    )  # nothing of the torn line is left
    assert work["kept"] == 6


def test_no_bit_of_a_kept_answer_changes_unnoticed(tmp_path, capsys):
    """The answers of damaged lines are sampled again, with a line; also after a full disk has left anything there."""
    whole, _ = sampling.sample_answers(Engine(), PROMPTS, draws, tmp_path / "state", VOCABULARY)
    path = tmp_path / "state" / "answers.jsonl"
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 3):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        capsys.readouterr()
        kept = sampling.AnswerStore(tmp_path / "state", len(PROMPTS), VOCABULARY).answers
        assert len(kept) < len(PROMPTS)
        assert all(whole[index] == answer for index, answer in kept.items())
        assert re.fullmatch(
            r"generate: [12] of [678] kept answers are damaged and sampled again\n", capsys.readouterr().out
        )
    path.write_bytes(b"\0" * 50 + b"\n[1]\n" + content)
    assert sampling.sample_answers(Engine(), PROMPTS, draws, tmp_path / "state", VOCABULARY)[0] == whole


FORGED = ["[" * 200_000, '"abc"', "[0, [1]]", '[0, [[]], "stop"]', '["a", [1], "stop"]']
FORGED += [f'[0, [{"9" * 5000}], "stop"]']


@attack(
    "shared folders",
    "kept answers with a right checksum and 200,000 brackets, other types or too few values",
    "sampled again, with a line",
)
@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '"abc"', "[0, [1]]", '[0, [[]], "stop"]', '["a", [1], "stop"]', f'[0, [{"9" * 5000}], "stop"]'],
)
def test_a_forged_answer_is_sampled_again(tmp_path, capsys, text):
    line = f" {text}".encode()
    (tmp_path / "answers.jsonl").write_bytes(sampling._checksum(line) + line + b"\n")
    assert sampling.AnswerStore(tmp_path, len(PROMPTS), VOCABULARY).answers == {}
    assert capsys.readouterr().out == "generate: 1 of 1 kept answers are damaged and sampled again\n"


@attack(
    "shared folders",
    "kept answers with right checksums that are none (ids the model has not, other indices, 200,000 brackets)",
    "generate: 12 of 19 kept answers are damaged and sampled again",
)
def test_lines_that_are_no_answers_are_dropped(tmp_path, capsys, outcome):
    whole, _ = sampling.sample_answers(Engine(), PROMPTS, draws, tmp_path / "state", VOCABULARY)
    foreign = ["[" * 200_000, "{}", "3", "[1, [2]]", '{"a": 1, "b": 2, "c": 3}', '[0, "ab", "stop"]', '[0, [], "stop"]']
    foreign += ['[7, [1], "stop"]', '[-1, [1], "stop"]', '[0, [1000], "stop"]', '[0, [true], "stop"]', "[0, [1], [2]]"]
    with open(tmp_path / "state/answers.jsonl", "ab") as file:
        for text in foreign:
            file.write(sampling._checksum(b" " + text.encode()) + b" " + text.encode() + b"\n")
    capsys.readouterr()
    assert sampling.sample_answers(Engine(), PROMPTS, draws, tmp_path / "state", VOCABULARY)[0] == whole
    assert capsys.readouterr().out.splitlines()[0] == outcome


def test_settings_of_the_other_engine_are_left_out():
    both = {
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 4,
        "batch_size": 2,
        "dtype": "float32",
        "gpu_memory": 0.5,
    }
    kept = {"temperature", "top_p", "max_new_tokens", "engine"}
    for engine, own in (("transformers", {"batch_size"}), ("vllm", {"dtype", "gpu_memory"})):
        made = Generate(engine=engine, **both).without_unused_keys()
        assert made.model_dump(exclude_none=True).keys() == kept | own


def test_an_engine_that_is_not_installed_is_one_line(scratch_model):
    settings = Generate(engine="vllm", temperature=0, top_p=1, max_new_tokens=4, dtype="float32", gpu_memory=0.5)
    if __import__("importlib.util").util.find_spec("vllm"):
        pytest.skip("vllm is installed beside the tests")
    with pytest.raises(
        StudyError, match="expected the package vllm in this environment, found none; run `make setup-v"
    ):
        sampling.load_engine(str(scratch_model), settings, 0, 64)


# A job that is killed


def test_a_killed_generation_goes_on(talkative, tmp_path):
    output = tmp_path / "out.parquet"
    command = job(tmp_path, talkative, output)
    killed = kill_in_the_middle(command, output)
    told = run(command)
    assert f"generate: {killed} of 400 answers kept from an earlier attempt" in told
    assert not list(output.with_suffix(".state").glob("*"))
    record = json.loads((tmp_path / "out.parquet.provenance.json").read_text())
    assert record["work"]["kept"] == killed
    run(job(tmp_path, talkative, tmp_path / "whole.parquet"))
    same = sum(a == b for a, b in zip(read(output), read(tmp_path / "whole.parquet"), strict=True))
    assert same >= 396  # up to rounding: other prompts stood beside the rest
    assert tables.metadata(tables.read(output, "generations")) == tables.metadata(
        tables.read(tmp_path / "whole.parquet", "generations")
    )


@pytest.mark.faults
def test_other_settings_keep_nothing_of_it(talkative, tmp_path):
    output = tmp_path / "out.parquet"
    kill_in_the_middle(job(tmp_path, talkative, output), output)
    assert "kept from an earlier attempt" not in run(job(tmp_path, talkative, output, temperature=0.5))
