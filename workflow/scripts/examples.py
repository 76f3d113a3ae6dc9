"""Show the first prompts with every model's answers, and what each token of these answers weighs.

    python workflow/scripts/examples.py --prompts results/data/prompts.parquet --count 3 \
        --opponents sft spin/ite0 \
        --answers results/sft/generations/00.parquet results/spin/ite1/generations/00.parquet \
        --iterations wspin/ite0 --weights results/wspin/ite0/weights/00.parquet \
        --reference results/sft/reference/00.parquet --generations results/sft/generations/00.parquet \
        --output results/tables/examples.md
"""

from wspin import cli
from wspin.report import examples
from wspin.report.weights import Shard
from wspin.storage.files import whole_file


def main(argv=None):
    parser = cli.program_parser("examples", __doc__)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--count", required=True, type=int, help="prompts to show")
    parser.add_argument("--opponents", required=True, nargs="+", help="names of the models that answered")
    parser.add_argument("--answers", required=True, nargs="+", help="the first shard of each one's answers")
    parser.add_argument("--iterations", nargs="*", default=[], help="whose tokens are weighed")
    for flag in ("--weights", "--reference", "--generations"):
        parser.add_argument(flag, nargs="*", default=[], help="the first shard of each of these iterations")
    parser.add_argument("--output", required=True)
    flags = parser.parse_args(argv)
    answers = dict(zip(flags.opponents, flags.answers, strict=True))
    shards = map(Shard, flags.weights, flags.reference, flags.generations)
    weighed = dict(zip(flags.iterations, shards, strict=True))
    with whole_file(flags.output) as temporary:
        temporary.write_bytes(examples.page(flags.prompts, answers, weighed, flags.count))
    inputs = [flags.prompts, *flags.answers, *flags.weights, *flags.reference, *flags.generations]
    cli.write_records(flags, [flags.output], dict.fromkeys(inputs))


if __name__ == "__main__":
    cli.run(main)
