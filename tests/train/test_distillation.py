"""A pupil is trained on the text of another model's answers, in its own tokens."""

import numpy as np
import pytest
import torch
from generations import job

import generate
from wspin.config.sources import Scratch
from wspin.config.stages import TrainedAnswers
from wspin.data.chat import ChatTokenizer
from wspin.errors import StudyError
from wspin.models import folders, scratch
from wspin.storage import tables
from wspin.train.inputs import TrainingFiles, training_sets

IDS = ["train-0", "train-1", "train-2"]
SAID = ["nus", "noom no", "stars and stars"]
REASONS = ["stop", "length", "stop"]


@pytest.fixture
def answers(tmp_path):
    """Three answers of a teacher, of which the second was cut."""
    rows = {"prompt_id": IDS, "prompt": ["sun", "moon", "star"], "response": ["a", "b", "c"], "split": ["train"] * 3}
    tables.write(tmp_path / "prompts.parquet", "prompts", rows, {})
    columns = {"prompt_id": IDS, "response": SAID, "token_ids": [[1]] * 3, "finish_reason": REASONS}
    tables.write(tmp_path / "00.parquet", "generations", columns, {"tokenizer": "the teacher's"})
    return tmp_path


def items(folder, chat, name="00"):
    files = TrainingFiles(str(folder / "prompts.parquet"), answers=[str(folder / f"{name}.parquet")])
    (found,) = training_sets("sft", files, TrainedAnswers(replays=0), chat, {})
    return [item.responses[0].tolist() for item in found]


def with_settings(chat, **changes):
    return ChatTokenizer(chat.tokenizer, chat.settings.model_copy(update=changes))


@pytest.mark.parametrize("eos_on_cut", [False, True])
def test_answers_are_closed_by_the_pupils_own_end_unless_they_were_cut(answers, chat, eos_on_cut):
    found = items(answers, with_settings(chat, eos_on_cut=eos_on_cut))
    whole = [chat.response_ids(text) for text in SAID]
    assert found == [whole[0], whole[1] if eos_on_cut else whole[1][:-1], whole[2]]
    assert [ids[-1] == chat.eos for ids in found] == [True, eos_on_cut, True]


def test_an_answer_that_is_too_long_in_the_pupils_tokens_is_cut_and_not_closed(answers, chat, capsys):
    room = len(chat.response_ids(SAID[2])) - 2
    longest = len(chat.batch_prompt_ids(["star"])[0]) + room
    found = items(answers, with_settings(chat, max_prompt_tokens=longest - 1, max_tokens=longest))
    assert found[2] == chat.response_ids(SAID[2])[:room]
    assert chat.eos not in found[2]
    assert "3 answers of another model, 1 truncated here" in capsys.readouterr().out


def test_answers_to_other_prompts_are_refused(answers, chat):
    table = tables.read(answers / "00.parquet", "generations").to_pydict()
    tables.write(answers / "other.parquet", "generations", {**table, "prompt_id": ["train-0", "x", "train-2"]}, {})
    with pytest.raises(StudyError, match=r"other\.parquet"):
        items(answers, chat, "other")


def test_a_teachers_own_end_token_is_no_text_for_the_pupil(tmp_path, chat, texts):
    """As zephyr's `</s>`: the teacher stops at it, and the pupil's answers end with another token."""
    made, teacher = tmp_path / "made", tmp_path / "teacher"
    size = {"vocabulary": 270, "hidden": 32, "intermediate": 64, "layers": 2, "heads": 2, "context": 128}
    scratch.make_scratch(Scratch(architecture="qwen2", text="sft", **size), texts, "</s>", 1, made)
    model = folders.load_model(made, "cpu")
    with torch.no_grad():  # it says its end token often
        model.lm_head.weight[folders.load_tokenizer(made).convert_tokens_to_ids("</s>")] *= 30.0
    folders.publish(model, made, teacher, teacher.with_suffix(".json"))
    command = job(tmp_path, teacher, tmp_path / "00.parquet", count=20, eos="</s>")
    generate.main(command[2:])
    said = tables.read(tmp_path / "00.parquet", "generations").to_pydict()
    assert {*said["finish_reason"]} == {"stop", "length"}
    (tmp_path / "prompts20.parquet").rename(tmp_path / "prompts.parquet")
    for text, reason, ids in zip(said["response"], said["finish_reason"], items(tmp_path, chat), strict=True):
        assert "</s>" not in text
        assert (ids[-1] == chat.eos) is (reason == "stop")
        assert np.count_nonzero(np.array(ids) == chat.eos) == (reason == "stop")
