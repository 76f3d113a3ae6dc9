"""Train one model: sft on real answers, or a preference loss (spin, wspin, dpo) on pairs with a stored reference.

Interrupted, it continues from its last saved state; `model/` and the manifest appear when all is done.

    python workflow/scripts/train.py --model results/sft/model --manifest results/sft/manifest.json \
        --rows results/data/prompts.parquet --reference results/sft/reference/00.parquet --replays 0 \
        --output results/spin/ite0/model --output-manifest results/spin/ite0/manifest.json \
        --metrics results/spin/ite0/metrics.jsonl --state results/.state/train/spin/ite0 --seed 42 0 --loss spin ...
"""

from pathlib import Path

from wspin import cli
from wspin.config.stages import UNTRACKED, Dialogue, Logprobs, Train
from wspin.manage import model_card
from wspin.models import offline
from wspin.storage import code_hash, provenance
from wspin.storage.files import digest, sha256, whole_file
from wspin.storage.locks import remove_state


def main(argv=None):
    parser = cli.program_parser("train", __doc__, Train, Dialogue)
    parser.add_argument("--model", required=True, help="model folder to start from")
    parser.add_argument("--manifest", required=True, help="its manifest")
    parser.add_argument("--rows", required=True, help="prompts.parquet, or preferences.parquet for baselines")
    parser.add_argument("--reference", nargs="*", default=[], help="the start model's log-probabilities; none for sft")
    parser.add_argument("--weights", nargs="*", default=[], help="for loss wspin: of own, then of replayed answers")
    parser.add_argument("--replays", type=int, default=0, help="earlier iterations' answers that the reference holds")
    parser.add_argument("--autocast", required=True, choices=Logprobs.model_fields["autocast"].annotation.__args__)
    parser.add_argument("--seed", required=True, type=int, nargs=2, metavar=("SEED", "ITERATION"))
    parser.add_argument("--processes", required=True, type=int, help="that train together, one on each GPU")
    parser.add_argument("--state", required=True, help="folder of resumable states; a fingerprint is added")
    parser.add_argument("--parent-state", nargs="*", default=[], help="the start model's states, no longer needed")
    for name in ("--output", "--output-manifest", "--metrics"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args(argv)
    settings, dialogue = cli.parse_section(arguments, Train), cli.parse_section(arguments, Dialogue)
    inputs = [arguments.manifest, arguments.rows, *arguments.reference, *arguments.weights]
    resolved = {"train": settings.model_dump(exclude=set(UNTRACKED)), "dialogue": dialogue.model_dump()}
    resolved |= {"seed": arguments.seed, "autocast": arguments.autocast}
    sharded = ["sharded"] if settings.parallel == "fsdp" and arguments.processes > 1 else []
    made_by = [code_hash.code_hash("train"), provenance.versions(("torch", "transformers")), *sharded]
    state = Path(arguments.state) / digest([resolved, made_by, [sha256(path) for path in inputs]])[:16]
    speed = train(arguments, settings, dialogue, state)
    if not speed:
        return  # the first process writes
    cli.write_records(arguments, [arguments.output], inputs, settings=resolved, **speed)
    model_card.leave(arguments.output)
    for folder in arguments.parent_state:
        for lock in Path(folder).glob("*.lock"):
            remove_state(lock.with_suffix(""))


def train(arguments, settings, dialogue_settings, state):
    """Run or continue the training in its state folder and publish the model; returns time and speed, in rank 0."""
    offline.import_transformers_offline()
    from wspin.data.chat import ChatTokenizer as Conversation
    from wspin.engine.packing import PACKING_FORMAT
    from wspin.models import folders
    from wspin.train import distributed, run
    from wspin.train.inputs import group_by_prompt, training_items

    distributed.expect(arguments.processes)
    with distributed.sole_writer(state):
        tokenizer = folders.load_tokenizer(arguments.model)
        dialogue = Conversation(tokenizer, dialogue_settings)
        expected = {"tokenizer": folders.tokenizer_hash(tokenizer), "model": folders.manifest_hash(arguments.manifest)}
        expected |= {"template": dialogue_settings.template, "autocast": arguments.autocast, "layout": PACKING_FORMAT}
        scored = (arguments.rows, arguments.reference, arguments.weights, arguments.replays)
        items = training_items(settings.loss, *scored, dialogue, expected)
        items = group_by_prompt(items, arguments.replays) if settings.triplets else items
        model = folders.load_model(arguments.model, folders.best_device())
        folders.check_eos(model, dialogue.eos, arguments.model)
        speed = run.train(model, items, settings, arguments.autocast, arguments.seed, state)
        weights = distributed.whole_weights(model)
        if distributed.rank() == 0:
            folders.publish(model, tokenizer, arguments.output, arguments.output_manifest, weights)
            with whole_file(arguments.metrics) as temporary:
                temporary.write_bytes((state / "metrics.jsonl").read_bytes())
    return speed


if __name__ == "__main__":
    cli.run(main)
