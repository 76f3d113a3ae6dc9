"""Take the token weights of one shard of iteration 0 from a file of TIS-DPO's code. No model is loaded.

    python workflow/scripts/weigh_given.py --rows results/data/prompts.parquet --shard 0 --shard-size 10000 \
        --generations results/sft/generations/00.parquet --reference results/sft/reference/00.parquet \
        --given given/pairs.jsonl --eos-weight 1.0 --output results/wspin/ite0/weights/00.parquet
"""

from wspin import cli
from wspin.exchange import given
from wspin.storage import tables
from wspin.storage.scored_answers import read_scored_answers


def main(argv=None):
    parser = cli.program_parser("weigh_given", __doc__)
    parser.add_argument("--rows", required=True, help="prompts.parquet")
    cli.add_required(parser, "--shard", "--shard-size", type=int)
    parser.add_argument("--generations", required=True, help="the start model's answers")
    parser.add_argument("--reference", required=True, help="the start model's log-probabilities, for their token ids")
    parser.add_argument("--given", required=True, help="JSONL file with the weights of every pair")
    parser.add_argument("--eos-weight", required=True, type=float, help="weight of EOS where the file has none")
    cli.add_required(parser, "--output")
    weigh_given(parser.parse_args(argv))


def weigh_given(arguments):
    """Match the file's weights with the tokens of one shard and write them."""
    prompts = tables.read(arguments.rows, "prompts")
    rows = tables.shard(prompts, arguments.shard, arguments.shard_size)
    pairs = given.find(arguments.given, prompts, arguments.shard, arguments.shard_size)
    answers, reference = read_scored_answers(arguments.rows, rows, arguments.generations, arguments.reference)
    weights = given.weights(pairs, answers, reference, arguments.eos_weight)
    made_with = {
        **tables.metadata(answers, "model", "tokenizer"),
        "settings": {"given": given.source(arguments.given), "eos_weight": arguments.eos_weight},
        "seed": None,
        "teacher": None,
        "counts": given.counts(pairs),
    }
    tables.write(arguments.output, "weights", {"prompt_id": rows["prompt_id"].to_pylist(), **weights}, made_with)
    print(f"weigh_given: weights of {len(pairs)} pairs from {arguments.given}", flush=True)
    inputs = [arguments.rows, arguments.given, arguments.generations, arguments.reference]
    cli.write_records(arguments, [arguments.output], inputs)


if __name__ == "__main__":
    cli.run(main)
