"""Score answers with a model: the log-probability of every token, stored with the token ids.

`reference` scores all answers that an iteration trains on with its opponent, in one load of the model: the real, this
iteration's and the replayed ones. `teacher` scores real or generated answers as text, in the teacher's own tokenizer
and template. `preferences` scores the pairs of the preference baselines.

    python workflow/scripts/logprobs.py reference --model results/sft/model --manifest results/sft/manifest.json \
        --rows results/data/prompts.parquet --shard 0 --shard-size 10000 \
        --generations results/sft/generations/00.parquet --output results/sft/reference/00.parquet ...
"""

from wspin import cli
from wspin.config.stages import Dialogue, Logprobs
from wspin.models import offline
from wspin.progress import progress_printer
from wspin.storage import tables

ROWS = {"reference": "prompts", "teacher": "prompts", "preferences": "preferences"}
HELP = {
    "reference": "score all answers that an iteration trains on, with its opponent",
    "teacher": "score real or generated answers, with a teacher",
    "preferences": "score the pairs of preferences.parquet, with the model that a baseline starts from",
}


def main(argv=None):
    parser = cli.program_parser("logprobs", __doc__)
    commands = parser.add_subparsers(required=True, metavar="|".join(ROWS), dest="kind")
    for kind in ROWS:
        command = commands.add_parser(kind, help=HELP[kind])
        cli.add_flags(command, Logprobs)
        cli.add_flags(command, Dialogue)
        command.set_defaults(generations=[], replayed=[], dtype="float32")
        cli.add_required(command, "--model", "--manifest", "--rows", "--output")
        cli.add_required(command, "--shard", "--shard-size", type=int)
    reference, teacher = commands.choices["reference"], commands.choices["teacher"]
    reference.add_argument("--generations", required=True, nargs=1, help="the model's answers of this iteration")
    reference.add_argument("--replayed", nargs="*", default=[], help="earlier iterations' answers, the latest first")
    teacher.add_argument("--generations", nargs="*", default=[], help="generated answers; without: the real ones")
    cli.add_dtype(teacher)
    arguments = parser.parse_args(argv)
    work = score(arguments, cli.parse_section(arguments, Logprobs), cli.parse_section(arguments, Dialogue))
    inputs = [arguments.manifest, arguments.rows, *arguments.generations, *arguments.replayed]
    cli.write_records(arguments, [arguments.output], inputs, work=work)


def score(arguments, settings, dialogue_settings):
    """Score the answers of one shard and write their log-probabilities; returns FLOPs."""
    offline.import_transformers_offline()
    from wspin.data.chat import ChatTokenizer
    from wspin.engine import flops
    from wspin.engine.packing import PACKING_FORMAT
    from wspin.logprobs.inputs import iteration_answers, preference_answers, teacher_answers
    from wspin.logprobs.score import score_items
    from wspin.models import folders

    rows = tables.shard(tables.read(arguments.rows, ROWS[arguments.kind]), arguments.shard, arguments.shard_size)
    scorer = {"model": folders.verified_hash(arguments.model, arguments.manifest)}
    chat = ChatTokenizer(folders.load_tokenizer(arguments.model), dialogue_settings)
    scorer |= {"tokenizer": folders.tokenizer_hash(chat.tokenizer), "template": dialogue_settings.template}
    if arguments.kind == "teacher":
        context = folders.context_length(arguments.model)
        answers = teacher_answers(rows, arguments.generations, chat, scorer["tokenizer"], context)
    elif arguments.kind == "reference":
        answers = iteration_answers(rows, arguments.generations[0], arguments.replayed, chat, scorer)
    else:
        answers = preference_answers(rows, chat)
    items = answers.items(chat)
    model = folders.load_model(arguments.model, folders.best_device(), arguments.dtype)
    progress, ids = progress_printer("logprobs", len(items)), rows["prompt_id"].to_pylist()
    scores = score_items(model, items, settings.token_budget, settings.autocast, progress, ids)
    made_with = {**scorer, **answers.metadata, "dtype": arguments.dtype, "autocast": settings.autocast}
    made_with |= {"layout": PACKING_FORMAT, "attention": model.config._attn_implementation}
    kind = "logprobs" if arguments.kind == "teacher" else "reference"
    tables.write(arguments.output, kind, answers.columns(scores), made_with, replays=len(arguments.replayed))
    return flops.scoring_flops(model, items, settings.token_budget)


if __name__ == "__main__":
    cli.run(main)
