"""Take the start model's answers to one shard of the prompts from a file of SPIN's or TIS-DPO's code.

    python workflow/scripts/generate_given.py --model results/sft/model --manifest results/sft/manifest.json \
        --prompts results/data/prompts.parquet --shard 0 --shard-size 10000 --given given/pairs.jsonl \
        --max-new-tokens 512 --output results/sft/generations/00.parquet --template human-assistant ...
"""

from wspin import cli
from wspin.config.stages import Dialogue
from wspin.data.chat import ChatTokenizer
from wspin.exchange import given
from wspin.models import folders, offline
from wspin.storage import tables


def main(argv=None):
    parser = cli.program_parser("generate_given", __doc__, Dialogue)
    parser.add_argument("--model", required=True, help="folder of the start model, for its tokenizer")
    parser.add_argument("--manifest", required=True, help="manifest of the start model")
    cli.add_required(parser, "--prompts", "--output")
    cli.add_required(parser, "--shard", "--shard-size", "--max-new-tokens", type=int)
    parser.add_argument("--given", required=True, help="JSONL file with an answer to every prompt")
    arguments = parser.parse_args(argv)
    generate_given(arguments, cli.parse_section(arguments, Dialogue))
    cli.write_records(arguments, [arguments.output], [arguments.manifest, arguments.prompts, arguments.given])


def generate_given(arguments, settings):
    """Tokenize the file's answers with the start model's tokenizer and write them as generations."""
    offline.import_transformers_offline()
    prompts = tables.read(arguments.prompts, "prompts")
    rows = tables.shard(prompts, arguments.shard, arguments.shard_size)
    pairs = given.find(arguments.given, prompts, arguments.shard, arguments.shard_size)
    model = folders.verified_hash(arguments.model, arguments.manifest, weights=False)
    chat = ChatTokenizer(folders.load_tokenizer(arguments.model), settings)
    answers = given.answers(pairs, chat, arguments.max_new_tokens, folders.vocabulary_size(arguments.model))
    columns = {"prompt_id": rows["prompt_id"].to_pylist(), **answers}
    made_with = {
        "tokenizer": folders.tokenizer_hash(chat.tokenizer),
        "model": model,
        "template": settings.template,
        "given": given.source(arguments.given),
    }
    tables.write(arguments.output, "generations", columns, made_with)
    print(f"generate_given: {len(pairs)} answers from {arguments.given}", flush=True)


if __name__ == "__main__":
    cli.run(main)
