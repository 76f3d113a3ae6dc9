"""Score answers with a model: the log-probability of every token, stored with the token ids.

`reference` scores all answers that an iteration trains on with its opponent, in one load of the model; `scorer` one
side as text, in the scorer's own tokenizer and template; `preferences` the pairs of the preference baselines.

    python workflow/scripts/logprobs.py reference --model results/sft/model --manifest results/sft/manifest.json \
        --rows results/data/prompts.parquet --shard 0 --shard-size 10000 --generations ... --output ...
"""

from wspin import cli
from wspin.config.stages import Dialogue, Logprobs
from wspin.models import offline
from wspin.progress import progress_printer
from wspin.storage import tables

HELP = {
    "reference": "score all answers that an iteration trains on, with its opponent",
    "scorer": "score real or generated answers, or one side of the preference pairs, with a teacher or another scorer",
    "preferences": "score the pairs of preferences.parquet, with the model that a baseline starts from",
}


def main(argv=None):
    parser = cli.program_parser("logprobs", __doc__)
    commands = parser.add_subparsers(required=True, metavar="|".join(HELP), dest="kind")
    for kind in HELP:
        command = commands.add_parser(kind, help=HELP[kind])
        cli.add_flags(command, Logprobs)
        cli.add_flags(command, Dialogue)
        command.set_defaults(generations=[], replayed=[], dtype="float32", side=None, shifted=False)
        cli.add_required(command, "--model", "--manifest", "--rows", "--output")
        cli.add_required(command, "--shard", "--shard-size", type=int)
    reference, scorer = commands.choices["reference"], commands.choices["scorer"]
    reference.add_argument("--generations", required=True, nargs=1, help="the model's answers of this iteration")
    reference.add_argument("--replayed", nargs="*", default=[], help="earlier iterations' answers, the latest first")
    scorer.add_argument("--generations", nargs="*", default=[], help="generated answers; without: the rows' own")
    scorer.add_argument("--side", choices=tables.SIDES, help="of preference pairs: the answers to score")
    scorer.add_argument("--shifted", action="store_true", help="read every token one position early (weigh.shifted)")
    cli.add_dtype(scorer)
    arguments = parser.parse_args(argv)
    work = score(arguments, cli.parse_section(arguments, Logprobs), cli.parse_section(arguments, Dialogue))
    inputs = [arguments.manifest, arguments.rows, *arguments.generations, *arguments.replayed]
    cli.write_records(arguments, [arguments.output], inputs, work=work)


def score(arguments, settings, dialogue_settings):
    """Score the answers of one shard and write their log-probabilities; returns FLOPs."""
    offline.import_transformers_offline()
    from wspin.data.chat import ChatTokenizer
    from wspin.engine import flops, packing
    from wspin.logprobs.inputs import iteration_answers, preference_answers, scorer_answers
    from wspin.logprobs.score import score_items
    from wspin.models import folders

    kind = "preferences" if arguments.kind == "preferences" or arguments.side else "prompts"
    rows = tables.read_shard(arguments.rows, kind, arguments.shard, arguments.shard_size)
    scorer = {"model": folders.verified_hash(arguments.model, arguments.manifest)}
    chat = ChatTokenizer(folders.load_tokenizer(arguments.model), dialogue_settings)
    scorer |= {"tokenizer": folders.tokenizer_hash(chat.tokenizer), "template": dialogue_settings.template}
    if arguments.kind == "scorer":
        which = (arguments.side or "response", arguments.generations)
        answers = scorer_answers(rows, *which, chat, scorer["tokenizer"], folders.context_length(arguments.model))
    elif arguments.kind == "reference":
        answers = iteration_answers(rows, arguments.generations[0], arguments.replayed, chat, scorer)
    else:
        answers = preference_answers(rows, chat)
    items = answers.items(chat)
    model = folders.load_model(arguments.model, folders.best_device(), arguments.dtype)
    progress, ids = progress_printer("logprobs", len(items), "prompts"), rows["prompt_id"].to_pylist()
    scores = score_items(model, items, settings.token_budget, settings.autocast, progress, ids, arguments.shifted)
    made_with = {**scorer, **answers.metadata, "dtype": arguments.dtype, "autocast": settings.autocast}
    made_with |= {"layout": packing.PACKING_FORMAT, "attention": model.config._attn_implementation}
    made_with |= {"shifted": True} if arguments.shifted else {}  # files of before have no such entry
    kind = "logprobs" if arguments.kind == "scorer" else "reference"
    tables.write(arguments.output, kind, answers.columns(scores), made_with, replays=len(arguments.replayed))
    return flops.scoring_flops(model, items, settings.token_budget)


if __name__ == "__main__":
    cli.run(main)
