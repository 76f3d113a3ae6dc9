"""Programs that generate answers, run and killed as jobs."""

import signal
import subprocess
import sys
import time

import workflow

from wspin.config.stages import Dialogue
from wspin.data.chat import ChatTokenizer
from wspin.models import folders
from wspin.storage import tables

EOS = "<|endoftext|>"


def job(folder, model, output, python=sys.executable, count=400, **changes):
    """The command of a generation over prompts of many lengths."""
    prompts = folder / f"prompts{count}.parquet"
    if not prompts.exists():
        words = ["stone", "river", "cloud", "garden", "window"]
        texts = [" ".join(words[(i + j) % 5] for j in range(1 + i % 7)) for i in range(count)]
        rows = {"prompt_id": [f"p-{i:04d}" for i in range(count)], "prompt": texts, "response": texts}
        tables.write(prompts, "prompts", {**rows, "split": ["train"] * count}, {})
    settings = {"engine": "transformers", "temperature": 1.0, "top-p": 1.0, "max-new-tokens": 24, "batch-size": 4}
    settings |= {"template": "human-assistant", "eos": EOS, "max-prompt-tokens": 64, "max-tokens": 96}
    settings |= {
        "eos-on-cut": "false",
        "shard": 0,
        "shard-size": count,
        "state": output.with_suffix(".state"),
        **changes,
    }
    flags = [str(word) for name, value in settings.items() if value is not None for word in (f"--{name}", value)]
    place = ["--model", model, "--manifest", model.with_suffix(".json"), "--prompts", prompts, "--output", output]
    program = workflow.ROOT / "workflow/scripts/generate.py"
    return [str(word) for word in (python, program, *place, "--seed", 42, 0, *flags)]


def run(command):
    done = subprocess.run(command, env=workflow.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path):
    table = tables.read(path, "generations")
    return table.drop_columns("prompt_id").to_pylist()


def prompts_of(folder, count=14):
    return tables.read(folder / f"prompts{count}.parquet", "prompts")["prompt"].to_pylist()


def chat_of(folder):
    """The tokenizer of a model in the template of `job`."""
    settings = Dialogue(template="human-assistant", eos=EOS, max_prompt_tokens=96, max_tokens=128, eos_on_cut=False)
    return ChatTokenizer(folders.load_tokenizer(folder), settings)


def kill_in_the_middle(command, output):
    """kill -9 when some answers are there; returns how many."""
    process = subprocess.Popen(
        command, env=workflow.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not (files := list(output.with_suffix(".state").glob("*/answers.jsonl"))) or files[0].stat().st_size < 200:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    return len(files[0].read_bytes().split(b"\n")) - 1
