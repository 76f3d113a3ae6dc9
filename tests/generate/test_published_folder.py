"""A published folder in other programs, as it is: the study's prompts, its greedy answers, its end of an answer."""

import json
import subprocess
import sys

import pytest
import workflow
from generations import EOS, chat_of, prompts_of, read

from wspin.errors import StudyError
from wspin.models import folders


def turn(prompt):
    return [{"role": "user", "content": prompt}]


def test_a_pipeline_gives_the_greedy_answers_and_stops_at_eos(trained, answered):
    from transformers import pipeline

    answer, answers = pipeline("text-generation", model=str(trained)), read(answered / "answers.parquet")
    assert {row["finish_reason"] for row in answers} == {"stop"}
    assert len({row["response"] for row in answers}) > 10
    for prompt, row in zip(prompts_of(answered), answers, strict=True):
        (found,) = answer(turn(prompt), return_full_text=False, max_new_tokens=24)
        assert found["generated_text"] == row["response"]
        (ids,) = answer(turn(prompt), return_tensors=True, max_new_tokens=24)
        assert ids["generated_token_ids"][-len(row["token_ids"]) :] == row["token_ids"]


def test_a_folder_says_where_an_answer_ends_and_nothing_of_sampling(trained):
    eos = folders.load_tokenizer(trained).convert_tokens_to_ids(EOS)
    settings = json.loads((trained / "generation_config.json").read_text())
    del settings["transformers_version"]
    assert settings == {"do_sample": False, "temperature": 1.0, "eos_token_id": eos, "pad_token_id": eos}


def test_the_manifest_holds_the_chat_template(trained):
    manifest = trained.with_name("model.json")
    assert "chat_template.jinja" in folders.read_manifest(manifest)["files"]
    folders.verified_hash(trained, manifest)
    (trained / "chat_template.jinja").rename(trained / "template")
    try:
        with pytest.raises(StudyError, match=r"found no file chat_template\.jinja; make the model again"):
            folders.verified_hash(trained, manifest)
    finally:
        (trained / "template").rename(trained / "chat_template.jinja")


def test_trl_trains_on_exported_pairs(trained, answered, tmp_path):
    """A step of DPOTrainer on SPIN's rows, whose prompts and ends are those of the study."""
    trl = pytest.importorskip("trl", reason="needs trl: pip install -c constraints.txt trl")
    from datasets import Dataset

    program = str(workflow.ROOT / "workflow/scripts/exchange.py")
    files = ["--rows", answered / "prompts14.parquet", "--generations", answered / "answers.parquet"]
    command = [sys.executable, program, "export", "--format", "spin", *files, "--output", tmp_path / "pairs.jsonl"]
    subprocess.run(list(map(str, command)), env=workflow.environment(), check=True, timeout=120)
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    rows = Dataset.from_list([{"chosen": pair["real"], "rejected": pair["generated"]} for pair in pairs])
    settings = {"max_steps": 1, "per_device_train_batch_size": 14, "gradient_checkpointing": False, "bf16": False}
    settings |= {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 1}
    trainer = trl.DPOTrainer(str(trained), args=trl.DPOConfig(str(tmp_path / "dpo"), **settings), train_dataset=rows)
    chat = chat_of(trained)
    for row, pair in zip(trainer.train_dataset, pairs, strict=True):
        prompt, answer = (message["content"] for message in pair["real"])
        assert row["prompt_ids"] == chat.prompt_ids(prompt)
        assert row["chosen_ids"] == chat.response_ids(answer)
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)  # log 2: policy and reference are the same
