"""Train one model: sft on answers, or a preference loss on pairs with a stored reference.

An interrupted training continues from its last saved state; `model/` and the manifest appear once it is complete.

    python workflow/scripts/train.py --model results/sft/model --manifest results/sft/manifest.json \
        --rows results/data/prompts.parquet --reference results/sft/reference/00.parquet --replays 0 \
        --output results/spin/ite0/model --output-manifest results/spin/ite0/manifest.json \
        --metrics results/spin/ite0/metrics.jsonl --state results/.state/train/spin/ite0 --seed 42 0 --loss spin ...
"""

from pathlib import Path

from wspin import cli, interruption
from wspin.config.base import PRECISIONS
from wspin.config.stages import Dialogue, Train, TrainedAnswers
from wspin.manage import model_card
from wspin.models import offline
from wspin.storage import code_hash, files, locks, provenance


def main(argv=None):
    interruption.receive_stop_requests()  # of which the first may come before a model is loaded
    arguments = argument_parser().parse_args(argv)
    kinds = (Train, Dialogue, TrainedAnswers)
    settings, dialogue, answers = sections = [cli.parse_section(arguments, kind) for kind in kinds]
    inputs = [arguments.manifest, arguments.rows, *arguments.reference, *arguments.weights, *arguments.answers]
    resolved = {"train": settings.recorded(), "dialogue": dialogue.model_dump(), "seed": arguments.seed}
    resolved |= {"answers": answers.model_dump(exclude_none=True), "autocast": arguments.autocast}
    sharded = settings.parallel == "fsdp" and arguments.processes > 1
    code = [code_hash.code_hash("train"), provenance.versions(("torch", "transformers")), *["sharded"] * sharded]
    fingerprint = files.digest([resolved, code, [files.sha256(path) for path in inputs]])[:16]
    speed = train(arguments, *sections, Path(arguments.state) / fingerprint)
    if speed:  # in rank 0, which alone writes
        cli.write_records(arguments, [arguments.output], inputs, settings=resolved, **speed)
        model_card.add_card(arguments.output)
        locks.discard_states(arguments.parent_state)


def argument_parser():
    parser = cli.program_parser("train", __doc__, Train, Dialogue, TrainedAnswers)
    cli.add_required(parser, "--model", "--manifest", "--rows", "--output", "--output-manifest", "--metrics", "--state")
    parser.add_argument("--reference", nargs="*", default=[], help="the start model's log-probabilities; none for sft")
    parser.add_argument("--weights", nargs="*", default=[], help="weight shards, one folder per response set")
    parser.add_argument("--answers", nargs="*", default=[], help="another model's answers, for loss sft on these")
    parser.add_argument("--parent-state", nargs="*", default=[], help="the start model's states, to be removed")
    parser.add_argument("--autocast", required=True, choices=PRECISIONS, help="precision of matrix products")
    cli.add_required(parser, "--seed", type=int, nargs=2, metavar=("SEED", "ITERATION"))
    parser.add_argument("--processes", required=True, type=int, help="processes that train together, one per GPU")
    return parser


def train(arguments, settings, dialogue, answers, state):
    """Run or resume the training in its state folder and publish the model; rank 0 returns entries of its record."""
    offline.import_transformers_offline()
    from wspin.data.chat import ChatTokenizer
    from wspin.engine.packing import PACKING_FORMAT
    from wspin.models import folders
    from wspin.train import distributed, inputs, journal, run, tracking

    distributed.check_launch(arguments.processes)
    tracked = tracking.tracked_run(settings.report_to, arguments.metrics, state)
    with distributed.locked_state(state):
        fingerprint = folders.verified_hash(arguments.model, arguments.manifest)
        chat = ChatTokenizer(folders.load_tokenizer(arguments.model), dialogue)
        expected = {"tokenizer": folders.tokenizer_hash(chat.tokenizer), "model": fingerprint}
        expected |= {"template": dialogue.template, "autocast": arguments.autocast, "layout": PACKING_FORMAT}
        scored = (arguments.rows, arguments.reference, inputs.by_folder(arguments.weights), arguments.answers)
        items = inputs.training_items(settings, inputs.TrainingFiles(*scored), answers, chat, expected)
        model = folders.load_model(arguments.model, folders.best_device())
        folders.check_eos(model, chat.eos, arguments.model)
        speed = run.train(model, items, settings, arguments.autocast, arguments.seed, state, tracked)
        made = (arguments.output, arguments.output_manifest, chat.chat_template, distributed.full_state_dict(model))
        if distributed.rank() == 0:
            folders.publish(model, arguments.model, *made)
            speed["curve"] = journal.publish_curve(state, arguments.metrics)
    return speed


if __name__ == "__main__":
    cli.run(main)
