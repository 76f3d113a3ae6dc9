"""pytest -m vllm: the vLLM engine against the transformers engine, in the environment of `make setup-vllm`."""

import json
import os
import subprocess

import pytest
import torch
import workflow
from generations import chat_of, job, kill_in_the_middle, prompts_of, read, run

from wspin.models import folders
from wspin.storage import tables

PYTHON = workflow.ROOT / ".venv-vllm/bin/python"
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON.relative_to(workflow.ROOT)}: run `make setup-vllm`"),
]
EXACT = pytest.mark.skipif(
    torch.cuda.is_available(), reason="bit by bit on the CPU alone: on a GPU company moves rounding"
)
VLLM = {"python": PYTHON, "engine": "vllm", "dtype": "float32", "gpu-memory": 0.3, "batch-size": None}


@pytest.fixture(scope="module")
def sampled(talkative, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampled")
    run(job(folder, talkative, folder / "whole.parquet", count=40, **VLLM))
    return folder


@EXACT
def test_greedy_answers_are_those_of_transformers(talkative, tmp_path):
    """Token by token, in float32, with the reason for which each answer ended."""
    theirs, ours = tmp_path / "vllm.parquet", tmp_path / "transformers.parquet"
    run(job(tmp_path, talkative, theirs, count=48, **{**VLLM, "temperature": 0}))
    run(job(tmp_path, talkative, ours, count=48, temperature=0))
    assert read(theirs) == read(ours)
    assert len({tuple(row["token_ids"]) for row in read(ours)}) > 20  # they do depend on the prompt


def test_an_answer_ends_with_eos_if_and_only_if_it_ended(sampled, talkative):
    rows = read(sampled / "whole.parquet")
    eos = folders.load_tokenizer(talkative).eos_token_id
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    for row in rows:
        assert (row["token_ids"][-1] == eos) == (row["finish_reason"] == "stop")
        assert len(row["token_ids"]) == 24 or row["finish_reason"] == "stop"
        assert eos not in row["token_ids"][:-1]


@EXACT
def test_an_answer_belongs_to_its_prompt(sampled, talkative):
    """Whatever stands beside it: the same prompts in two shards are answered alike."""
    for shard in (0, 1):
        changes = {"shard": shard, "shard-size": 20}
        run(job(sampled, talkative, sampled / f"{shard}.parquet", count=40, **{**VLLM, **changes}))
    assert read(sampled / "0.parquet") + read(sampled / "1.parquet") == read(sampled / "whole.parquet")


def test_what_made_the_answers_is_told(sampled):
    told = tables.metadata(tables.read(sampled / "whole.parquet", "generations"))
    assert told["attention"].startswith("vllm ")
    assert (told["dtype"], told["settings"]["engine"]) == ("float32", "vllm")


def test_a_killed_generation_goes_on(talkative, tmp_path):
    output = tmp_path / "out.parquet"
    command = job(tmp_path, talkative, output, count=2000, **VLLM)
    killed = kill_in_the_middle(command, output)
    assert f"generate: {killed} of 2000 answers kept from an earlier attempt" in run(command)
    assert len(read(output)) == 2000
    assert not list(output.with_suffix(".state").glob("*"))


@EXACT
def test_lm_eval_scores_with_vllm_as_with_transformers(talkative, tmp_path):
    """lm-eval asks for the version of a package that the CPU build calls by another name."""
    shim = tmp_path / "shim" / "vllm-0.32.0+cpu.dist-info"
    shim.mkdir(parents=True)
    (shim / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = [{"question": f"stone {i}", "choices": ["river", "cloud", "window"], "label": i % 3} for i in range(12)]
    (tasks / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tasks / "words.yaml").write_text(
        "task: words\ndataset_path: json\ndataset_kwargs: {data_files: {test: test.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: label\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
    )
    found = {}
    for engine, python in (("vllm", PYTHON), ("transformers", "python")):
        place = ["--model", talkative, "--manifest", talkative.with_suffix(".json"), "--tasks", tasks]
        flags = ["--suite", "words", "--shots", "words=0", "--engine", engine, "--batch-size", "4"]
        flags += ["--autocast", "float32", *(["--token-budget", "512"] if engine == "transformers" else [])]
        flags += ["--seeds", "0", "1", "1", "1", "--template", "human-assistant", "--eos", "<|endoftext|>"]
        made = ["--scores", tmp_path / f"{engine}.json", "--samples", tmp_path / f"{engine}.parquet"]
        made += ["--state", tmp_path / "state"]
        program = workflow.ROOT / "workflow/scripts/eval.py"
        environment = {**workflow.environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path / "shim")])}
        command = [str(word) for word in (python, program, *place, *flags, *made)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found[engine] = json.loads((tmp_path / f"{engine}.json").read_text())
    assert found["vllm"]["tasks"] == found["transformers"]["tasks"]
    assert found["vllm"]["engine"] == "vllm"
    assert found["vllm"]["versions"].keys() - found["transformers"]["versions"].keys() >= {"vllm"}


CHAT = """
import json, sys
from pathlib import Path
from vllm import LLM, SamplingParams

folder, prompts, found = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
model = LLM(folder, dtype="float32", gpu_memory_utilization=0.3, enforce_eager=True)
sampling = SamplingParams(temperature=0, max_tokens=24)
outputs = model.chat([[{"role": "user", "content": prompt}] for prompt in prompts], sampling, use_tqdm=False)
rows = [[output.prompt_token_ids, list(output.outputs[0].token_ids), output.outputs[0].text] for output in outputs]
found.write_text(json.dumps(rows))
"""


@EXACT
def test_vllms_chat_gives_the_studys_greedy_answers(trained, answered, tmp_path):
    """Of a published folder as it is: the same prompt ids, the same answers, the same end."""
    rows, prompts = read(answered / "answers.parquet"), prompts_of(answered)
    environment = {**workflow.environment(), "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [str(PYTHON), "-c", CHAT, str(trained), json.dumps(prompts), str(tmp_path / "found.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    chat = chat_of(trained)
    assert [ids for ids, *_ in found] == chat.batch_prompt_ids(prompts)
    assert [[ids, text] for _, ids, text in found] == [[row["token_ids"], row["response"]] for row in rows]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_answers_on_a_gpu(talkative, tmp_path, dtype):
    """Those of transformers, up to rounding, which a chain of choices multiplies; bfloat16 rounds coarsely."""
    theirs, ours = tmp_path / "vllm.parquet", tmp_path / "transformers.parquet"
    run(job(tmp_path, talkative, theirs, count=48, **{**VLLM, "temperature": 0, "dtype": dtype}))
    run(job(tmp_path, talkative, ours, count=48, temperature=0))
    pairs = list(zip(read(theirs), read(ours), strict=True))
    first = sum(a["token_ids"][0] == b["token_ids"][0] for a, b in pairs)
    assert first >= 40
    if dtype == "float32":
        assert sum(a == b for a, b in pairs) >= 40
