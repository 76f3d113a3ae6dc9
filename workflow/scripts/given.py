"""Take from a file of SPIN's or TIS-DPO's code what iteration 0 would make: one shard of answers, or of their weights.

    python workflow/scripts/given.py answers --model results/sft/model --manifest results/sft/manifest.json \
        --rows results/data/prompts.parquet --shard 0 --shard-size 10000 --given given/pairs.jsonl \
        --max-new-tokens 512 --output results/sft/generations/00.parquet --template human-assistant ...
    python workflow/scripts/given.py weights --rows results/data/prompts.parquet --shard 0 --shard-size 10000 \
        --generations results/sft/generations/00.parquet --reference results/sft/reference/00.parquet --given ... ...
"""

from pathlib import Path

from wspin import cli
from wspin.config.stages import Dialogue
from wspin.exchange import given
from wspin.models import offline
from wspin.storage import tables
from wspin.storage.files import sha256


def main(argv=None):
    parser = cli.parser("given", __doc__)
    commands = parser.add_subparsers(required=True, metavar="answers|weights")
    for name, action in (("answers", answers), ("weights", weights)):
        command = commands.add_parser(name, help=action.__doc__)
        command.set_defaults(action=action)
        for flag in ("--rows", "--given", "--output"):
            command.add_argument(flag, required=True)
        for flag in ("--shard", "--shard-size"):
            command.add_argument(flag, required=True, type=int)
    said, weighed = commands.choices["answers"], commands.choices["weights"]
    cli.add_flags(said, Dialogue)
    said.add_argument("--model", required=True, help="folder of the model whose answers they are")
    said.add_argument("--manifest", required=True)
    said.add_argument("--max-new-tokens", required=True, type=int, help="longest answer, EOS included")
    weighed.add_argument("--generations", required=True)
    weighed.add_argument("--reference", required=True)
    weighed.add_argument("--eos-weight", required=True, type=float, help="where the file has none of its own")
    arguments = parser.parse_args(argv)
    rows = tables.shard(tables.read(arguments.rows, "prompts"), arguments.shard, arguments.shard_size)
    pairs = given.find(arguments.given, rows)
    source = {"file": Path(arguments.given).name, "sha256": sha256(arguments.given)}
    inputs = arguments.action(arguments, rows, pairs, source)
    cli.leave_record(arguments, [arguments.output], [arguments.rows, arguments.given, *inputs])


def answers(arguments, rows, pairs, source):
    """the start model's answers, in the tokens of its tokenizer"""
    offline.import_transformers_offline()
    from wspin.data.chat import ChatTokenizer as Conversation
    from wspin.models import folders

    dialogue = Conversation(folders.load_tokenizer(arguments.model), cli.settings(arguments, Dialogue))
    columns = given.answers(pairs, dialogue, arguments.max_new_tokens)
    made_with = {"tokenizer": folders.tokenizer_hash(dialogue.tokenizer), "template": dialogue.settings.template}
    made_with |= {"model": folders.manifest_hash(arguments.manifest), "given": source}
    tables.write(arguments.output, "generations", {"prompt_id": rows["prompt_id"].to_pylist(), **columns}, made_with)
    print(f"given: {len(pairs)} answers of {arguments.given}", flush=True)
    return [arguments.manifest]


def weights(arguments, rows, pairs, source):
    """the weights of their tokens"""
    generations = tables.read(arguments.generations, "generations")
    student = tables.made_with(generations, "model", "tokenizer")
    reference = tables.read_reference(arguments.reference, **student)
    ids = rows["prompt_id"].to_pylist()
    for path, table in ((arguments.generations, generations), (arguments.reference, reference)):
        tables.same_rows(arguments.rows, ids, path, table["prompt_id"].to_pylist())
    read = tables.texts_hash(rows["prompt"].to_pylist(), rows["response"].to_pylist())
    tables.expect(arguments.reference, reference, texts=read)
    tables.same_answers(arguments.reference, generations, reference)
    columns = given.weights(pairs, generations, reference, arguments.eos_weight)
    made_with = {**student, "settings": {"given": source, "eos_weight": arguments.eos_weight}, "seed": None}
    made_with |= {"teacher": None, "counts": given.counts(pairs)}
    tables.write(arguments.output, "weights", {"prompt_id": ids, **columns}, made_with)
    print(f"given: weights of {len(pairs)} pairs of {arguments.given}", flush=True)
    return [arguments.generations, arguments.reference]


if __name__ == "__main__":
    cli.run(main)
