"""Score answers with a model: log-probability of every token, stored with the ids it belongs to.

`reference` scores all that an iteration needs of its opponent in one load of the model: the real, this iteration's
and the replayed answers. `preferences` scores the pairs of the preference baselines.

    python workflow/scripts/logprobs.py reference --model results/sft/model --manifest results/sft/manifest.json \
        --rows results/data/prompts.parquet --shard 0 --shard-size 10000 \
        --generations results/sft/generations/00.parquet --output results/sft/reference/00.parquet ...
"""

from wspin import program, tables
from wspin.config import Dialogue, Logprobs


def main(argv=None):
    parser = program.parser("logprobs", __doc__)
    commands = parser.add_subparsers(required=True, metavar="reference|preferences")
    for name, kind in (("reference", "prompts"), ("preferences", "preferences")):
        command = commands.add_parser(name, help=f"score the answers of {kind}.parquet")
        program.add_flags(command, Logprobs)
        program.add_flags(command, Dialogue)
        command.set_defaults(kind=kind, generations=None, replayed=[])
        for flag in ("--model", "--manifest", "--rows", "--output"):
            command.add_argument(flag, required=True)
        command.add_argument("--shard", required=True, type=int)
        command.add_argument("--shard-size", required=True, type=int)
    reference = commands.choices["reference"]
    reference.add_argument("--generations", required=True, help="this iteration's answers, made by the model")
    reference.add_argument("--replayed", nargs="*", default=[], help="earlier iterations' answers, the latest first")
    arguments = parser.parse_args(argv)
    score(arguments, program.settings(arguments, Logprobs), program.settings(arguments, Dialogue))
    generations = [arguments.generations] if arguments.generations else []
    program.leave_record(
        arguments, [arguments.output], [arguments.manifest, arguments.rows, *generations, *arguments.replayed]
    )


def score(arguments, settings, dialogue_settings):
    """Score one shard and write it with what made it."""
    program.offline()
    from wspin import logprobs, models, pairs
    from wspin.dialogue import Dialogue as Conversation
    from wspin.packing import LAYOUT

    rows = tables.shard(tables.read(arguments.rows, arguments.kind), arguments.shard, arguments.shard_size)
    tokenizer = models.load_tokenizer(arguments.model)
    dialogue = Conversation(tokenizer, dialogue_settings)
    common = {"tokenizer": models.tokenizer_hash(tokenizer), "template": dialogue_settings.template}
    own = {**common, "model": program.manifest_hash(arguments.manifest)}
    if arguments.kind == "prompts":
        answers = pairs.iteration_answers(rows, arguments.generations, arguments.replayed, dialogue, own, common)
    else:
        answers = pairs.preference_answers(rows, dialogue)
    items = pairs.scoring_items(rows, answers, dialogue)
    model = models.load_model(arguments.model, models.best_device())
    told = program.progress("logprobs", len(items))
    scores = logprobs.score(model, items, settings.token_budget, settings.autocast, told)
    columns = pairs.reference_columns(rows, answers, scores, dialogue)
    made_with = {**own, "dtype": "float32", "autocast": settings.autocast, "layout": LAYOUT}
    made_with |= {"attention": model.config._attn_implementation, "eos_on_cut": dialogue_settings.eos_on_cut}
    tables.write(arguments.output, "reference", columns, made_with, replays=len(arguments.replayed))


if __name__ == "__main__":
    program.run(main)
